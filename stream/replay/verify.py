"""Fidelity: whether a replay comes to the decisions that a live worker has published, byte for byte.

What was published is read first, as 16 bytes a decision on disk; then the replay is held against it as it goes on.
A decision that was published again with the same bytes counts once: delivery is at least once.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clickscore.schemas.topics import ADS
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.reader import read_to_end, reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.pipeline import Message, Output
from clickscore.stream.replay.topic_source import Range
from clickscore.stream.settings import KafkaSettings

SHOWN = 10
"""Differences, and ids of missing and extra decisions, that are kept."""

FETCH_MS = 10_000


class Difference(msgspec.Struct, frozen=True):
    """Two decisions of one id."""

    decision_id: str
    published: bytes
    replayed: bytes


class Findings(msgspec.Struct, kw_only=True):
    """How a replay and what was published compare. Decisions are counted by their ids."""

    equal: int = 0
    different: int = 0
    missing: int = 0
    """Replayed, and never published."""
    extra: int = 0
    """Published, and not replayed."""
    repeats: int = 0
    """Published again with equal bytes: no fault."""
    unreadable: int = 0
    """Published records that are no decisions on the events that were replayed."""
    differences: list[Difference] = []
    """The first of them."""
    missing_ids: list[str] = []
    extra_ids: list[str] = []

    @property
    def faithful(self) -> bool:
        """Whether all that was published is what the replay came to, and nothing else."""
        return not (self.different or self.missing or self.extra or self.unreadable)

    def __add__(self, other: "Findings") -> "Findings":
        """Return the findings on both halves of a log."""
        return Findings(
            equal=self.equal + other.equal,
            different=self.different + other.different,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            repeats=self.repeats + other.repeats,
            unreadable=self.unreadable + other.unreadable,
            differences=(self.differences + other.differences)[:SHOWN],
            missing_ids=(self.missing_ids + other.missing_ids)[:SHOWN],
            extra_ids=(self.extra_ids + other.extra_ids)[:SHOWN],
        )


class _Head(msgspec.Struct):
    decision_id: str


_decode_head = msgspec.json.Decoder(_Head).decode


class _Published:
    """What was published on the events of one partition's range."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self.begin = begin
        self._count = end - begin
        shape = max(1, end - begin)
        self.prints: Any = np.memmap(path.with_suffix(".prints"), dtype=np.uint64, mode="w+", shape=shape)
        """Of each event: a hash of its decision, 0 where there is none."""
        self.places: Any = np.memmap(path.with_suffix(".places"), dtype=np.int64, mode="w+", shape=shape)
        """Of each event: the offset of its decision."""
        self.contradicted: dict[int, int] = {}
        """Events on which a second decision differs from the first, with its offset."""

    def add(self, at: int, value: bytes, place: int) -> bool:
        """Note a decision; return whether it repeats an earlier one."""
        digest = _digest(value)
        known = int(self.prints[at])
        if not known:
            self.prints[at], self.places[at] = digest, place
        elif known != digest:
            self.contradicted.setdefault(at, place)
        return known == digest

    def within(self, at: int) -> bool:
        """Return whether an event belongs to the range."""
        return 0 <= at < self._count


def _digest(value: bytes) -> int:
    return xxhash.xxh3_64_intdigest(value) or 1


class Check:
    """Holds a replay of some partitions against a topic of decisions."""

    def __init__(self, settings: KafkaSettings, topic: str, source: str, folder: Path) -> None:
        """Compare with these.

        Args:
            settings: The broker.
            topic: Of decisions or ads, without the prefix.
            source: The topic that is replayed, with its prefix.
            folder: Where to keep what was published.
        """
        self._settings = settings
        self._topic = settings.topic(topic)
        self._source = source
        self._folder = folder
        self._suffix = "-ad" if topic == ADS.name else ""
        self._findings = Findings()
        self._published: dict[int, _Published] = {}
        self._differing: list[tuple[int, int, str, bytes]] = []  # partition, place, id and what was replayed

    async def read(self, ranges: Mapping[int, Range]) -> None:
        """Read what was published on these events, as far as the topic holds it now.

        Raises:
            TopicMissingError: There is no such topic, or it has too few partitions.
        """
        present = (await list_topics(self._settings)).get(self._topic, 0)
        if present <= max(ranges):
            message = f"topic {self._topic} is missing or has fewer partitions than {self._source}"
            raise TopicMissingError(message)
        for partition, found in ranges.items():
            self._published[partition] = _Published(self._folder / f"check-{partition}", found.begin, found.end)
        async with reader(self._settings) as consumer:
            async for tp, records in read_to_end(consumer, [TopicPartition(self._topic, p) for p in ranges]):
                self._note(tp.partition, records)

    def _note(self, partition: int, records: Iterable["ConsumerRecord[bytes, bytes]"]) -> None:
        published = self._published[partition]
        for record in records:
            at = self._event_of(partition, record.value or b"")
            if at is None:
                self._findings.unreadable += 1
            elif published.within(at - published.begin):
                self._findings.repeats += published.add(at - published.begin, record.value or b"", record.offset)

    def _event_of(self, partition: int, value: bytes) -> int | None:
        """Return the offset of the event that a decision answers; none where it answers none of this partition."""
        try:
            name = _decode_head(value).decision_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        offset = name.removeprefix(f"{self._source}-{partition}-").removesuffix(self._suffix)
        return int(offset) if offset.isascii() and offset.isdigit() else None

    def compare(self, partition: int, output: Output) -> None:
        """Hold what a batch came to against what was published."""
        published, findings = self._published[partition], self._findings
        for message in self._decisions(output):
            value = message.value or b""
            name = _decode_head(value).decision_id
            at = int(name.removesuffix(self._suffix).rpartition("-")[2]) - published.begin
            digest = int(published.prints[at])
            if not digest:
                findings.missing += 1
                if len(findings.missing_ids) < SHOWN:
                    findings.missing_ids.append(name)
            elif digest == _digest(value) and at not in published.contradicted:
                findings.equal += 1
            else:
                findings.different += 1
                if len(self._differing) < SHOWN:
                    place = int(published.places[at]) if digest != _digest(value) else published.contradicted[at]
                    self._differing.append((partition, place, name, value))
            published.prints[at] = 0

    def _decisions(self, output: Output) -> list[Message]:
        return output.ads if self._suffix else output.recommendations

    async def findings(self) -> Findings:
        """Return how the two compare, once all is replayed."""
        findings = self._findings
        for partition, published in self._published.items():
            left = np.flatnonzero(published.prints)
            findings.extra += len(left)
            names = [f"{self._source}-{partition}-{published.begin + at}{self._suffix}" for at in left[:SHOWN].tolist()]
            findings.extra_ids = (findings.extra_ids + names)[:SHOWN]
        if self._differing:
            async with reader(self._settings) as consumer:
                for partition, place, name, replayed in self._differing:
                    published = await self._value(consumer, TopicPartition(self._topic, partition), place)
                    findings.differences.append(Difference(name, published, replayed))
        return findings

    async def _value(self, consumer: AIOKafkaConsumer, tp: TopicPartition, place: int) -> bytes:
        """Return a published record's value, empty where it has been deleted meanwhile."""
        consumer.assign([tp])
        consumer.seek(tp, place)
        found = await consumer.getmany(tp, timeout_ms=FETCH_MS, max_records=1)
        return next((record.value or b"" for record in found.get(tp, ()) if record.offset == place), b"")
