"""Replay: events a second and the most memory of `clickscore replay` on a generated log: `python -m bench.replay`.

Each run is a process of its own, told by its CPU time as well, since other programs may share the cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import click
import msgspec
import psutil

from bench.logs import ITEMS, START_MS, natural_acts
from bench.machine import ROOT
from bench.place import MODEL, say
from export.random_bundle import write_random_bundle

RATE = 200.0
"""Events a second of event time: about 120,000 of 24,000 shoppers come within ten minutes, sessions of 5 events."""
LOOK_SECONDS = 0.05
BACKTEST_RATE = 10.0
"""The same for a backtest, which judges sessions that have ended: the whole log must last longer than they do."""
ARMS = 10
_WRITTEN = 20_000  # lines at once


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One replay."""

    what: str
    events: int
    wall_s: float
    cpu_s: float
    early_bytes: int
    """Resident, of all its processes, the most in the first half of the time."""
    late_bytes: int
    """The same, in the second half."""

    def words(self) -> str:
        """Return it as a line."""
        return (
            f"{self.what}: {self.events:,} events, {self.events / self.cpu_s:,.0f} a second of CPU time "
            f"({self.cpu_s / self.events * 1e6:.1f} us each), {self.events / self.wall_s:,.0f}/s on the clock; "
            f"at most {self.early_bytes / 2**20:.0f} MiB in the first half, {self.late_bytes / 2**20:.0f} in the second"
        )


def write_log(path: Path, events: int, rate: float = RATE) -> None:
    """Write a log of natural sessions as JSON lines, at so many events a second of event time."""
    acts = enumerate(natural_acts(rate, 5.0))
    with path.open("wb") as file:
        for begin in range(0, events, _WRITTEN):
            part = islice(acts, min(_WRITTEN, events - begin))
            records = (act.at(number, START_MS + int(number * 1000 / rate)) for number, act in part)
            file.write(b"".join(record.value + b"\n" for record in records))


def measure(what: str, events: int, *arguments: object) -> Run:
    """Run `clickscore` with these arguments and look at it as it goes."""
    began = time.monotonic()
    child = psutil.Popen(
        [sys.executable, "-m", "stream", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "ORT_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    looks: list[tuple[int, float]] = []
    while child.poll() is None:
        looks.append(_look(child) or (looks[-1] if looks else (0, 0.0)))
        time.sleep(LOOK_SECONDS)
    if child.returncode:
        raise click.ClickException(f"{what}: exit code {child.returncode}")
    sizes, half = [size for size, _ in looks], len(looks) // 2
    return Run(
        what=what,
        events=events,
        wall_s=time.monotonic() - began,
        cpu_s=max(cpu for _, cpu in looks),
        early_bytes=max(sizes[:half]),
        late_bytes=max(sizes[half:]),
    )


def backtests(log: Path, events: int, bundle: Path, folder: Path) -> list[Run]:
    """Measure backtests of one arm, and of several that share its bundle and sessions but for a policy setting."""
    found: list[Run] = []
    for arms in (1, ARMS):
        named = [("--arm", f"name={k},bundle={bundle},k={k}") for k in range(10, 10 + arms)]
        flat = [word for pair in named for word in pair]
        what = f"backtest of {arms} arm{'s' if arms > 1 else ''}"
        options = ("--no-baselines", "--leak-sample", 0, "--json", folder / f"{arms}.json")
        found.append(measure(what, events, "backtest", log, *flat, *options))
    return found


def _look(child: psutil.Process) -> tuple[int, float] | None:
    """Return resident bytes and CPU seconds of a process and its children, none where one has just ended."""
    try:
        family = [child, *child.children(recursive=True)]
        times = [one.cpu_times() for one in family]
        return sum(one.memory_info().rss for one in family), sum(spent.user + spent.system for spent in times)
    except psutil.NoSuchProcess:
        return None


@click.command()
@click.option("--events", default=1_000_000, show_default=True, help="Of the log without a model.")
@click.option("--scored", default=100_000, show_default=True, help="Of the log with a model.")
@click.option("--workers", default=1, show_default=True)
def main(events: int, scored: int, workers: int) -> None:
    """Measure replays without and with a model, of sessions, and backtests."""
    with tempfile.TemporaryDirectory(prefix="clickscore-bench-") as name:
        folder = Path(name)
        long, short, out = folder / "long.jsonl", folder / "short.jsonl", folder / "out.jsonl"
        say(f"Writing a log of {events:,} events")
        write_log(long, events)
        write_log(short, scored)
        write_random_bundle(folder / "bundle", ITEMS, MODEL)
        shared = ("--workers", workers, "--out")
        runs = (
            ("replay without a model", events, "replay", long, *shared, out),
            ("the same, output packed", events, "replay", long, *shared, folder / "out.jsonl.gz"),
            ("sessions", events, "sessions", long, *shared, out),
            ("replay with a model", scored, "replay", short, "--bundle", folder / "bundle", *shared, out),
        )
        for run in runs:
            click.echo(measure(*run).words())
            out.unlink(missing_ok=True)
        write_log(short, scored, BACKTEST_RATE)
        one, several = backtests(short, scored, folder / "bundle", folder)
        click.echo(f"{one.words()}\n{several.words()}")
        click.echo(
            f"{ARMS} arms that share bundle and sessions cost {several.cpu_s / one.cpu_s:.2f} x one arm, CPU time"
        )


if __name__ == "__main__":
    main()
