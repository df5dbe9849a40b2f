"""Idle check: wait for an idle machine, within a total time limit."""

import time

import psutil

QUIET_PERCENT = 8.0  # of all cores: an idle broker and a system at rest
_LOOK_SECONDS = 2.0


class IdleCheck:
    """Total time for waiting, shared by all runs."""

    def __init__(self, max_wait_seconds: float) -> None:
        self._left = max_wait_seconds

    def wait(self) -> None:
        """Return when the machine is idle or the time is used up."""
        while self._left > 0:
            started_at = time.monotonic()
            busy = psutil.cpu_percent(_LOOK_SECONDS)
            if busy < QUIET_PERCENT:
                return
            self._left -= time.monotonic() - started_at
