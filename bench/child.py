"""Child: run one side of a comparison as a child process, with a log and a certain end."""

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
    """A side ended without being asked to. The message has the end of its log."""


class Child:
    """A running `python -m MODULE ...`."""

    def __init__(self, arguments: Sequence[str], settings: Settings, folder: Path) -> None:
        self._log = folder / f"{settings.kafka.topic_prefix}{arguments[0]}.log"
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
        """Check that the process still runs.

        Raises:
            DiedError: The process has ended.
        """
        code = self.process.poll()
        if code is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            raise DiedError("\n".join([f"{self._log.name}: ended with exit code {code}", *lines]))

    def finish(self, seconds: float) -> None:
        """Wait until the process has finished its work.

        Raises:
            DiedError: The process failed.
            TimeoutExpired: The process is still running.
        """
        if self.process.wait(seconds):
            self.check()

    def kill(self) -> None:
        """Kill the process like `kill -9`, if the process still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.process.wait()


@contextmanager
def child(arguments: Sequence[str], settings: Settings, folder: Path) -> Generator[Child]:
    """Provide a running child process, and kill the process at the end of the block."""
    running = Child(arguments, settings, folder)
    try:
        yield running
    finally:
        running.kill()
