"""Explain process: explain a past decision in a child process, within limits of time and number."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence

import msgspec

from clickscore.schemas.topics import EVENTS
from clickscore.stream.decision_ids import parse_decision_id
from clickscore.stream.errors import RequestError, SettingsError
from clickscore.stream.settings import Settings, environment_of

TURN_SECONDS = 4.0
"""Longest wait for other explanations to end, s; with the longest explanation within the life of a request."""
EXPLAIN_AT_ONCE = 2
"""Explanations at the same time: each takes a core and the memory of a small worker."""
NICENESS = 10
"""Added niceness of the child process: the gateway stays responsive beside it."""
MAX_NICENESS = 19
"""Largest niceness of a process on Linux."""
COMMAND = (sys.executable, "-P", "-m", "clickscore.stream", "explain", "--json")
"""Program that explains. `-P`: no module of the current folder."""

_log = logging.getLogger(__name__)


class _Finding(msgspec.Struct, frozen=True, gc=False):
    """The parts of an explanation that decide the answer."""

    problem: str = ""
    event: msgspec.Raw = msgspec.Raw(b"null")


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_finding = msgspec.json.Decoder(_Finding).decode


class ExplainProcess:
    """Runs `clickscore explain`, which reads a partition from its beginning, with the settings of the gateway.

    A child process needs no import of the worker's code, and its work does not hold up the gateway.
    """

    def __init__(
        self, settings: Settings, command: Sequence[str] = COMMAND, turn_seconds: float = TURN_SECONDS
    ) -> None:
        """Prepare the command.

        Args:
            settings: Connection, the settings of the worker, and the limits.
            command: Program that prints a JSON list with the explanation of the id in its last argument.
            turn_seconds: Longest wait for other explanations to end, s.
        """
        self._turn_seconds = turn_seconds
        self._topic = settings.kafka.topic(EVENTS.name)
        self._limit_ms = settings.gateway.gateway_explain_ms
        warm_up = settings.gateway.gateway_explain_records
        self._command = [*command, *(("--warm-up", str(warm_up)) if warm_up else ()), "--"]
        self._environment = {**os.environ, **environment_of(settings)}
        self._turns = asyncio.Semaphore(EXPLAIN_AT_ONCE)

    async def explain(self, decision_id: str) -> bytes:
        """Return the explanation of a decision as JSON.

        Raises:
            RequestError: There is no such decision, the log cannot be read, or the time is over.
        """
        try:
            topic = parse_decision_id(decision_id).topic
        except SettingsError as exc:
            raise RequestError(404, str(exc)) from exc
        if topic != self._topic:
            raise RequestError(404, f"no such decision: the events of this gateway are in {self._topic}")
        try:
            async with asyncio.timeout(self._turn_seconds):
                await self._turns.acquire()
        except TimeoutError as exc:
            message = f"{EXPLAIN_AT_ONCE} other explanations are under way: try again later"
            raise RequestError(503, message, headers={"Retry-After": "10"}) from exc
        try:
            async with asyncio.timeout(self._limit_ms / 1000):
                explanation = await self._run(decision_id)
        except TimeoutError as exc:
            message = (
                f"the explanation takes longer than gateway_explain_ms ({self._limit_ms} ms): "
                "use `clickscore explain`, or set gateway_explain_records"
            )
            raise RequestError(504, message) from exc
        finally:
            self._turns.release()
        finding = _read_finding(explanation)
        if bytes(finding.event) == b"null":
            raise RequestError(404, f"the decision cannot be explained: {finding.problem}")
        return explanation

    async def _run(self, decision_id: str) -> bytes:
        """Return the explanation that a child process prints. The process does not outlive the call.

        Raises:
            RequestError: The process fails.
        """
        process = await asyncio.create_subprocess_exec(
            *self._command,
            decision_id,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            with contextlib.suppress(ProcessLookupError):
                niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
                os.setpriority(os.PRIO_PROCESS, process.pid, min(niceness, MAX_NICENESS))
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            (explanation,) = _split(output)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            words = errors.decode(errors="replace").strip()[-2_000:]
            _log.warning("`clickscore explain` has failed with exit code %s: %s", process.returncode, words)
            message = "the decision cannot be explained now: the log of the gateway has the reason"
            raise RequestError(503, message, headers={"Retry-After": "10"}) from exc
        return bytes(explanation)
