"""Quiet: waits until other programs leave the machine alone, for as long as one has patience."""

import time

import psutil

QUIET_PERCENT = 8.0  # of all cores: an idle broker and a system at rest
_LOOK_SECONDS = 2.0


class Quiet:
    """A time that may be spent waiting, over all runs together."""

    def __init__(self, patience_seconds: float) -> None:
        self._left = patience_seconds

    def wait(self) -> None:
        """Return when the machine is quiet, or patience is at its end."""
        while self._left > 0:
            began = time.monotonic()
            busy = psutil.cpu_percent(_LOOK_SECONDS)
            if busy < QUIET_PERCENT:
                return
            self._left -= time.monotonic() - began
