"""Epoch gate: hold the batches of a partition back until the reference data that their epochs name is read."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from clickscore.schemas.events import read_epoch
from clickscore.stream.reference.catalogue_history import Offsets, offsets_of
from clickscore.stream.worker.group import FetchedBatch
from clickscore.stream.worker.reference import POLL_S, ReferenceData

HELD_BATCHES = 16
"""Largest number of batches held back of a partition; more batches stop the reading of all partitions."""


class EpochGate:
    """Passes batches on; a partition whose epoch is not reached waits, and the other partitions go on."""

    def __init__(self, reference: ReferenceData, put: Callable[[FetchedBatch], Awaitable[None]]) -> None:
        """Build the gate.

        Args:
            reference: Knows how far the reference data is read.
            put: Takes the batches that may be decided.
        """
        self._reference = reference
        self._put = put
        self._held: dict[int, deque[FetchedBatch]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, batch: FetchedBatch) -> None:
        """Pass a batch on, or hold it back behind the earlier batches of its partition."""
        held = self._held.get(batch.partition)
        if held is None:
            needed = self._missing(batch)
            if needed is None:
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
            needed = self._missing(held[0])
            if needed is not None:
                await self._reference.reach(needed)
            await self._put(held[0])
            held.popleft()
        del self._held[partition]

    def _missing(self, batch: FetchedBatch) -> Offsets | None:
        """Return the largest offsets that the epochs of a batch name, if they are not reached."""
        epochs = [epoch for record in batch.records if (epoch := read_epoch(record.value)) is not None]
        if not epochs:
            return None
        position = self._reference.position
        largest = Offsets(*map(max, zip(position, *map(offsets_of, epochs), strict=True)))
        return largest if largest != position else None
