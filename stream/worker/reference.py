"""Reference data of a worker: load catalogue and campaigns for the epochs of its partitions, and follow the topics."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from aiokafka.errors import KafkaError

from clickscore.schemas.events import Epoch
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue_history import NO_OFFSETS, CatalogueHistory, Offsets, offsets_of
from clickscore.stream.reference.feed import CatalogueFeed, Positions, Records
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

POLL_S = 0.01
"""Pause between two looks at the position of the reader, s."""
MAX_CHANGES = 250_000
"""Number of changes of catalogue and campaigns in memory, for partitions that lag, with which no newer ones are read:
some 100 MB."""
PAUSE_S = 0.2
"""Time between two looks whether the partitions have caught up, s."""
LOOK_AT_END_S = 1.0
"""Time until a wait looks whether the topics end before the awaited offsets, s."""

Start = Callable[[Callable[[], Awaitable[None]]], "asyncio.Task[None]"]
"""Starts work in the background; an error of the work stops the worker."""


class ReferenceData:
    """Keeps the pipeline's history of the catalogue complete for the epochs of all partitions."""

    def __init__(
        self,
        *,
        feed: CatalogueFeed,
        pipeline: Pipeline,
        compute: ComputeThread,
        metrics: Metrics,
        start: Start,
        wait_ms: int,
        max_changes: int = MAX_CHANGES,
    ) -> None:
        """Build the history, without data.

        Args:
            feed: Reads the topics.
            pipeline: Gets the history.
            compute: Thread in which the history changes.
            metrics: Counts waits that end without the awaited records.
            start: Starts the loop that follows the topics.
            wait_ms: Longest wait for the offsets that an epoch names, ms.
            max_changes: Number of changes in memory with which no newer ones are read.
        """
        self.may_go_back = False
        """Whether the topics end before an offset that an epoch names: they were made anew, and begin again at 0."""
        self._feed = feed
        self._pipeline = pipeline
        self._compute = compute
        self._metrics = metrics
        self._start = start
        self._wait_s = wait_ms / 1000
        self._max_changes = max_changes
        self._awaited: list[Offsets] = []  # offsets that epochs name and that partitions wait for
        self._following: asyncio.Task[None] | None = None

    @property
    def position(self) -> Offsets:
        """Offsets after the last records read."""
        return self._pipeline.history.position

    async def prepare(self, epochs: Iterable[Epoch | None]) -> None:
        """Load what the epochs of the partitions need, and wait until the reader has reached the newest of them.

        Args:
            epochs: Epoch of each partition; absent for a partition without an epoch.
        """
        needed = [offsets_of(epoch) for epoch in epochs if epoch is not None]
        history = self._pipeline.history
        if self._following is None or not all(map(history.knows, needed)):
            await self._load(needed)
        for offsets in needed:
            await self.reach(offsets)

    async def _load(self, needed: list[Offsets]) -> None:
        """Read the topics from their beginning, and follow them from there on."""
        if self._following is not None:
            self._following.cancel()
            log.info("catalogue and campaigns are read again: a partition is in an earlier epoch than the others")
        oldest = Offsets(*map(min, zip(*needed, strict=True))) if needed else None
        newest = Offsets(*map(max, zip(NO_OFFSETS, *needed, strict=True)))
        history, positions = await self._feed.load(oldest, newest, self._max_changes)
        await self._compute.call(self._pipeline.replace_history, history)
        self._following = self._start(lambda: self._follow(positions))

    async def _follow(self, positions: Positions) -> None:
        """Add later records to the history in the compute thread, and so between two batches."""
        history = self._pipeline.history

        async def add(records: Records, positions: Positions) -> None:
            await self._compute.call(self._feed.add, history, records, positions)
            await self._wait_for_room(history)

        await self._wait_for_room(history)
        await self._feed.follow(positions, add)

    async def _wait_for_room(self, history: CatalogueHistory) -> None:
        """Wait while memory holds too many changes, except for records that an epoch names.

        Partitions that lag need the values of old epochs. To forget these values would make their decisions differ from
        the log, so newer records have to wait: all partitions go on in the newest epoch that was read.
        """
        if not await self._is_full(history):
            return
        log.warning(
            "%d changes of catalogue and campaigns are in memory for partitions that lag: newer changes take effect "
            "when these partitions have caught up",
            history.retained,
        )
        self._metrics.catalogue_waits.set(1)
        while await self._is_full(history):  # noqa: ASYNC110 (partitions catch up in another thread)
            await asyncio.sleep(PAUSE_S)
        self._metrics.catalogue_waits.set(0)
        log.info("changes of catalogue and campaigns take effect again")

    async def _is_full(self, history: CatalogueHistory) -> bool:
        """Return whether memory holds too many changes, and no partition waits for the next ones."""
        if history.retained < self._max_changes or not all(map(history.has_reached, self._awaited)):
            return False
        await self._compute.call(history.trim)
        return history.retained >= self._max_changes

    async def reach(self, offsets: Offsets) -> bool:
        """Wait until all records before these offsets are read; return whether they are.

        The wait is bounded: without the records the decisions go on with the records that there are.
        """
        if self._pipeline.history.has_reached(offsets):
            return True
        self._awaited.append(offsets)
        try:
            return await self._wait_until_reached(offsets)
        finally:
            self._awaited.remove(offsets)

    async def _wait_until_reached(self, offsets: Offsets) -> bool:
        """Wait for records that are not read yet; return whether they have come in time."""
        started_at, has_looked = time.monotonic(), False
        while (waited_s := time.monotonic() - started_at) < self._wait_s:
            await asyncio.sleep(POLL_S)
            if self._pipeline.history.has_reached(offsets):
                return True
            if waited_s > LOOK_AT_END_S and not has_looked:
                has_looked = True
                if await self._ends_before(offsets):
                    self.may_go_back = True
                    break
        self._metrics.incomplete_epochs.inc()
        log.warning(
            "an epoch names catalogue offset %d and campaigns offset %d, but the topics are read up to %d and %d: "
            "decisions go on with the present catalogue and campaigns%s",
            *offsets,
            *self.position,
            ". The topics end there: they were made anew" if self.may_go_back else "",
        )
        return False

    async def _ends_before(self, offsets: Offsets) -> bool:
        try:
            ends = await self._feed.end_offsets()
        except (KafkaError, OSError) as exc:
            log.debug("the ends of catalogue and campaigns cannot be read: %s", exc)
            return False
        return ends.catalogue < offsets.catalogue or ends.campaigns < offsets.campaigns
