"""Command: a run of the command line as a process of its own, with its time, its CPU time and its memory."""

import os
import subprocess
import sys
import tempfile
import time
from typing import IO

import msgspec
import psutil

from bench.machine import ROOT
from bench.place import say

LOOK_SECONDS = 0.2  # a look reads all processes of the machine


class FailedError(Exception):
    """A command ended with another exit code than 0; the message has what it said."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a command over a log."""

    what: str
    events: int
    wall_s: float
    cpu_s: float
    """Of all its processes."""
    peak_bytes: int
    """Resident, of all its processes at once, at most."""

    @property
    def per_second(self) -> float:
        """Events, its start and end included."""
        return self.events / self.wall_s

    @property
    def cpu_us(self) -> float:
        """CPU time an event."""
        return self.cpu_s / self.events * 1e6


def environment() -> dict[str, str]:
    """Return what a process of ours is started with."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1"}


def measure(what: str, events: int, *arguments: object, feed: IO[bytes] | None = None) -> Run:
    """Run `clickscore` with these arguments, look at it as it goes, and say how it did.

    Args:
        what: The run, in words.
        events: How many it takes.
        arguments: Of the command line.
        feed: What it reads from stdin.

    Raises:
        FailedError: It failed.
    """
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        child = psutil.Popen(
            [sys.executable, "-P", "-m", "clickscore.stream", *map(str, arguments)],
            env=environment(),
            stdin=feed or subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        peak, cpu_s = 0, 0.0
        while child.poll() is None:
            size, spent = _look(child)
            peak, cpu_s = max(peak, size), max(cpu_s, spent)
            time.sleep(LOOK_SECONDS)
        run = Run(what=what, events=events, wall_s=time.monotonic() - began, cpu_s=cpu_s, peak_bytes=peak)
        if child.returncode:
            said.seek(0)
            raise FailedError(f"{what}: exit code {child.returncode}: {said.read().decode(errors='replace')[-500:]}")
    say(
        f"{what}: {run.per_second:,.0f} events/s, {run.cpu_us:.1f} us CPU each, "
        f"at most {run.peak_bytes / 2**20:,.0f} MiB"
    )
    return run


def _look(child: psutil.Process) -> tuple[int, float]:
    """Return resident bytes and CPU seconds of a process and its children, 0 where one has just ended."""
    try:
        family = [child, *child.children(recursive=True)]
        times = [one.cpu_times() for one in family]
        return sum(one.memory_info().rss for one in family), sum(spent.user + spent.system for spent in times)
    except psutil.NoSuchProcess:
        return 0, 0.0
