"""Meter: CPU time of a side, of the broker, and of all programs that have nothing to do with the benchmark."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil


class Reading(NamedTuple):
    """CPU seconds so far."""

    at: float
    side: float
    broker: float
    beside: float
    """Of the benchmark's own processes: loading, watching."""
    strangers: float
    """Of whatever else runs on this machine, and what its host gave to others."""


class Meter:
    """Reads the CPU clocks of a run."""

    def __init__(self, side: psutil.Process, broker_pid: int, beside: Sequence[psutil.Process] = ()) -> None:
        """Read these; `beside` is what else belongs to the benchmark, such as a producer."""
        self._side = side
        self._broker = psutil.Process(broker_pid)
        self._beside = (psutil.Process(), *beside)

    def read(self) -> Reading:
        """Return the clocks as they stand."""
        side, broker, beside = _seconds(self._side), _seconds(self._broker), sum(map(_seconds, self._beside))
        machine = psutil.cpu_times()
        busy = sum(machine[:3]) + sum(getattr(machine, name, 0.0) for name in ("irq", "softirq", "steal"))
        return Reading(time.time(), side, broker, beside, busy - side - broker - beside)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
