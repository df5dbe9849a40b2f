"""Restore: read the state of partitions back from `session-snapshots`, before the first event of each is read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY
from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.errors import SnapshotError, TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, PartitionReader, read_to_end
from clickscore.stream.settings import KafkaSettings, Settings
from clickscore.stream.state.changelog import StateRestorer
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.partition import PartitionState
from clickscore.stream.worker.logs import user_hash

LOOK_MS = 200
"""Longest wait for the last record of a state, ms."""
MAX_LOOKS = 25
"""Number of waits for the last record of the states."""


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
        SnapshotError: The last record of a key cannot be read.
        TopicMissingError: The changelog belongs to an earlier topic of events, or is ahead of the events.
    """
    changelog, events = settings.kafka.topic(SNAPSHOTS.name), settings.kafka.topic(EVENTS.name)
    restorers = {partition: StateRestorer() for partition in partitions}
    unreadable: dict[tuple[int, bytes], tuple[int, str]] = {}  # offset and fault of the last record of a key
    async with open_reader() as reader:
        async for tp, records in read_to_end(
            reader, [TopicPartition(changelog, partition) for partition in partitions]
        ):
            for record in records:
                key = record.key or b""
                try:
                    restorers[tp.partition].add(key, record.value, tombstone_offset(record))
                except ValueError as exc:  # the errors of msgspec and of UTF-8 are ValueErrors
                    unreadable[tp.partition, key] = record.offset, str(exc)
                else:
                    unreadable.pop((tp.partition, key), None)
        _check_readable(changelog, unreadable)
        ends = await reader.end_offsets([TopicPartition(events, partition) for partition in partitions])
        topic_id = (await reader.describe(events)).topic_id
        restored = {
            partition: RestoredPartition(
                restorer.state(f"{events}-{partition}", settings.sessions),
                restorer.repairs(),
                await reader.position(TopicPartition(changelog, partition)),
            )
            for partition, restorer in restorers.items()
        }
        for state, _, _ in restored.values():
            if topic_id and state.topic_id and state.topic_id != topic_id:
                raise TopicMissingError(new_log_message(changelog, events))
        await _check_log(reader, changelog, events, {p: partition.state for p, partition in restored.items()})
    for partition, (state, _, _) in restored.items():
        end = ends[TopicPartition(events, partition)]
        if state.offset >= end:
            raise TopicMissingError(cut_back_message(changelog, f"{events}-{partition}", state.offset, end))
        state.topic_id = topic_id
    return restored


async def _check_log(
    reader: PartitionReader, changelog: str, events: str, states: Mapping[int, PartitionState]
) -> None:
    """Check that the last record of each state is still the record at its offset.

    After an unclean leader election, new events may have taken the offsets of lost events while no worker ran.

    Args:
        reader: Reader of the topics.
        changelog: Full name of the topic of snapshots.
        events: Full name of the topic of events.
        states: Restored state of each partition.

    Raises:
        TopicMissingError: Another record is at the offset.
    """
    partitions = [TopicPartition(events, p) for p, state in states.items() if state.appended_at >= 0]
    beginnings, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
    pending = {tp for tp in partitions if beginnings[tp] <= states[tp.partition].offset < ends[tp]}
    if not pending:
        return
    reader.assign(list(pending))
    for tp in pending:
        reader.seek(tp, states[tp.partition].offset)
    for _ in range(MAX_LOOKS):  # a record that cannot be read, such as one of an open transaction, proves nothing
        for tp, records in (await reader.getmany(timeout_ms=LOOK_MS, max_records=1)).items():
            state, record = states[tp.partition], records[0]
            if record.offset == state.offset and record.timestamp != state.appended_at:
                raise TopicMissingError(replaced_message(changelog, f"{events}-{tp.partition}", state.offset))
            pending.discard(tp)
            reader.pause(tp)
        if not pending:
            return


def _check_readable(changelog: str, unreadable: Mapping[tuple[int, bytes], tuple[int, str]]) -> None:
    """Check that no key ends with a record that cannot be read. A later record of the key repairs an unreadable one.

    Args:
        changelog: Full name of the topic.
        unreadable: Offset and fault of the record, by partition and key.

    Raises:
        SnapshotError: There is such a record.
    """
    if not unreadable:
        return
    (partition, key), (offset, fault) = next(iter(unreadable.items()))
    owner = f"the user with the hash {user_hash(key)}" if key != PARTITION_KEY else "the partition itself (empty key)"
    others = f" ({len(unreadable) - 1} more such records follow)" if len(unreadable) > 1 else ""
    message = (
        f"{changelog}, partition {partition}, offset {offset}: the snapshot of {owner} cannot be read: {fault}{others}"
        ". Publish a record with the same key and a null value to this partition: the last readable state of the key "
        "counts again, or none. docs/operations.md has the program (Unreadable snapshots). Then start the worker again"
    )
    raise SnapshotError(message)


def new_log_message(changelog: str, events: str) -> str:
    """Return what to do after the topic of events was deleted and created again."""
    return (
        f"{changelog} holds the state of an earlier topic {events}: the topic was deleted and created again. "
        f"{_advice(changelog)}"
    )


def cut_back_message(changelog: str, source: str, offset: int, end: int) -> str:
    """Return what to do about a log that ends before the state.

    Args:
        changelog: Full name of the topic of snapshots.
        source: `TOPIC-PARTITION` of the events.
        offset: Source offset of the state.
        end: End offset of the events.
    """
    return (
        f"{changelog} holds the state of {source} up to offset {offset}, but that partition ends earlier, at {end}: "
        "the topic was made anew, or an unclean leader election has lost the offsets between them. "
        f"{_advice(changelog)}"
    )


def replaced_message(changelog: str, source: str, offset: int) -> str:
    """Return what to do about a log with another event where the state ends.

    Args:
        changelog: Full name of the topic of snapshots.
        source: `TOPIC-PARTITION` of the events.
        offset: Source offset of the state.
    """
    return (
        f"{changelog} holds the state of {source} up to offset {offset}, but another event is at that offset now: an "
        f"unclean leader election has lost the last offsets, and new events have taken them. {_advice(changelog)}"
    )


def sent_back_message(changelog: str, source: str, offset: int, start: int) -> str:
    """Return what to do about a log that was cut back while the worker read it.

    Args:
        changelog: Full name of the topic of snapshots.
        source: `TOPIC-PARTITION` of the events.
        offset: Source offset of the last record read.
        start: Offset from which the log was read again.
    """
    return (
        f"{source} was read up to offset {offset}, but its log no longer reached that far, and began again at {start}: "
        "the topic was made anew, or an unclean leader election has lost the last offsets. "
        f"{changelog} holds the state of the lost log. {_advice(changelog)}"
    )


def _advice(changelog: str) -> str:
    return f"To begin without a state, delete {changelog} and make it anew with `clickscore topics create`"


def tombstone_offset(record: ConsumerRecord[bytes, bytes]) -> int:
    """Return the event offset in a tombstone's header; -1 for other records, with the offset in the value."""
    if record.value:
        return -1
    return next((int(value) for name, value in record.headers if name == OFFSET_HEADER), -1)
