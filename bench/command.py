"""Command: run a command line as a process, and measure wall time, CPU time and memory."""

import os
import subprocess
import sys
import tempfile
import time
from typing import IO

import msgspec
import psutil

from bench.environment import report_progress
from bench.machine import ROOT

LOOK_SECONDS = 0.2  # a look reads all processes of the machine


class FailedError(Exception):
    """A command ended with a nonzero exit code. The message has the output."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a command over a log."""

    title: str
    events: int
    wall_s: float
    cpu_s: float
    """CPU seconds of all processes of the command."""
    peak_bytes: int
    """Peak resident memory of all processes together."""

    @property
    def per_second(self) -> float:
        """Events per second, including start and end of the process."""
        return self.events / self.wall_s

    @property
    def cpu_us(self) -> float:
        """CPU time per event, microseconds."""
        return self.cpu_s / self.events * 1e6


def child_environment() -> dict[str, str]:
    """Return the environment variables of a child process."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1"}


def measure(title: str, events: int, *arguments: object, feed: IO[bytes] | None = None) -> Run:
    """Run `clickscore` with some arguments and measure the run.

    Args:
        title: Title of the run.
        events: Number of events in the log.
        arguments: Arguments of the command line.
        feed: Source of stdin.

    Raises:
        FailedError: The command failed.
    """
    with tempfile.TemporaryFile() as output:
        started_at = time.monotonic()
        child = psutil.Popen(
            [sys.executable, "-P", "-m", "clickscore.stream", *map(str, arguments)],
            env=child_environment(),
            stdin=feed or subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        peak, cpu_s = 0, 0.0
        while child.poll() is None:
            size, spent = _look(child)
            peak, cpu_s = max(peak, size), max(cpu_s, spent)
            time.sleep(LOOK_SECONDS)
        run = Run(title=title, events=events, wall_s=time.monotonic() - started_at, cpu_s=cpu_s, peak_bytes=peak)
        if child.returncode:
            output.seek(0)
            raise FailedError(f"{title}: exit code {child.returncode}: {output.read().decode(errors='replace')[-500:]}")
    report_progress(
        f"{title}: {run.per_second:,.0f} events/s, {run.cpu_us:.1f} us CPU each, "
        f"at most {run.peak_bytes / 2**20:,.0f} MiB"
    )
    return run


def _look(child: psutil.Process) -> tuple[int, float]:
    """Return resident bytes and CPU seconds of a process and its children; 0 if the process has just ended."""
    try:
        family = [child, *child.children(recursive=True)]
        times = [process.cpu_times() for process in family]
        return sum(process.memory_info().rss for process in family), sum(spent.user + spent.system for spent in times)
    except psutil.NoSuchProcess:
        return 0, 0.0
