"""Log reader: read partitions of topics from any offset to their end, without a consumer group."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import consumer_arguments, stop_client
from clickscore.stream.kafka.group_description import committed_offsets, served_partitions
from clickscore.stream.kafka.rights import RIGHT_ERRORS, check_rights, worker_rights
from clickscore.stream.kafka.topic_description import TopicDescription, describe_topic
from clickscore.stream.settings import KafkaSettings

log = logging.getLogger(__name__)

FETCH_BYTES = 8 * 1024 * 1024
"""Most bytes of a partition in a fetch. Decoding, not the number of fetches, bounds the speed of a restore."""
FETCH_RECORDS = 20_000
"""Most records of a fetch of `read_to_end`: a bound for memory, rarely reached before `FETCH_BYTES`."""
FETCH_WAIT_MS = 50
"""Longest wait of the broker for records, ms: the delay until the end of a topic is noticed."""

FETCH_MS = 1_000
"""Longest wait of a worker that follows a topic for new records, ms; without records the next fetch follows."""

Fetched = Mapping[TopicPartition, Sequence["ConsumerRecord[bytes, bytes]"]]
"""Records of a fetch, by partition."""


class PartitionReader(Protocol):
    """A reader of topic partitions without a consumer group; for example aiokafka's consumer."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Replace the assignment by these partitions."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read a partition from an offset on."""
        ...

    async def seek_to_beginning(self, *partitions: TopicPartition) -> object:
        """Read partitions from their first record on."""
        ...

    def pause(self, *partitions: TopicPartition) -> None:
        """Fetch no more records of these partitions."""
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record to read."""
        ...

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset after the last record of each partition."""
        ...

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset of the first record of each partition."""
        ...

    async def describe(self, topic: str) -> TopicDescription:
        """Return the number of partitions and the id of a topic."""
        ...

    async def committed_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the committed offsets of a consumer group; a partition without an offset is left out.

        Args:
            group: Name of the group.
            partitions: Partitions to look up.
        """
        ...

    async def served_partitions(self, group: str, topic: str) -> set[int] | None:
        """Return the partitions of a topic that members of a group read; None while this is not known.

        Args:
            group: Name of the group.
            topic: Full name of the topic.
        """
        ...

    async def check_worker_rights(self, group: str) -> None:
        """Check that the broker grants a worker all its rights on the topics and the group.

        Raises:
            BrokerError: Rights are missing. The message names each of them.
        """
        ...

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Fetched:
        """Return the next records.

        Args:
            partitions: Partitions to fetch; all assigned partitions when empty.
            timeout_ms: Longest wait for a record, ms.
            max_records: Largest number of records to return.
        """
        ...


OpenReader = Callable[[], AbstractAsyncContextManager[PartitionReader]]
"""Opens a reader for an `async with` block."""


class LogReader(AIOKafkaConsumer):
    """aiokafka's consumer, with a description of topics and groups."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        rollouts: bool = False,
        **arguments: Any,  # noqa: ANN401 (aiokafka's own)
    ) -> None:
        """Build the consumer.

        Args:
            settings: Connection, and names of topics.
            rollouts: Whether the worker follows a rollout, and so needs rights on its topic.
            arguments: Further arguments of aiokafka's consumer.
        """
        super().__init__(**consumer_arguments(settings), **arguments)
        self._settings = settings
        self._rights = worker_rights(settings, rollouts=rollouts)

    async def describe(self, topic: str) -> TopicDescription:
        """Return the number of partitions and the id of a topic."""
        return await describe_topic(self._client, topic)

    async def committed_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the committed offsets of a consumer group; a partition without an offset is left out.

        Args:
            group: Name of the group.
            partitions: Partitions to look up.
        """
        return await committed_offsets(self._client, group, partitions)

    async def served_partitions(self, group: str, topic: str) -> set[int] | None:
        """Return the partitions of a topic that members of a group read; None while this is not known.

        Args:
            group: Name of the group.
            topic: Full name of the topic.
        """
        return await served_partitions(self._client, group, topic)

    async def check_worker_rights(self, group: str) -> None:
        """Check that the broker grants a worker all its rights on the topics and the group.

        Raises:
            BrokerError: Rights are missing. The message names each of them.
        """
        await check_rights(self, self._settings, self._rights, group)


@asynccontextmanager
async def open_reader(settings: KafkaSettings, *, rollouts: bool = False) -> AsyncGenerator[LogReader]:
    """Yield a started consumer without a group; the caller assigns partitions and seeks.

    Args:
        settings: Connection, and names of topics.
        rollouts: Whether a worker that follows a rollout opens the consumer.
    """
    consumer = bound_unpacking(
        LogReader(
            settings,
            rollouts=rollouts,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
    )
    try:
        await consumer.start()
        yield consumer
    finally:  # also where the start fails or is cancelled: an open client would complain as the process ends
        await stop_client(consumer)


async def fetch_or_nothing(reader: PartitionReader, content: str) -> Fetched:
    """Return the next records of topics that a worker follows, or an empty fetch while Kafka cannot be read.

    Args:
        reader: A reader with assigned partitions.
        content: What the topics hold, for the log.

    Raises:
        KafkaError: The right to read was taken away.
    """
    try:
        return await reader.getmany(timeout_ms=FETCH_MS)
    except RIGHT_ERRORS:
        raise
    except KafkaError as exc:
        log.warning("%s cannot be read just now: %s", content, exc)
        return {}


async def read_to_end(
    consumer: PartitionReader, partitions: Iterable[TopicPartition]
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]]:
    """Yield all records of partitions in order, from the first record to the end of each at the time of the call.

    Args:
        consumer: An open reader. The partitions replace the assignment.
        partitions: Partitions to read.

    Yields:
        A partition and the next records.
    """
    unfinished = set(partitions)
    consumer.assign(list(unfinished))
    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(list(unfinished))
    await consumer.seek_to_beginning(*unfinished)
    while unfinished:
        for partition in list(unfinished):
            if await consumer.position(partition) >= ends[partition]:
                unfinished.discard(partition)
                consumer.pause(partition)
        if unfinished:
            fetched = await consumer.getmany(timeout_ms=200, max_records=FETCH_RECORDS)
            for partition, records in fetched.items():
                yield partition, [record for record in records if record.offset < ends[partition]]


async def read_promptly(
    settings: KafkaSettings, consumer: PartitionReader, partitions: Iterable[TopicPartition]
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]]:
    """Yield all records of partitions as `read_to_end` does, for a command that does not wait for a lost broker.

    Args:
        settings: Address and patience.
        consumer: An open reader. The partitions replace the assignment.
        partitions: Partitions to read.

    Yields:
        A partition and the next records.

    Raises:
        BrokerError: Kafka fails, or has been silent for longer than `broker_wait_ms`.
    """
    batches = read_to_end(consumer, partitions)
    topic = ", ".join(sorted({partition.topic for partition in partitions}))
    try:
        while True:
            async with asyncio.timeout(settings.broker_wait_ms / 1000):
                batch = await anext(batches, None)
            if batch is None:
                return
            yield batch
    except TimeoutError as exc:
        message = (
            f"Kafka at {settings.bootstrap_servers} has sent no record of {topic} for "
            f"{settings.broker_wait_ms / 1000:g} s (broker_wait_ms)"
        )
        raise BrokerError(message) from exc
    except KafkaError as exc:
        message = f"{topic} cannot be read to the end: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
