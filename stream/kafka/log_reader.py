"""Reader: read partitions of a topic from where one says, without a consumer group."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clickscore.stream.kafka.client import consumer_arguments
from clickscore.stream.settings import KafkaSettings

FETCH_BYTES = 8 * 1024 * 1024  # a partition and request; restores are bound by decoding, not by round trips

STOP_SECONDS = 1.0


Fetched = Mapping[TopicPartition, Sequence["ConsumerRecord[bytes, bytes]"]]
"""Records of one fetch, by partition."""


class PartitionReader(Protocol):
    """A reader of topic partitions without a consumer group; aiokafka's consumer is one."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Read these partitions, and no others."""
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

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Fetched:
        """Return the next records.

        Args:
            partitions: Partitions to fetch; all assigned ones when empty.
            timeout_ms: Longest wait for a record, ms.
            max_records: Largest number of records to return.
        """
        ...


OpenReader = Callable[[], AbstractAsyncContextManager[PartitionReader]]
"""Opens a reader for the time of a block."""


@asynccontextmanager
async def reader(settings: KafkaSettings) -> AsyncGenerator[AIOKafkaConsumer]:
    """Give a consumer without a group, to read partitions from where one says."""
    consumer = AIOKafkaConsumer(
        **consumer_arguments(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        # Under TLS a stop waits for up to 30 s for the broker's farewell while data is on its way: not worth having.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(consumer.stop(), STOP_SECONDS)


async def read_to_end(
    consumer: PartitionReader, partitions: Iterable[TopicPartition]
) -> AsyncGenerator[tuple[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]]:
    """Yield all records of partitions, up to where they end now."""
    left = set(partitions)
    consumer.assign(list(left))
    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(list(left))
    await consumer.seek_to_beginning(*left)
    while left:
        for partition in list(left):
            if await consumer.position(partition) >= ends[partition]:
                left.discard(partition)
                consumer.pause(partition)
        if left:
            for partition, records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).items():
                yield partition, [record for record in records if record.offset < ends[partition]]
