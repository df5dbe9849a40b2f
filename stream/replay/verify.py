"""Verify a replay: compare its decisions with the decisions that live workers have published, byte for byte.

The published decisions are read first, and kept on disk in 16 bytes for each event; then each replayed batch is
compared. A decision that was published twice with equal bytes counts once, since delivery is at least once.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.topics import ADS
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.log_reader import OpenReader, PartitionReader, read_to_end
from clickscore.stream.pipeline_records import Message, Output
from clickscore.stream.replay.source import OffsetRange
from clickscore.stream.settings import KafkaSettings

MAX_SHOWN = 10
"""Number of differing decisions, and of missing and extra ids, in a summary: enough to see a pattern."""

FETCH_MS = 10_000
"""Time limit of the fetch of a single published decision."""


class DifferingDecision(msgspec.Struct, frozen=True):
    """A decision with other bytes in the replay than in the topic."""

    decision_id: str
    published: bytes
    replayed: bytes


class DiffSummary(msgspec.Struct, kw_only=True):
    """Comparison of a replay with published decisions. Decisions are counted by id."""

    equal: int = 0
    """Number of decisions with equal bytes."""
    different: int = 0
    """Number of decisions with different bytes."""
    missing: int = 0
    """Number of replayed decisions that were never published."""
    extra: int = 0
    """Number of published decisions that were not replayed."""
    repeats: int = 0
    """Number of decisions published again with equal bytes, which is no error."""
    unreadable: int = 0
    """Number of published records that are not decisions on the replayed events."""
    differences: list[DifferingDecision] = []
    """First differing decisions."""
    missing_ids: list[str] = []
    """First ids of missing decisions."""
    extra_ids: list[str] = []
    """First ids of extra decisions."""

    @property
    def identical(self) -> bool:
        """Whether the published decisions are the replayed decisions, byte for byte."""
        return not (self.different or self.missing or self.extra or self.unreadable)

    def __add__(self, other: "DiffSummary") -> "DiffSummary":
        """Return the summary over the partitions of both."""
        return DiffSummary(
            equal=self.equal + other.equal,
            different=self.different + other.different,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            repeats=self.repeats + other.repeats,
            unreadable=self.unreadable + other.unreadable,
            differences=(self.differences + other.differences)[:MAX_SHOWN],
            missing_ids=(self.missing_ids + other.missing_ids)[:MAX_SHOWN],
            extra_ids=(self.extra_ids + other.extra_ids)[:MAX_SHOWN],
        )


class _DecisionHead(msgspec.Struct):
    decision_id: str


_decode_head = bounded_depth(msgspec.json.Decoder(_DecisionHead).decode)


class _PublishedDecisions:
    """Decisions published on the events of a partition, as fingerprints on disk, indexed by event."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self.begin = begin
        self._event_count = end - begin
        shape = max(1, end - begin)  # a memory map cannot be empty
        self.fingerprints: Any = np.memmap(path.with_suffix(".fingerprints"), dtype=np.uint64, mode="w+", shape=shape)
        """Hash of the decision on each event, 0 without a decision: (events,)."""
        self.offsets: Any = np.memmap(path.with_suffix(".offsets"), dtype=np.int64, mode="w+", shape=shape)
        """Offset of the decision on each event: (events,)."""
        self.contradictions: dict[int, int] = {}
        """Offset of the second decision, for each event with two different decisions."""

    def add(self, index: int, value: bytes, offset: int) -> bool:
        """Add a published decision; return whether the decision repeats an earlier decision.

        Args:
            index: Index of the event.
            value: Bytes of the decision.
            offset: Offset of the decision in the topic of decisions.
        """
        fingerprint = _fingerprint(value)
        earlier = int(self.fingerprints[index])
        if not earlier:
            self.fingerprints[index], self.offsets[index] = fingerprint, offset
        elif earlier != fingerprint:
            self.contradictions.setdefault(index, offset)
        return earlier == fingerprint

    def contains(self, index: int) -> bool:
        """Return whether the index is an event of the range."""
        return 0 <= index < self._event_count


def _fingerprint(value: bytes) -> int:
    return xxhash.xxh3_64_intdigest(value) or 1  # 0 means that there is no decision


class DecisionDiff:
    """Compares the decisions of a replay of some partitions with a topic of decisions."""

    def __init__(
        self, kafka: KafkaSettings, topic: str, source_topic: str, folder: Path, open_reader: OpenReader
    ) -> None:
        """Prepare a comparison.

        Args:
            kafka: Names of topics.
            topic: Topic of recommendations or ads, without the prefix.
            source_topic: Topic of the replayed events, with its prefix.
            folder: Folder for the fingerprints of published decisions.
            open_reader: Opens a reader of the topic.
        """
        self._topic = kafka.topic(topic)
        self._open_reader = open_reader
        self._source_topic = source_topic
        self._folder = folder
        self._id_suffix = AD_SUFFIX if topic == ADS.name else ""
        self._summary = DiffSummary()
        self._published: dict[int, _PublishedDecisions] = {}
        self._differing: list[tuple[int, int, str, bytes]] = []  # partition, offset, id and replayed bytes

    async def read_published(self, ranges: Mapping[int, OffsetRange], partition_counts: Mapping[str, int]) -> None:
        """Read the decisions on the events of some ranges, up to the present end of the topic.

        Args:
            ranges: Offsets of the replayed events, by partition.
            partition_counts: Number of partitions of every topic of the broker.

        Raises:
            TopicMissingError: The topic does not exist or has too few partitions.
        """
        if partition_counts.get(self._topic, 0) <= max(ranges):
            message = f"topic {self._topic} is missing or has fewer partitions than {self._source_topic}"
            raise TopicMissingError(message)
        for partition, offsets in ranges.items():
            path = self._folder / f"check-{partition}"
            self._published[partition] = _PublishedDecisions(path, offsets.begin, offsets.end)
        async with self._open_reader() as consumer:
            async for tp, records in read_to_end(consumer, [TopicPartition(self._topic, p) for p in ranges]):
                self._add_published(tp.partition, records)

    def _add_published(self, partition: int, records: Iterable["ConsumerRecord[bytes, bytes]"]) -> None:
        published = self._published[partition]
        for record in records:
            value = record.value or b""
            event_offset = self._event_offset(partition, value)
            if event_offset is None:
                self._summary.unreadable += 1
            elif published.contains(index := event_offset - published.begin):
                self._summary.repeats += published.add(index, value, record.offset)

    def _event_offset(self, partition: int, value: bytes) -> int | None:
        """Return the offset of the event of a decision, or None if the decision is not on an event of the partition."""
        try:
            decision_id = _decode_head(value).decision_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        offset = decision_id.removeprefix(f"{self._source_topic}-{partition}-").removesuffix(self._id_suffix)
        return int(offset) if offset.isascii() and offset.isdigit() else None

    def compare(self, partition: int, output: Output) -> None:
        """Compare the decisions of a batch with the published decisions."""
        published, summary = self._published[partition], self._summary
        for message in self._decisions(output):
            value = message.value or b""
            decision_id = _decode_head(value).decision_id
            index = int(decision_id.removesuffix(self._id_suffix).rpartition("-")[2]) - published.begin
            fingerprint = int(published.fingerprints[index])
            if not fingerprint:
                summary.missing += 1
                if len(summary.missing_ids) < MAX_SHOWN:
                    summary.missing_ids.append(decision_id)
            elif fingerprint == _fingerprint(value) and index not in published.contradictions:
                summary.equal += 1
            else:
                summary.different += 1
                if len(self._differing) < MAX_SHOWN:
                    first_differs = fingerprint != _fingerprint(value)
                    offset = int(published.offsets[index]) if first_differs else published.contradictions[index]
                    self._differing.append((partition, offset, decision_id, value))
            published.fingerprints[index] = 0  # the remaining fingerprints are the extra decisions

    def _decisions(self, output: Output) -> list[Message]:
        return output.ads if self._id_suffix else output.recommendations

    async def summarise(self) -> DiffSummary:
        """Return the summary, after the last batch."""
        summary = self._summary
        for partition, published in self._published.items():
            indices = np.flatnonzero(published.fingerprints)
            summary.extra += len(indices)
            extra_ids = [
                f"{self._source_topic}-{partition}-{published.begin + index}{self._id_suffix}"
                for index in indices[:MAX_SHOWN].tolist()
            ]
            summary.extra_ids = (summary.extra_ids + extra_ids)[:MAX_SHOWN]
        if self._differing:
            async with self._open_reader() as consumer:
                for partition, offset, decision_id, replayed in self._differing:
                    published = await self._read_value(consumer, TopicPartition(self._topic, partition), offset)
                    summary.differences.append(DifferingDecision(decision_id, published, replayed))
        return summary

    async def _read_value(self, consumer: PartitionReader, tp: TopicPartition, offset: int) -> bytes:
        """Return the value of a published record, empty if the record has been deleted meanwhile."""
        consumer.assign([tp])
        consumer.seek(tp, offset)
        fetched = await consumer.getmany(tp, timeout_ms=FETCH_MS, max_records=1)
        return next((record.value or b"" for record in fetched.get(tp, ()) if record.offset == offset), b"")
