"""Meter: read the CPU time of a side, of the broker, and of unrelated programs."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil


class Reading(NamedTuple):
    """CPU seconds so far."""

    read_at: float
    side: float
    broker: float
    companions: float
    """CPU seconds of the benchmark's processes that load and observe."""
    strangers: float
    """CPU seconds of all unrelated programs, and time that the host took away."""


class Meter:
    """CPU clocks of one run."""

    def __init__(self, side: psutil.Process, broker_pid: int, companions: Sequence[psutil.Process] = ()) -> None:
        """Prepare the clocks.

        Args:
            side: Process of the side.
            broker_pid: Process id of the broker.
            companions: Other processes of the benchmark, such as a producer.
        """
        self._side = side
        self._broker = psutil.Process(broker_pid)
        self._companions = (psutil.Process(), *companions)

    def read(self) -> Reading:
        """Return the current clocks."""
        side, broker, companions = _seconds(self._side), _seconds(self._broker), sum(map(_seconds, self._companions))
        machine = psutil.cpu_times()
        busy = sum(machine[:3]) + sum(getattr(machine, name, 0.0) for name in ("irq", "softirq", "steal"))
        return Reading(time.time(), side, broker, companions, busy - side - broker - companions)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
