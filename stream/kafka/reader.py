"""Reader: read partitions of a topic from where one says, without a consumer group."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clickscore.stream.kafka.client import connection
from clickscore.stream.settings import Settings

FETCH_BYTES = 8 * 1024 * 1024  # a partition and request; restores are bound by decoding, not by round trips

STOP_SECONDS = 1.0


@asynccontextmanager
async def reader(settings: Settings) -> AsyncGenerator[AIOKafkaConsumer]:
    """Give a consumer without a group, to read partitions from where one says."""
    consumer = AIOKafkaConsumer(
        **connection(settings),
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
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
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
