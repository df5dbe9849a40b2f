"""Worker process: a worker as a child of ours, with its log, its health and a bounded end."""

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
"""How long a worker may take until it has its partitions. Measured: 3 s on two idle cores."""
STOP_SECONDS = 15.0
"""How long it may take to finish what it has begun, after SIGTERM and before SIGKILL."""

_HEALTH_SECONDS = 2.0
_LOG_LINES = 15


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a worker's /health."""

    lag: int
    open_sessions: int


_decode_health = msgspec.json.Decoder(Health).decode


class WorkerProcess:
    """`clickscore worker` with these settings. A context manager: leaving it ends the process, whatever happened.

    Raises:
        WorkerDiedError: It ended by itself.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """Prepare it; entering the context starts it.

        Args:
            settings: All of them reach the worker through its environment.
            log: File for all that it says.
        """
        self._settings = settings
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            # A process group of its own: Ctrl-C in the terminal is for us, and we end it in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clickscore.stream", "worker"],
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
        """The child's process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Return once it has its partitions and consumes.

        Raises:
            WorkerDiedError: It ended, or was not ready in time; with the end of its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while await self.health() is None:
            self.check()
            if time.monotonic() > deadline:
                raise WorkerDiedError(self._with_log(f"the worker was not ready within {READY_SECONDS:.0f} s"))
            await asyncio.sleep(0.1)

    async def health(self) -> Health | None:
        """Return what it says of itself, none where it does not answer or is not ready."""
        url = f"http://{self._settings.web_host}:{self._settings.web_port}/health"
        try:
            return _decode_health(await asyncio.to_thread(_get, url))
        except (OSError, msgspec.DecodeError):  # not up yet, busy, or 503 since it is not ready
            return None

    def check(self) -> None:
        """Do nothing while it lives.

        Raises:
            WorkerDiedError: It has ended; with the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise WorkerDiedError(self._with_log(f"the worker ended by itself (exit code {code})"))

    def _with_log(self, message: str) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"{message}. The end of its log:", *(f"  {line}" for line in lines)])


def free_port(host: str) -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _get(url: str) -> bytes:
    # Without the proxy of the environment: the worker is on this machine.
    with build_opener(ProxyHandler({})).open(url, timeout=_HEALTH_SECONDS) as response:
        return response.read()
