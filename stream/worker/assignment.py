"""Assignment: restores the state of newly assigned partitions, and drops the state of lost partitions."""

import logging
import time
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from clickscore.schemas.topics import EVENTS
from clickscore.stream.kafka.log_reader import OpenReader
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.settings import Settings
from clickscore.stream.state.partition import PartitionState
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.epochs import EpochWriter
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.publisher import Publisher
from clickscore.stream.worker.reference import ReferenceData
from clickscore.stream.worker.restore import RestoredPartition, changelog_ends, restore_partitions
from clickscore.stream.worker.rollouts import RolloutKeeper
from clickscore.stream.worker.ticks import IdleTicks

log = logging.getLogger(__name__)


class Assignment:
    """Brings the pipeline's state in step with the group, before the first event of an assignment is read."""

    def __init__(
        self,
        *,
        settings: Settings,
        open_reader: OpenReader,
        group: ConsumerGroup,
        pipeline: Pipeline,
        ownership: Ownership,
        publisher: Publisher,
        ticks: IdleTicks,
        compute: ComputeThread,
        metrics: Metrics,
        losses: Losses,
        reference: ReferenceData,
        epochs: EpochWriter,
        rollouts: RolloutKeeper | None = None,
    ) -> None:
        """Build the assignment.

        Args:
            settings: Names of topics, and bounds of the restored state.
            open_reader: Opens a reader of the changelog.
            group: Knows the assigned partitions and the generation.
            pipeline: Gets the restored state.
            ownership: Knows the partitions with valid state in memory.
            publisher: Knows the end of this worker's last write to each changelog, and writes repairs.
            ticks: Watches the assigned partitions.
            compute: Thread in which the pipeline changes.
            metrics: Counts rebalances and restores.
            losses: Reports events that Kafka no longer has.
            reference: Loads what the epochs of the partitions need.
            epochs: Writes the epochs of the assigned partitions.
            rollouts: Keeps the bundles of the assigned partitions; None for a worker without a bundle store.
        """
        self._settings = settings
        self._open_reader = open_reader
        self._group = group
        self._pipeline = pipeline
        self._ownership = ownership
        self._publisher = publisher
        self._ticks = ticks
        self._compute = compute
        self._metrics = metrics
        self._losses = losses
        self._reference = reference
        self._epochs = epochs
        self._rollouts = rollouts

    async def restore(self) -> None:
        """Restore the assigned partitions and drop all lost partitions.

        A partition keeps the state in memory when no other worker has written to the changelog after this worker, no
        overlay waits for a repair, and all output is published. A rebalance in the middle makes the result void: the
        group calls again.

        Raises:
            TopicMissingError: The changelog is ahead of the events.
        """
        started_at, generation, assigned = time.monotonic(), self._group.generation, self._group.assignment()
        self._metrics.rebalances.inc()
        await self._publisher.take_over(assigned)
        retained = await self._retained(assigned)
        fresh = [partition for partition in assigned if partition not in retained]
        self._ownership.disown(fresh)
        restored = await restore_partitions(self._open_reader, self._settings, fresh) if fresh else {}
        states = {partition: self._pipeline.partitions[partition] for partition in retained}
        states |= {partition: result.state for partition, result in restored.items()}
        await self._reference.prepare(state.epoch for state in states.values())
        if generation != self._group.generation:
            return
        try:
            await self._repair(restored)
            first = await self._compute.call(self._load, assigned, {p: result.state for p, result in restored.items()})
            await self._store_first_epochs(first)
        except ProducerFenced:
            log.warning("another worker has taken over during the restore: the next rebalance restores again")
            return
        self._group.expect(await self._next_offsets(assigned), self._losses)
        self._ownership.own(assigned, generation)
        self._ticks.assign(assigned, retained)
        self._epochs.assign(assigned)
        if self._rollouts is not None:
            self._rollouts.assign(assigned)
        seconds, users = time.monotonic() - started_at, sum(len(partition.state) for partition in restored.values())
        self._metrics.restore_seconds.set(seconds)
        self._metrics.restored_users.set(users)
        log.info("partitions %s: restored %s with %d users in %.2f s", assigned, fresh, users, seconds)

    async def _retained(self, assigned: Sequence[int]) -> list[int]:
        """Return the partitions with the newest state still in memory."""
        if not assigned:
            return []
        ends, written = await changelog_ends(self._open_reader, self._settings.kafka, assigned), self._publisher.written
        return [
            partition
            for partition in assigned
            if self._ownership.is_settled(partition)
            and written.get(partition) == ends[partition]
            and not self._publisher.overlays.is_pending(partition)
        ]

    async def _next_offsets(self, assigned: Sequence[int]) -> dict[int, int]:
        """Return the offset to read on from of each partition; report events that the log no longer has.

        A partition without a state has decided on nothing yet: it begins at the beginning of the log.
        """
        if not assigned:
            return {}
        topic = self._settings.kafka.topic(EVENTS.name)
        partitions = [TopicPartition(topic, partition) for partition in assigned]
        async with self._open_reader() as reader:
            beginnings = await reader.beginning_offsets(partitions)
            committed = await reader.committed_offsets(self._settings.worker.group, partitions)
        offsets: dict[int, int] = {}
        for tp in partitions:
            start, beginning = self._pipeline.partitions[tp.partition].offset + 1, beginnings[tp]
            if 0 < start < beginning:
                # What lies between the last event and the committed offset are markers of transactions.
                self._losses.report(tp.partition, max(start, committed.get(tp, 0)), beginning)
            offsets[tp.partition] = max(start, beginning)
        return offsets

    async def _repair(self, restored: Mapping[int, RestoredPartition]) -> None:
        """Write overlaid snapshots of a stalled worker again, and note the end of each changelog."""
        for partition, (_, repairs, end) in restored.items():
            self._publisher.written[partition] = end
            self._publisher.overlays.resolve_partition(partition)
            if repairs:
                log.warning("partition %d: wrote %d overlaid snapshots again", partition, len(repairs))
                self._metrics.repaired.inc(len(repairs))
                self._publisher.written[partition] = await self._publisher.write(partition, repairs)

    def _load(self, assigned: Sequence[int], states: Mapping[int, PartitionState]) -> list[int]:
        """Take over the states; return the partitions without an epoch, which begin in an epoch of number 0."""
        pipeline = self._pipeline
        pipeline.drop(set(pipeline.partitions).difference(assigned))
        pipeline.load(states)
        first = [partition for partition in states if states[partition].epoch is None]
        for partition in first:
            pipeline.begin_epoch(partition, self._epochs.present(0))
        return first

    async def _store_first_epochs(self, partitions: Sequence[int]) -> None:
        """Store the epoch in which the first events are decided, before the first decision: a successor needs it."""
        for partition in partitions:
            record = self._pipeline.partitions[partition].partition_record()
            self._publisher.written[partition] = await self._publisher.write(partition, [record])
