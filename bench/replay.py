"""Replay: events a second of `clickscore replay` on a generated log, and what ten arms and reasons cost."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from statistics import median

from bench.alone import Alone, measure_alone
from bench.command import Run, environment, measure
from bench.effort import Effort
from bench.logs import START_MS, natural_acts
from bench.place import Place, say
from bench.report import Found, Row

RATE = 200.0
"""Events a second of event time: about 120,000 of 24,000 shoppers come within ten minutes, sessions of 5 events."""
BACKTEST_RATE = 10.0
"""The same for a backtest, which judges sessions that have ended: the whole log must last longer than they do."""
ARMS = 10
_WRITTEN = 20_000  # lines at once


def replay(place: Place, effort: Effort) -> Found:
    """Without a model; with one, in one process and in as many as there are cores, each beside ONNX Runtime alone."""
    log, out = place.folder / "long.jsonl", place.folder / "out.jsonl"
    write_log(log, effort.replayed_events, RATE)
    place.quiet.wait()
    bare = measure("replay without a model", effort.replayed_events, "replay", log, "--out", out)
    pairs = [
        _beside_alone(place, effort, log, out, processes) for processes in sorted({1, min(4, os.cpu_count() or 1)})
    ]
    out.unlink()
    rows = [
        Row(
            what=f"Events/s of `clickscore replay`, of what ONNX Runtime alone does on the very same calls, {where}",
            values=(run.per_second / sum(one.per_second for one in alone),),
            digits=".2f",
            goal=0.90,
            at_least=True,
            beside=f"{run.per_second:,.0f} of {sum(one.per_second for one in alone):,.0f}/s, "
            f"{run.cpu_us:.0f} us CPU each; by CPU time {alone[0].cpu_us / run.cpu_us:.2f}",
        )
        for where, (run, alone) in zip(("one process", "a process a core"), pairs, strict=False)
    ]
    rows.append(
        Row(
            what="Events/s of `clickscore replay` without a model, one core",
            values=(1e6 / bare.cpu_us,),
            digits=",.0f",
            goal=150_000,
            at_least=True,
            beside=f"{bare.cpu_us:.1f} us CPU each, start included; {bare.per_second:,.0f}/s on the clock",
        )
    )
    return Found(rows, [bare, *(run for run, _ in pairs)])


def arms(place: Place, effort: Effort) -> Found:
    """A backtest of one arm, and one of several that share its bundle and sessions but for a policy setting."""
    log = place.folder / "backtest.jsonl"
    write_log(log, effort.judged_events, BACKTEST_RATE)
    place.quiet.wait()
    one, several = (_backtest(place, log, effort.judged_events, count) for count in (1, ARMS))
    row = Row(
        what=f"A backtest of {ARMS} arms that share bundle and sessions, against one of one arm, CPU time",
        values=(several.cpu_us / one.cpu_us,),
        digits=".2f",
        unit=" x",
        goal=2.0,
        at_least=False,
        beside=f"{several.cpu_us:.0f} and {one.cpu_us:.0f} us an event, start and intervals included",
    )
    return Found([row], [one, several])


def reasons(place: Place, effort: Effort) -> Found:
    """A replay in whose decisions each item names an event, and one in whose it does not, in turn."""
    log, out = place.folder / "reasons.jsonl", place.folder / "out.jsonl"
    write_log(log, effort.judged_events, RATE)
    place.quiet.wait()
    arguments = ("replay", log, "--bundle", place.bundle, "--out", out)
    pairs = [
        tuple(
            measure(f"replay, {most} reasons an item", effort.judged_events, *arguments, "--reasons", most)
            for most in (0, 1)
        )
        for _ in range(effort.rounds)
    ]
    out.unlink()
    silent, told = (median(pair[at].cpu_us for pair in pairs) for at in (0, 1))
    row = Row(
        what="A replay whose items name the event that spoke most for them, against one without, CPU time",
        values=tuple(told.cpu_us / silent.cpu_us for silent, told in pairs),
        digits=".2f",
        unit=" x",
        goal=1.5,
        at_least=False,
        beside=f"{told:.0f} and {silent:.0f} us an event, start included",
    )
    return Found([row], [run for pair in pairs for run in pair])


def flat(place: Place, effort: Effort) -> Found:
    """The most memory of a replay of a log, and of one ten times as long, both read as they are made."""
    short, long = (_from_stdin(place, events) for events in (effort.long_events // 10, effort.long_events))
    row = Row(
        what=f"Memory of a replay of {long.events / 1e6:g} million events, against {short.events / 1e6:g} million",
        values=(long.peak_bytes / short.peak_bytes,),
        digits=".2f",
        unit=" x",
        goal=1.10,
        at_least=False,
        beside=f"at most {long.peak_bytes / 2**20:,.0f} and {short.peak_bytes / 2**20:,.0f} MiB resident",
    )
    return Found([row], [short, long])


def write_log(path: Path, events: int, rate: float) -> None:
    """Write a log of natural sessions as JSON lines, at so many events a second of event time."""
    say(f"writing a log of {events:,} events")
    acts = enumerate(natural_acts(rate, 5.0))
    with path.open("wb") as file:
        for begin in range(0, events, _WRITTEN):
            part = islice(acts, min(_WRITTEN, events - begin))
            records = (act.at(number, START_MS + int(number * 1000 / rate)) for number, act in part)
            file.write(b"".join(record.value + b"\n" for record in records))


def _beside_alone(place: Place, effort: Effort, log: Path, out: Path, processes: int) -> tuple[Run, list[Alone]]:
    alone = measure_alone(log, place.bundle, effort.control_seconds * 5, processes)
    run = measure(
        f"replay with a model, {processes} process{'es' if processes > 1 else ''}",
        effort.replayed_events,
        *("replay", log, "--bundle", place.bundle, "--workers", processes, "--out", out),
    )
    return run, alone


def _backtest(place: Place, log: Path, events: int, count: int) -> Run:
    named = [("--arm", f"name={k},bundle={place.bundle},k={k}") for k in range(10, 10 + count)]
    options = ("--no-baselines", "--leak-sample", 0, "--json", place.folder / "figures.json")
    what = f"backtest of {count} arm{'s' if count > 1 else ''}"
    return measure(what, events, "backtest", log, *(word for pair in named for word in pair), *options)


def _from_stdin(place: Place, events: int) -> Run:
    """Replay a log that is nowhere on disk."""
    out = place.folder / "out.jsonl.gz"
    making = subprocess.Popen(
        [sys.executable, "-m", "bench.replay", str(events)], env=environment(), stdout=subprocess.PIPE
    )
    try:
        return measure(f"replay of {events:,} events", events, "replay", "-", "--out", out, feed=making.stdout)
    finally:
        making.kill()
        making.wait()
        out.unlink(missing_ok=True)


if __name__ == "__main__":
    write_log(Path("/dev/stdout"), int(sys.argv[1]), RATE)
