"""Worker process: run a worker as a child process, with a log file, a health check and a bounded stop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import ProxyHandler, build_opener

import msgspec

from clickscore.stream.errors import WorkerDiedError
from clickscore.stream.settings import Settings, environment_of

READY_SECONDS = 90.0
"""Time limit for a worker to get its partitions. Measured: 3 s on two idle cores."""
STOP_SECONDS = 15.0
"""Time limit for a worker to finish its batches, between SIGTERM and SIGKILL."""

_HEALTH_SECONDS = 2.0
_LOG_LINES = 15


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a worker's /health that the demo reads."""

    lag: int
    open_sessions: int


_decode_health = msgspec.json.Decoder(Health).decode


class WorkerProcess:
    """A `clickscore worker` as a child process. Use it as a context manager: the exit always ends the process.

    Raises:
        WorkerDiedError: The worker ended without being asked to.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """Prepare the process. Entering the context starts the process.

        Args:
            settings: Settings of the worker, passed through environment variables.
            log: File for the output of the worker.
        """
        self._settings = settings
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            # The worker gets its own process group: Ctrl-C reaches only the parent, which ends the worker in order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "clickscore.stream", "worker"],  # -P: no module of the current folder
                env={**os.environ, **environment_of(self._settings)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, exc, traceback
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until the worker has its partitions and consumes.

        Raises:
            WorkerDiedError: The worker ended, or was not ready in time. The message has the end of the log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while await self.health() is None:
            self.check()
            if time.monotonic() > deadline:
                raise WorkerDiedError(self._with_log(f"the worker was not ready within {READY_SECONDS:.0f} s"))
            await asyncio.sleep(0.1)

    async def health(self) -> Health | None:
        """Return the worker's health; None if the worker does not answer or is not ready."""
        url = f"http://{self._settings.worker.web_host}:{self._settings.worker.web_port}/health"
        try:
            return _decode_health(await asyncio.to_thread(_get, url))
        except (OSError, msgspec.DecodeError):  # the worker is starting, busy, or not ready (503)
            return None

    def check(self) -> None:
        """Check that the worker still runs.

        Raises:
            WorkerDiedError: The worker has ended. The message has the end of the log.
        """
        code = self._process.poll()
        if code is not None:
            raise WorkerDiedError(self._with_log(f"the worker ended by itself (exit code {code})"))

    def _with_log(self, message: str) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"{message}. The end of its log:", *(f"  {line}" for line in lines)])


def free_port(host: str) -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _get(url: str) -> bytes:
    # The worker is on this machine, so ignore a proxy from the environment.
    with build_opener(ProxyHandler({})).open(url, timeout=_HEALTH_SECONDS) as response:
        return response.read()
