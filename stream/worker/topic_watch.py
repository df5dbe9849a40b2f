"""Topic watch: notice while the worker runs that the topic of events changes, or that a right is taken away."""

import asyncio
import logging

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, PartitionReader
from clickscore.stream.kafka.topic_description import TopicDescription
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.restore import cut_back_message, new_log_message

log = logging.getLogger(__name__)

LOOK_S = 3.0
"""Time between two looks at the topic, s. The Kafka client looks every 5 minutes."""
LOOKS_TO_BELIEVE = 2
"""Looks in a row with a missing topic, or with an earlier end of a log, before the worker stops: a broker that has just
started may not know all topics yet."""


class TopicWatch:
    """Looks at the topic of events every few seconds."""

    def __init__(
        self,
        *,
        topic: str,
        changelog: str,
        open_reader: OpenReader,
        group: ConsumerGroup,
        pipeline: Pipeline,
        group_name: str,
        look_s: float = LOOK_S,
    ) -> None:
        """Build the watch.

        Args:
            topic: Full name of the topic of events.
            changelog: Full name of the topic of snapshots, for the advice in errors.
            open_reader: Opens a reader of the topics.
            group: Knows the assigned partitions.
            pipeline: Knows the offset of each partition's state.
            group_name: Name of the consumer group, whose right is checked.
            look_s: Time between two looks, s.
        """
        self._topic = topic
        self._changelog = changelog
        self._open_reader = open_reader
        self._group = group
        self._pipeline = pipeline
        self._group_name = group_name
        self._look_s = look_s
        self._first: TopicDescription | None = None
        self.unserved: dict[int, int] = {}
        """Number of undecided events of each partition that no member of the group reads."""
        self._doubts = 0  # looks in a row that found a missing topic or a log cut back

    async def run(self) -> None:
        """Look at the topic until cancelled.

        Raises:
            TopicMissingError: The topic has grown, is gone, was made anew, or its log was cut back.
            BrokerError: The worker lacks a right.
        """
        while True:
            try:
                async with self._open_reader() as reader:
                    while True:
                        await self.look(reader)
                        await asyncio.sleep(self._look_s)
            except (KafkaError, OSError) as exc:
                log.debug("the topic %s cannot be looked at: %s", self._topic, exc)
                await asyncio.sleep(self._look_s)

    async def look(self, reader: PartitionReader) -> None:
        """Compare the topic with the first look, and its logs with the states; check the rights.

        Raises:
            TopicMissingError: The topic has grown, is gone, was made anew, or its log was cut back.
            BrokerError: The worker lacks a right.
        """
        await reader.check_worker_rights(self._group_name)
        now = await reader.describe(self._topic)
        if not now.partitions:
            self._doubt(f"{self._topic} is gone. Make it with `clickscore topics create`, and start the worker again")
            return
        first = self._first = self._first or now
        if now.topic_id != first.topic_id:
            raise TopicMissingError(new_log_message(self._changelog, self._topic))
        await self._look_for_unserved(reader, now.partitions)
        known = min(first.partitions, self._group.partition_count() or first.partitions)
        if now.partitions > known:
            message = (
                f"{self._topic} has grown from {known} to {now.partitions} partitions. Start the worker "
                "again to serve all of them"
            )
            raise TopicMissingError(message)
        offsets = {
            p: self._pipeline.partitions[p].offset for p in self._group.assignment() if p in self._pipeline.partitions
        }
        ends = await reader.end_offsets([TopicPartition(self._topic, partition) for partition in offsets])
        for tp, end in ends.items():
            if offsets[tp.partition] >= end:
                self._doubt(
                    cut_back_message(self._changelog, f"{self._topic}-{tp.partition}", offsets[tp.partition], end)
                )
                return
        self._doubts = 0

    async def _look_for_unserved(self, reader: PartitionReader, partitions: int) -> None:
        """Count the events of partitions that nobody reads.

        Args:
            reader: Reader of the topics.
            partitions: Number of partitions of the topic.
        """
        served = await reader.served_partitions(self._group_name, self._topic)
        unserved = [TopicPartition(self._topic, p) for p in range(partitions) if served is not None and p not in served]
        if not unserved:
            self.unserved = {}
            return
        committed = await reader.committed_offsets(self._group_name, unserved)
        beginnings = await reader.beginning_offsets(unserved)
        ends = await reader.end_offsets(unserved)
        self.unserved = {tp.partition: max(0, ends[tp] - max(beginnings[tp], committed.get(tp, 0))) for tp in unserved}

    def _doubt(self, message: str) -> None:
        """Stop the worker when several looks in a row have found the same kind of change.

        Raises:
            TopicMissingError: The change is believed.
        """
        self._doubts += 1
        if self._doubts >= LOOKS_TO_BELIEVE:
            raise TopicMissingError(message)
