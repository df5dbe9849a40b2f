"""Restore: read partitions' state back from `session-snapshots`, before their first event is read."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas.snapshots import OFFSET_HEADER
from schemas.topics import EVENTS, SNAPSHOTS
from stream.errors import TopicMissingError
from stream.kafka import connection
from stream.settings import Settings
from stream.state import Change, PartitionState, Restorer

FETCH_BYTES = 8 * 1024 * 1024  # a partition and request; restores are bound by decoding, not by round trips
STOP_SECONDS = 1.0


class Restored(NamedTuple):
    """A partition's state, what of it must be written again, and where the changelog ended when it was read."""

    state: PartitionState
    repairs: list[Change]
    end: int


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


async def changelog_ends(settings: Settings, partitions: Iterable[int]) -> dict[int, int]:
    """Return where each partition's changelog ends."""
    topic = settings.topic(SNAPSHOTS.name)
    async with reader(settings) as consumer:
        ends = await consumer.end_offsets([TopicPartition(topic, partition) for partition in partitions])
    return {tp.partition: end for tp, end in ends.items()}


async def restore_partitions(settings: Settings, partitions: Sequence[int]) -> dict[int, Restored]:
    """Return the state of each partition.

    Raises:
        TopicMissingError: The state is ahead of the events, so the events' topic is not the one that it came from.
    """
    topic, events = settings.topic(SNAPSHOTS.name), settings.topic(EVENTS.name)
    restorers = {partition: Restorer() for partition in partitions}
    async with reader(settings) as consumer:
        changelog = [TopicPartition(topic, partition) for partition in partitions]
        async for tp, records in read_to_end(consumer, changelog):
            restorer = restorers[tp.partition]
            for record in records:
                restorer.add(record.key or b"", record.value, _tombstone_offset(record))
        ends = await consumer.end_offsets([TopicPartition(events, partition) for partition in partitions])
        found = {
            partition: Restored(
                restorer.state(f"{events}-{partition}", settings),
                restorer.repairs(),
                await consumer.position(TopicPartition(topic, partition)),
            )
            for partition, restorer in restorers.items()
        }
    for partition, restored in found.items():
        if restored.state.offset >= ends[TopicPartition(events, partition)]:
            message = (
                f"{topic} holds the state of {events}-{partition} up to offset {restored.state.offset}, where that "
                "partition ends earlier: the topic was made anew. Delete "
                f"{topic} and make it anew with `clickscore topics create`"
            )
            raise TopicMissingError(message)
    return found


def _tombstone_offset(record: ConsumerRecord[bytes, bytes]) -> int:
    if record.value is not None:
        return -1
    return next((int(value) for name, value in record.headers if name == OFFSET_HEADER), -1)
