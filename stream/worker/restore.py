"""Restore: read partitions' state back from `session-snapshots`, before their first event is read."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.reader import read_to_end, reader
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import StateRestorer
from clickscore.stream.state.partition import ChangelogRecord, PartitionState


class Restored(NamedTuple):
    """A partition's state, what of it must be written again, and where the changelog ended when it was read."""

    state: PartitionState
    repairs: list[ChangelogRecord]
    end: int


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
    restorers = {partition: StateRestorer() for partition in partitions}
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
