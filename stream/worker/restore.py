"""Restore: read the state of partitions back from `session-snapshots`, before the first event of each is read."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, read_to_end
from clickscore.stream.settings import KafkaSettings, Settings
from clickscore.stream.state.changelog import StateRestorer
from clickscore.stream.state.partition import ChangelogRecord, PartitionState


class RestoredPartition(NamedTuple):
    """State of a partition, as read from the changelog."""

    state: PartitionState
    repairs: list[ChangelogRecord]
    """Records to write again after an overlay by stale records."""
    end: int
    """End offset of the changelog at the time of the restore."""


async def changelog_ends(open_reader: OpenReader, kafka: KafkaSettings, partitions: Iterable[int]) -> dict[int, int]:
    """Return the end offset of each partition of the changelog.

    Args:
        open_reader: Opens a reader of the topics.
        kafka: Names of topics.
        partitions: Partitions to look up.
    """
    topic = kafka.topic(SNAPSHOTS.name)
    async with open_reader() as reader:
        ends = await reader.end_offsets([TopicPartition(topic, partition) for partition in partitions])
    return {tp.partition: end for tp, end in ends.items()}


async def restore_partitions(
    open_reader: OpenReader, settings: Settings, partitions: Sequence[int]
) -> dict[int, RestoredPartition]:
    """Return the state of each partition.

    Args:
        open_reader: Opens a reader of the topics.
        settings: Names of topics, and bounds of the state.
        partitions: Partitions to restore.

    Raises:
        TopicMissingError: The changelog is ahead of the events, and belongs to an earlier topic of events.
    """
    changelog, events = settings.kafka.topic(SNAPSHOTS.name), settings.kafka.topic(EVENTS.name)
    restorers = {partition: StateRestorer() for partition in partitions}
    async with open_reader() as reader:
        async for tp, records in read_to_end(
            reader, [TopicPartition(changelog, partition) for partition in partitions]
        ):
            restorer = restorers[tp.partition]
            for record in records:
                restorer.add(record.key or b"", record.value, tombstone_offset(record))
        ends = await reader.end_offsets([TopicPartition(events, partition) for partition in partitions])
        restored = {
            partition: RestoredPartition(
                restorer.state(f"{events}-{partition}", settings.sessions),
                restorer.repairs(),
                await reader.position(TopicPartition(changelog, partition)),
            )
            for partition, restorer in restorers.items()
        }
    for partition, (state, _, _) in restored.items():
        if state.offset >= ends[TopicPartition(events, partition)]:
            message = (
                f"{changelog} holds the state of {events}-{partition} up to offset {state.offset}, but that partition "
                f"ends earlier: the topic was made anew. Delete {changelog} and make it anew with "
                "`clickscore topics create`"
            )
            raise TopicMissingError(message)
    return restored


def tombstone_offset(record: ConsumerRecord[bytes, bytes]) -> int:
    """Return the event offset in a tombstone's header; -1 for other records, with the offset in the value."""
    if record.value is not None:
        return -1
    return next((int(value) for name, value in record.headers if name == OFFSET_HEADER), -1)
