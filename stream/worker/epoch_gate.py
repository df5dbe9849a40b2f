"""Epoch gate: hold the batches of a partition back until this worker has what their epochs name."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from clickscore.schemas.events import read_epoch
from clickscore.stream.reference.catalogue_history import Offsets, offsets_of
from clickscore.stream.worker.group import FetchedBatch
from clickscore.stream.worker.reference import POLL_S, ReferenceData
from clickscore.stream.worker.rollouts import RolloutKeeper

HELD_BATCHES = 16
"""Largest number of batches held back of a partition; more batches stop the reading of all partitions."""


class MissingData(NamedTuple):
    """What a batch must wait for."""

    offsets: Offsets | None
    """Offsets of catalogue and campaigns that are not read yet."""
    bundles: list[str]
    """Content hashes of bundles, and labels of policies, that are not loaded yet."""


class EpochGate:
    """Passes batches on; a partition whose epoch is not reached waits, and the other partitions go on."""

    def __init__(
        self,
        reference: ReferenceData,
        put: Callable[[FetchedBatch], Awaitable[None]],
        rollouts: RolloutKeeper | None = None,
    ) -> None:
        """Build the gate.

        Args:
            reference: Knows how far the reference data is read.
            put: Takes the batches that may be decided.
            rollouts: Knows which bundles are loaded; None for a worker without a bundle store.
        """
        self._reference = reference
        self._rollouts = rollouts
        self._put = put
        self._held: dict[int, deque[FetchedBatch]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, batch: FetchedBatch) -> None:
        """Pass a batch on, or hold it back behind the earlier batches of its partition."""
        held = self._held.get(batch.partition)
        if held is None:
            if self._missing(batch) is None:
                await self._put(batch)
                return
            held = self._held[batch.partition] = deque([batch])
            task = asyncio.create_task(self._release(batch.partition, held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        held.append(batch)
        while len(held) > HELD_BATCHES:  # noqa: ASYNC110 (a full gate is rare: the reader of the catalogue is stuck)
            await asyncio.sleep(POLL_S)

    async def _release(self, partition: int, held: deque[FetchedBatch]) -> None:
        """Pass the held batches of a partition on, each after the wait for its epochs."""
        while held:
            missing = self._missing(held[0])
            if missing is not None and missing.offsets is not None:
                await self._reference.reach(missing.offsets)
            if missing is not None and missing.bundles and self._rollouts is not None:
                await self._rollouts.reach(missing.bundles)
            await self._put(held[0])
            held.popleft()
        del self._held[partition]

    def _missing(self, batch: FetchedBatch) -> MissingData | None:
        """Return what a batch must wait for: for its own epochs, and for the bundles of the partition's epoch."""
        epochs = [epoch for record in batch.records if (epoch := read_epoch(record.value)) is not None]
        bundles = self._rollouts.missing(batch.partition, epochs) if self._rollouts is not None else []
        position = self._reference.position
        largest = Offsets(*map(max, zip(position, *map(offsets_of, epochs), strict=True))) if epochs else position
        if largest == position and not bundles:
            return None
        return MissingData(largest if largest != position else None, bundles)
