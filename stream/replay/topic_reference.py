"""Topic reference: read what a replay of a topic's range needs of catalogue and campaigns, and its first epochs."""

import time
from collections.abc import Mapping

from aiokafka import TopicPartition

from clickscore.schemas.events import Epoch, read_epoch
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import PartitionReader, open_reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.reference.records import read_reference_topics, reference_topics
from clickscore.stream.replay.reference_log import ReferenceLog, ReferenceRecord
from clickscore.stream.replay.source import OffsetRange
from clickscore.stream.settings import KafkaSettings

CHUNK_RECORDS = 10_000
"""Records of a step back in search of the last epoch before a range."""
FETCH_MS = 500
"""Longest wait of a fetch, ms."""


async def read_reference_log(settings: KafkaSettings, topic: str, ranges: Mapping[int, OffsetRange]) -> ReferenceLog:
    """Return all records of catalogue and campaigns, and the epoch in which each range begins.

    Args:
        settings: Address of the broker, and names of topics.
        topic: Name of the topic of events, with its prefix.
        ranges: Offsets to replay, by partition.

    Raises:
        BrokerError: The broker cannot be reached.
        KafkaError: The broker is lost while the topics are read.
    """
    existing = await list_topics(settings)
    topics = {partition: name for partition, name in reference_topics(settings).items() if partition.topic in existing}
    async with open_reader(settings) as reader:
        return await collect_reference_log(reader, topics, topic, ranges, kept_since(settings, time.time() * 1000))


def kept_since(settings: KafkaSettings, now_ms: float) -> float:
    """Return the append time from which on the topics keep replaced values, ms.

    Args:
        settings: How long the topics keep records.
        now_ms: The present time, ms.
    """
    return now_ms - settings.retention_ms if settings.retention_ms >= 0 else 0.0


async def collect_reference_log(
    reader: PartitionReader,
    topics: Mapping[TopicPartition, str],
    topic: str,
    ranges: Mapping[int, OffsetRange],
    kept_since_ms: float,
) -> ReferenceLog:
    """Return all records of catalogue and campaigns, and the epoch in which each range begins.

    Args:
        reader: An open reader.
        topics: Existing topics of reference data, each with its name without the prefix.
        topic: Name of the topic of events, with its prefix.
        ranges: Offsets to replay, by partition.
        kept_since_ms: Append time from which on the topics keep replaced values, ms.
    """
    epochs = {
        partition: epoch
        for partition, offsets in ranges.items()
        if (epoch := await find_first_epoch(reader, TopicPartition(topic, partition), offsets)) is not None
    }
    needed_from = {
        CATALOGUE.name: min((epoch.catalogue for epoch in epochs.values()), default=0),
        CAMPAIGNS.name: min((epoch.campaigns for epoch in epochs.values()), default=0),
    }
    finders = {name: GapFinder(offset, kept_since_ms) for name, offset in needed_from.items()}
    records: list[ReferenceRecord] = []
    ends = dict.fromkeys(finders, 0)
    if topics:
        async for record in read_reference_topics(reader, list(topics)):
            name = topics[TopicPartition(record.topic, record.partition)]
            records.append(ReferenceRecord(name, record.offset, record.key, record.value, record.timestamp))
            finders[name].add(record.offset, record.timestamp)
        ends |= {name: await reader.position(partition) for partition, name in topics.items()}
    return ReferenceLog(
        records=records,
        catalogue=ends[CATALOGUE.name],
        campaigns=ends[CAMPAIGNS.name],
        epochs=epochs,
        gaps=_describe_gaps(finders, ends) if epochs else None,
    )


def _describe_gaps(finders: Mapping[str, "GapFinder"], ends: Mapping[str, int]) -> str | None:
    """Return in words what the topics no longer hold; None for complete topics."""
    gaps = {name: finder.missing(ends[name]) for name, finder in finders.items()}
    words = [f"{name} between offsets {gap[0]:,} and {gap[1]:,}" for name, gap in gaps.items() if gap]
    return " and ".join(words) or None


async def find_first_epoch(reader: PartitionReader, tp: TopicPartition, offsets: OffsetRange) -> Epoch | None:
    """Return the epoch in effect at the beginning of a range; None for a log without epochs.

    That is the last epoch before the range. Without an epoch before the range, the first epoch of the log holds for the
    records before it as well.

    Args:
        reader: An open reader.
        tp: Partition of the events.
        offsets: Range to replay; the search begins at its warm-up.
    """
    begin = offsets.warm_up
    while begin > offsets.log_begin:
        chunk = max(offsets.log_begin, begin - CHUNK_RECORDS)
        epochs = await _read_epochs(reader, tp, chunk, begin)
        if epochs:
            return max(epochs, key=lambda epoch: epoch.number)  # an epoch with a smaller number had no effect
        begin = chunk
    (end,) = (await reader.end_offsets([tp])).values()
    begin = offsets.warm_up
    while begin < end:
        chunk = min(end, begin + CHUNK_RECORDS)
        epochs = await _read_epochs(reader, tp, begin, chunk)
        if epochs:
            return epochs[0]
        begin = chunk
    return None


async def _read_epochs(reader: PartitionReader, tp: TopicPartition, begin: int, end: int) -> list[Epoch]:
    """Return the epochs of a partition from `begin` up to `end`, without `end`."""
    reader.assign([tp])
    reader.seek(tp, begin)
    epochs: list[Epoch] = []
    while await reader.position(tp) < end:
        for record in (await reader.getmany(tp, timeout_ms=FETCH_MS)).get(tp, ()):
            epoch = read_epoch(record.value) if record.offset < end else None
            if epoch is not None:
                epochs.append(epoch)
    return epochs


class GapFinder:
    """Finds out whether compaction has removed values of a topic that a replay needs."""

    def __init__(self, needed_from: int, kept_since_ms: float) -> None:
        """Start before the first record.

        Args:
            needed_from: Smallest offset of an epoch in which a partition begins.
            kept_since_ms: Append time from which on the topic keeps replaced values, ms.
        """
        self._needed_from = needed_from
        self._kept_since_ms = kept_since_ms
        self._next = 0  # offset that follows the last record
        self._has_earlier_gap = False
        self._missing: list[int] = []  # first and last offsets of the gaps

    def add(self, offset: int, timestamp: int) -> None:
        """Take the next record.

        Args:
            offset: Offset of the record.
            timestamp: Append time of the record, ms.
        """
        self._has_earlier_gap = self._has_earlier_gap or self._next < min(offset, self._needed_from)
        self._add_gap(offset)
        # A later record may have replaced a value from before the epoch, and compaction may have removed the value.
        if self._has_earlier_gap and offset >= self._needed_from and timestamp < self._kept_since_ms:
            self._missing += [0, self._needed_from - 1]
        self._next = offset + 1

    def missing(self, end: int) -> tuple[int, int] | None:
        """Return the first and the last offset between which values are missing, if any.

        Args:
            end: Offset after the last record.
        """
        self._add_gap(end)
        return (min(self._missing), max(self._missing)) if self._missing else None

    def _add_gap(self, offset: int) -> None:
        begin = max(self._next, self._needed_from)
        if begin < offset:
            self._missing += [begin, offset - 1]
