"""Repair: write the newest snapshots again over the late snapshots of a stalled worker, while the partition stays here.

The publisher notices an overlay: a write of its own does not continue at the end of the write before. The repair reads
the foreign records, marks the users with an older state in the foreign records, and sends an empty batch through the
worker. The snapshots of the marked users so take the usual way: behind the decisions, with the partition's own record
last. Until then a compaction may keep the older state.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.snapshots import PARTITION_KEY
from clickscore.schemas.topics import SNAPSHOTS
from clickscore.stream.kafka.log_reader import OpenReader
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.state.changelog import source_offset
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch, FetchedRecord
from clickscore.stream.worker.overlays import Overlay, Overlays
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.restore import tombstone_offset

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause before another attempt to read an overlay while no broker answers, s."""


class ForeignState(NamedTuple):
    """The last foreign record of a key."""

    offset: int
    """Source offset of the state; -1 for a tombstone without the header."""
    is_tombstone: bool


class RepairBatch:
    """A batch without records: carries the marked snapshots to the publisher."""

    records: tuple[FetchedRecord, ...] = ()
    ends_fetch = True

    def __init__(self, overlay: Overlay, generation: int, overlays: Overlays) -> None:
        self.partition = overlay.partition
        self.generation = generation
        self._overlay = overlay
        self._overlays = overlays

    def mark_committable(self) -> None:
        """Note the repair as done: the broker has acknowledged the snapshots."""
        self._overlays.resolve(self._overlay)

    def ack(self) -> None:
        """Do nothing: the consumer group knows no such batch."""


class OverlayRepair:
    """Repairs overlays, one after the other."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        open_reader: OpenReader,
        group: ConsumerGroup,
        pipeline: Pipeline,
        compute: ComputeThread,
        overlays: Overlays,
        put: Callable[[FetchedBatch], Awaitable[None]],
        metrics: Metrics,
        retry_s: float = RETRY_S,
    ) -> None:
        """Build the repair.

        Args:
            kafka: Names of topics.
            open_reader: Opens a reader of the changelog.
            group: Knows the assigned partitions and the generation.
            pipeline: Has the newest state of each partition.
            compute: Thread in which the pipeline changes.
            overlays: Overlays to repair.
            put: Queues a batch for the pipeline.
            metrics: Counts repaired snapshots.
            retry_s: Pause before another attempt to read while no broker answers, s.
        """
        self._topic = kafka.topic(SNAPSHOTS.name)
        self._open_reader = open_reader
        self._group = group
        self._pipeline = pipeline
        self._compute = compute
        self._overlays = overlays
        self._put = put
        self._metrics = metrics
        self._retry_s = retry_s

    async def run(self) -> None:
        """Repair overlays as the publisher notices them, until cancelled."""
        while True:
            overlay = await self._overlays.next_overlay()
            generation = self._group.generation
            foreign = await self._read(overlay)
            marked = await self._compute.call(self._mark, overlay.partition, foreign)
            if marked is None:
                # The other writer is ahead, and this worker is the stalled worker: the next rebalance restores.
                log.warning("partition %d: another worker owns the partition by now", overlay.partition)
                continue
            log.warning(
                "partition %d: another worker wrote %d snapshots late; %d users are written again",
                overlay.partition,
                len(foreign),
                marked,
            )
            self._metrics.repaired.inc(marked)
            await self._put(RepairBatch(overlay, generation, self._overlays))

    async def _read(self, overlay: Overlay) -> dict[bytes, ForeignState]:
        """Return the last foreign record of each key; wait while no broker answers."""
        while True:
            try:
                return await self._read_range(overlay)
            except (KafkaError, OSError) as exc:
                log.warning("partition %d: the changelog cannot be read (%s); trying again", overlay.partition, exc)
                await asyncio.sleep(self._retry_s)

    async def _read_range(self, overlay: Overlay) -> dict[bytes, ForeignState]:
        tp = TopicPartition(self._topic, overlay.partition)
        foreign: dict[bytes, ForeignState] = {}
        async with self._open_reader() as reader:
            reader.assign([tp])
            reader.seek(tp, overlay.start)
            while await reader.position(tp) < overlay.end:
                for record in (await reader.getmany(timeout_ms=200)).get(tp, ()):
                    if record.offset < overlay.end:
                        self._add(foreign, record)
        return foreign

    def _add(self, foreign: dict[bytes, ForeignState], record: "ConsumerRecord[bytes, bytes]") -> None:
        key = record.key or PARTITION_KEY
        try:
            key.decode()
            offset = source_offset(key, record.value, tombstone_offset(record))
        except msgspec.DecodeError as exc:
            offset = -1  # older than any state: what cannot be read is written over
            self._warn(record, exc)
        except UnicodeDecodeError as exc:
            self._warn(record, exc)
            return
        foreign[key] = ForeignState(offset, record.value is None)

    def _warn(self, record: "ConsumerRecord[bytes, bytes]", exc: Exception) -> None:
        log.warning("%s-%d at offset %d is no snapshot: %s", record.topic, record.partition, record.offset, exc)

    def _mark(self, partition: int, foreign: Mapping[bytes, ForeignState]) -> int | None:
        """Mark the users with an older state in the foreign records; return the number of marked users.

        Return nothing where the other writer is ahead, or where the partition has no state here.
        """
        state = self._pipeline.partitions.get(partition)
        if state is None or any(record.offset > state.offset for record in foreign.values()):
            return None
        overlaid = [
            key.decode()
            for key, record in foreign.items()
            if key != PARTITION_KEY and state.is_overlaid(key.decode(), record.offset, is_tombstone=record.is_tombstone)
        ]
        state.rewrite(overlaid)
        return len(overlaid)
