"""Lease: at most one retraining of a rollout at a time, over all machines, by records of the topic `rollouts`."""

import asyncio
import logging
import threading
import time
from types import TracebackType
from typing import Self

from clickscore.retraining.errors import RetrainingBusyError, RetrainingError
from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.retraining import RetrainingLease
from clickscore.stream.kafka.rollout_log import read_rollouts, write_lease
from clickscore.stream.settings import KafkaSettings

log = logging.getLogger(__name__)

TERM_MS = 10 * MINUTE_MS
"""Term of a lease: after a kill, another machine may begin so much later."""
RENEWAL_S = 120.0
"""Time between two renewals, s: a fifth of the term, so that a broker may be away for minutes."""


class Lease:
    """Holds the lease of a rollout while its context is open, and renews it in a thread beside the training."""

    def __init__(self, settings: KafkaSettings, rollout: str, holder: str) -> None:
        """Take nothing yet.

        Args:
            settings: Connection, and names of topics.
            rollout: Name of the rollout.
            holder: Name of the holder.
        """
        self._settings, self._rollout, self._holder = settings, rollout, holder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        asyncio.run(self._take())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        now_ms = _now_ms()
        try:
            asyncio.run(write_lease(self._settings, self._rollout, self._record(now_ms, now_ms)))
        except ClickscoreError as exc:
            log.warning("the lease on the retraining was not given back, and ends by itself: %s", exc)

    def check(self) -> None:
        """Check that the lease is still held, before anything is published.

        Raises:
            RetrainingError: Another holder has it.
        """
        asyncio.run(self._check())

    async def _take(self) -> None:
        """Take the lease. Two takers at the same time read back who came first in the log."""
        lease = (await read_rollouts(self._settings)).lease(self._rollout)
        now_ms = _now_ms()
        if lease is not None and lease.holder != self._holder and lease.ends_at > now_ms:
            raise _held(lease, now_ms)
        await write_lease(self._settings, self._rollout, self._record(now_ms, now_ms + TERM_MS))
        await self._check()

    async def _check(self) -> None:
        lease, now_ms = (await read_rollouts(self._settings)).lease(self._rollout), _now_ms()
        if lease is None or lease.holder != self._holder or lease.ends_at <= now_ms:
            raise _held(lease, now_ms)

    def _renew(self) -> None:
        while not self._stopped.wait(RENEWAL_S):
            now_ms = _now_ms()
            try:
                asyncio.run(write_lease(self._settings, self._rollout, self._record(now_ms, now_ms + TERM_MS)))
            except ClickscoreError as exc:
                log.warning("the lease on the retraining was not renewed: %s", exc)

    def _record(self, taken_at: int, ends_at: int) -> RetrainingLease:
        return RetrainingLease(holder=self._holder, taken_at=taken_at, ends_at=ends_at)


def _held(lease: RetrainingLease | None, now_ms: int) -> RetrainingError:
    if lease is None or lease.ends_at <= now_ms:
        return RetrainingError("the lease on the retraining has ended: start the command again")
    wait_s = (lease.ends_at - now_ms) / 1000
    return RetrainingBusyError(
        f"another retraining of this rollout runs (holder {lease.holder}): its lease ends in {wait_s:.0f} s "
        "unless it is renewed"
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
