"""Replay: measure `clickscore replay` on a generated log, and the cost of ten arms and of reasons."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from statistics import median

from bench.command import Run, child_environment, measure
from bench.environment import Environment, report_progress
from bench.logs import START_MS, natural_acts
from bench.ort_ceiling import Ceiling, measure_ceiling
from bench.report import Measurement, Row
from bench.run_budget import RunBudget

RATE = 200.0
"""Events per second of event time: about 120,000 events of 24,000 shoppers within ten minutes, 5 events a session."""
BACKTEST_RATE = 10.0
"""The rate for a backtest. The log must last longer than its sessions, because a backtest judges closed sessions."""
ARMS = 10
_WRITTEN = 20_000  # lines at once


def replay(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure replays without a model, and with a model in one process and in several, beside ONNX Runtime alone."""
    log, out = environment.folder / "long.jsonl", environment.folder / "out.jsonl"
    write_log(log, budget.replayed_events, RATE)
    environment.idle_check.wait()
    bare = measure("replay without a model", budget.replayed_events, "replay", log, "--out", out)
    pairs = [
        _beside_ceiling(environment, budget, log, out, processes)
        for processes in sorted({1, min(4, os.cpu_count() or 1)})
    ]
    out.unlink()
    rows = [
        Row(
            title=f"Events/s of `clickscore replay`, relative to ONNX Runtime alone on the same calls, {label}",
            values=(run.per_second / sum(process.per_second for process in alone),),
            digits=".2f",
            goal=0.90,
            at_least=True,
            beside=f"{run.per_second:,.0f} of {sum(process.per_second for process in alone):,.0f}/s, "
            f"{run.cpu_us:.0f} us CPU each; by CPU time {alone[0].cpu_us / run.cpu_us:.2f}",
        )
        for label, (run, alone) in zip(("one process", "a process a core"), pairs, strict=False)
    ]
    rows.append(
        Row(
            title="Events/s of `clickscore replay` without a model, one core",
            values=(1e6 / bare.cpu_us,),
            digits=",.0f",
            goal=150_000,
            at_least=True,
            beside=f"{bare.cpu_us:.1f} us CPU each, start included; {bare.per_second:,.0f}/s on the clock",
        )
    )
    return Measurement(rows, [bare, *(run for run, _ in pairs)])


def arms(environment: Environment, budget: RunBudget) -> Measurement:
    """Compare a backtest of one arm with a backtest of ten arms that share bundle and sessions."""
    log = environment.folder / "backtest.jsonl"
    write_log(log, budget.judged_events, BACKTEST_RATE)
    environment.idle_check.wait()
    single, all_arms = (_backtest(environment, log, budget.judged_events, count) for count in (1, ARMS))
    row = Row(
        title=f"CPU time of a backtest of {ARMS} arms that share bundle and sessions, relative to one arm",
        values=(all_arms.cpu_us / single.cpu_us,),
        digits=".2f",
        unit=" x",
        goal=2.0,
        at_least=False,
        beside=f"{all_arms.cpu_us:.0f} and {single.cpu_us:.0f} us an event, start and intervals included",
    )
    return Measurement([row], [single, all_arms])


def reasons(environment: Environment, budget: RunBudget) -> Measurement:
    """Compare a replay with reasons with a replay without reasons, in turn."""
    log, out = environment.folder / "reasons.jsonl", environment.folder / "out.jsonl"
    write_log(log, budget.judged_events, RATE)
    environment.idle_check.wait()
    arguments = ("replay", log, "--bundle", environment.bundle, "--out", out)
    pairs = [
        tuple(
            measure(
                f"replay, {reasons_per_item} reasons an item",
                budget.judged_events,
                *arguments,
                "--reasons",
                reasons_per_item,
            )
            for reasons_per_item in (0, 1)
        )
        for _ in range(budget.rounds)
    ]
    out.unlink()
    without_reasons, with_reasons = (median(pair[index].cpu_us for pair in pairs) for index in (0, 1))
    row = Row(
        title="CPU time of a replay that names one event as reason for each item, relative to a replay without reasons",
        values=tuple(with_reasons.cpu_us / without_reasons.cpu_us for without_reasons, with_reasons in pairs),
        digits=".2f",
        unit=" x",
        goal=1.5,
        at_least=False,
        beside=f"{with_reasons:.0f} and {without_reasons:.0f} us an event, start included",
    )
    return Measurement([row], [run for pair in pairs for run in pair])


def flat(environment: Environment, budget: RunBudget) -> Measurement:
    """Compare the peak memory of a replay with the peak memory of a replay of a log ten times as long."""
    short, long = (_from_stdin(environment, events) for events in (budget.long_events // 10, budget.long_events))
    row = Row(
        title=f"Memory of a replay of {long.events / 1e6:g} million events, relative to {short.events / 1e6:g} million",
        values=(long.peak_bytes / short.peak_bytes,),
        digits=".2f",
        unit=" x",
        goal=1.10,
        at_least=False,
        beside=f"at most {long.peak_bytes / 2**20:,.0f} and {short.peak_bytes / 2**20:,.0f} MiB resident",
    )
    return Measurement([row], [short, long])


def write_log(path: Path, events: int, rate: float) -> None:
    """Write a log of natural sessions as JSON lines.

    Args:
        path: File.
        events: Number of events.
        rate: Events per second of event time.
    """
    report_progress(f"writing a log of {events:,} events")
    acts = enumerate(natural_acts(rate, 5.0))
    with path.open("wb") as file:
        for begin in range(0, events, _WRITTEN):
            part = islice(acts, min(_WRITTEN, events - begin))
            records = (act.at(number, START_MS + int(number * 1000 / rate)) for number, act in part)
            file.write(b"".join(record.value + b"\n" for record in records))


def _beside_ceiling(
    environment: Environment, budget: RunBudget, log: Path, out: Path, processes: int
) -> tuple[Run, list[Ceiling]]:
    alone = measure_ceiling(log, environment.bundle, budget.control_seconds * 5, processes)
    run = measure(
        f"replay with a model, {processes} process{'es' if processes > 1 else ''}",
        budget.replayed_events,
        *("replay", log, "--bundle", environment.bundle, "--workers", processes, "--out", out),
    )
    return run, alone


def _backtest(environment: Environment, log: Path, events: int, count: int) -> Run:
    arm_lines = [("--arm", f"name={k},bundle={environment.bundle},k={k}") for k in range(10, 10 + count)]
    options = ("--no-baselines", "--leak-sample", 0, "--json-file", environment.folder / "figures.json")
    title = f"backtest of {count} arm{'s' if count > 1 else ''}"
    return measure(title, events, "backtest", log, *(word for pair in arm_lines for word in pair), *options)


def _from_stdin(environment: Environment, events: int) -> Run:
    """Replay a generated log from stdin, without a file."""
    out = environment.folder / "out.jsonl.gz"
    making = subprocess.Popen(
        [sys.executable, "-m", "bench.replay", str(events)], env=child_environment(), stdout=subprocess.PIPE
    )
    try:
        return measure(f"replay of {events:,} events", events, "replay", "-", "--out", out, feed=making.stdout)
    finally:
        making.kill()
        making.wait()
        out.unlink(missing_ok=True)


if __name__ == "__main__":
    write_log(Path("/dev/stdout"), int(sys.argv[1]), RATE)
