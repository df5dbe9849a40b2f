"""Child: a side of the comparison as a process of its own, with its log and a certain end."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.machine import ROOT
from clickscore.stream.settings import Settings, environment_of

WORKER = ("clickscore.stream", "worker")
_LOG_LINES = 15


class DiedError(Exception):
    """A side ended by itself; the message has the end of its log."""


class Child:
    """A running `python -m MODULE ...`."""

    def __init__(self, arguments: Sequence[str], settings: Settings, folder: Path) -> None:
        self._log = folder / f"{settings.topic_prefix}{arguments[0]}.log"
        self.began_at = time.time()
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-P", "-m", *arguments],
                env={
                    **os.environ,
                    **environment_of(settings),
                    "PYTHONPATH": str(ROOT),
                    "ORT_DISABLE_TELEMETRY": "1",
                },
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Do nothing while it lives.

        Raises:
            DiedError: It has ended.
        """
        code = self.process.poll()
        if code is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            raise DiedError("\n".join([f"{self._log.name}: ended with exit code {code}", *lines]))

    def finish(self, seconds: float) -> None:
        """Wait until it has done what it was started for.

        Raises:
            DiedError: It failed.
            TimeoutExpired: It is still at it.
        """
        if self.process.wait(seconds):
            self.check()

    def kill(self) -> None:
        """End it as `kill -9` does; does nothing where it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.process.wait()


@contextmanager
def child(arguments: Sequence[str], settings: Settings, folder: Path) -> Generator[Child]:
    """Give a running child, which does not outlive the block."""
    running = Child(arguments, settings, folder)
    try:
        yield running
    finally:
        running.kill()
