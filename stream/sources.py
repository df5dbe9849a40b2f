"""Sources: recorded events, from a file or a topic's range, as records of partitions that can be read on from a mark.

A file is laid out as `produce` would: the same partitions, the same offsets. It knows no append time, so an event of
the far future is not found out: its `ts` is believed.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, Self

import msgspec
import xxhash
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS
from stream.adapters import EventFile, Format, Place
from stream.catalogue import Catalogue
from stream.errors import BrokerError, InputFileError, SettingsError, TopicMissingError
from stream.kafka import connection
from stream.partitioner import partition_of
from stream.pipeline import Record
from stream.restore import read_to_end, reader
from stream.settings import Settings
from stream.topics import list_topics, wait_for_broker

KAFKA = "kafka:"
"""What a source that is a topic begins with."""

BATCH = 4096
"""Records that are processed at once, unless one says otherwise: bounds the memory, and changes no decision."""

FETCH_BYTES = 4 * 1024 * 1024  # a partition and request
POLL_MS = 500
HEAD_BYTES = 64 * 1024
"""Of a file, by which it is known again."""


class FileMark(msgspec.Struct, frozen=True, tag="file"):
    """How far a file has been read."""

    place: Place = Place()
    offsets: tuple[int, ...] = ()
    """The next record's, of each partition."""


class KafkaMark(msgspec.Struct, frozen=True, tag="kafka"):
    """How far a topic has been read: the next offset of each partition."""

    offsets: dict[int, int]


Mark = FileMark | KafkaMark

Batches = list[tuple[int, Sequence[Record]]]
"""Records by partition, each in the order of offsets."""


class Source(Protocol):
    """Recorded events of some partitions, a context manager."""

    size: int
    """How much there is to read, in the unit of `position`; 0 where nobody knows."""

    @property
    def position(self) -> int:
        """How much of it has been read."""
        ...

    @property
    def unreadable(self) -> int:
        """Lines read so far of which no record could be made."""
        ...

    @property
    def mark(self) -> Mark:
        """Where to go on after the batches that were yielded."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def batches(self, records: int = BATCH) -> Iterator[Batches]:
        """Yield what is to be read, about so many records at a time."""
        ...


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A line of a file as the record that a topic would hold."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


# Files


class FileOrigin(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file that is to be read."""

    path: str
    format: Format
    partitions: int
    fingerprint: str
    """Of its size and its beginning, so that another file of the same name is noticed."""

    def open(self, settings: Settings, mine: Collection[int], mark: Mark | None) -> "FileSource":
        """Open it, to read some partitions from a mark on."""
        del settings
        start = mark if isinstance(mark, FileMark) else FileMark(offsets=(0,) * self.partitions)
        return FileSource(Path(self.path), self.format, mine, start)


def file_origin(path: Path, file_format: Format, partitions: int) -> FileOrigin:
    """Return a file as an origin.

    Raises:
        InputFileError: It cannot be read.
    """
    fingerprint = ""
    if str(path) != "-":
        try:
            with path.open("rb") as file:
                fingerprint = f"{path.stat().st_size}-{xxhash.xxh3_64_hexdigest(file.read(HEAD_BYTES))}"
        except OSError as exc:
            message = f"{path} cannot be read: {exc.strerror or exc}"
            raise InputFileError(message) from exc
    return FileOrigin(path=str(path), format=file_format, partitions=partitions, fingerprint=fingerprint)


class FileSource:
    """The lines of a file that some partitions hold."""

    def __init__(self, path: Path, file_format: Format, mine: Collection[int], start: FileMark) -> None:
        self.unreadable = 0
        self._file = EventFile(path, file_format, start.place)
        self.size = self._file.size
        self._mine = frozenset(mine)
        self._next = list(start.offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def position(self) -> int:
        """Bytes read, as they lie on disk."""
        return self._file.position

    @property
    def mark(self) -> FileMark:
        """Where to go on."""
        return FileMark(self._file.place, tuple(self._next))

    def batches(self, records: int = BATCH) -> Iterator[Batches]:
        """Yield the file's records, the partitions of a batch in order."""
        partitions, mine, following = len(self._next), self._mine, self._next
        found: dict[int, list[Record]] = {}
        held = 0
        for chunk in self._file.chunks():
            for line in chunk:
                if line.error is not None:
                    self.unreadable += 1
                    continue
                partition = partition_of(line.routing, partitions)
                if partition not in mine:
                    continue
                of_partition = found.get(partition)
                if of_partition is None:
                    of_partition = found[partition] = []
                of_partition.append(Recorded(following[partition], -1, line.key, line.value))
                following[partition] += 1
                held += 1
            if held >= records or (self._file.live and not chunk):
                yield sorted(found.items())
                found, held = {}, 0
        yield sorted(found.items())


# Topics


class Range(msgspec.Struct, frozen=True):
    """Offsets of a partition that are replayed: from `begin`, less than `end`."""

    begin: int
    end: int
    warm: int
    """Where reading begins, at `begin` or before: what lies between makes the state and is not shown."""
    log_begin: int
    """Where the log begins."""


class KafkaOrigin(msgspec.Struct, frozen=True, kw_only=True, tag="kafka"):
    """A range of a topic that is to be read. Resolved to offsets once, so that it is the same when it is read again."""

    topic: str
    """With its prefix."""
    begin: str
    """As it was asked for: time, offset, `earliest` or `latest`."""
    end: str
    warm: str
    ranges: dict[int, Range]

    @property
    def partitions(self) -> int:
        """How many the topic has."""
        return len(self.ranges)

    @property
    def cold(self) -> list[int]:
        """Partitions whose records are read from the middle of their log, so that the state before is unknown."""
        return [p for p, found in self.ranges.items() if found.warm > 0 and found.warm < found.end]

    def open(self, settings: Settings, mine: Collection[int], mark: Mark | None) -> "KafkaSource":
        """Open it, to read some partitions from a mark on."""
        offsets = mark.offsets if isinstance(mark, KafkaMark) else {p: self.ranges[p].warm for p in mine}
        return KafkaSource(settings, self.topic, {p: (offsets[p], self.ranges[p].end) for p in mine})


Origin = FileOrigin | KafkaOrigin


def topic_name(origin: Origin, settings: Settings) -> str:
    """Return the topic's name that decisions are called by; of a file, the one that `produce` would put it on."""
    return settings.topic(EVENTS.name) if isinstance(origin, FileOrigin) else origin.topic


def parted(origin: Origin, batches: Batches) -> tuple[Batches, Batches]:
    """Return the records that only make the state, and those after them."""
    if isinstance(origin, FileOrigin):
        return [], batches
    warming: Batches = []
    due: Batches = []
    for partition, records in batches:
        begin = origin.ranges[partition].begin
        if not records or records[0].offset >= begin:
            due.append((partition, records))
        else:
            warming.append((partition, [record for record in records if record.offset < begin]))
            due.append((partition, [record for record in records if record.offset >= begin]))
    return warming, due


async def kafka_origin(settings: Settings, topic: str, begin: str, end: str, warm: str | None) -> KafkaOrigin:
    """Return a topic's range, resolved to what the log holds now.

    Args:
        settings: The broker.
        topic: Without the prefix.
        begin: Where to begin: an offset (of every partition), a time (ISO, UTC), `earliest` or `latest`.
        end: Where to end, likewise; it is not part of the range.
        warm: Where to begin reading, likewise; none for `begin`.

    Raises:
        BrokerError: Kafka cannot be reached.
        TopicMissingError: The topic is not there.
        SettingsError: A bound is none, or they contradict each other.
    """
    for bound in (begin, end, warm or begin):
        _moment(bound)
    await wait_for_broker(settings)
    name = settings.topic(topic)
    count = (await list_topics(settings)).get(name)
    if count is None:
        message = f"topic {name} is missing. See `clickscore topics list`"
        raise TopicMissingError(message)
    partitions = [TopicPartition(name, number) for number in range(count)]
    async with reader(settings) as consumer:
        firsts = await consumer.beginning_offsets(partitions)
        lasts = await consumer.end_offsets(partitions)
        begins, ends, warms = [
            await _offsets(consumer, bound, firsts, lasts)
            for bound in (begin, end, warm if warm is not None else begin)
        ]
    ranges: dict[int, Range] = {}
    for tp in partitions:
        found = Range(begins[tp], ends[tp], warms[tp], firsts[tp])
        if found.end < found.begin or found.begin < found.warm:
            what = "--to lies before --from" if found.end < found.begin else "--warm-from lies after --from"
            message = f"{what} in {name}-{tp.partition}: {found.warm}, {found.begin}, {found.end}"
            raise SettingsError(message)
        ranges[tp.partition] = found
    return KafkaOrigin(topic=name, begin=begin, end=end, warm=warm if warm is not None else begin, ranges=ranges)


Bound = int | Literal["earliest", "latest"] | datetime


def _moment(bound: str) -> Bound:
    """Return what a bound means.

    Raises:
        SettingsError: Nothing.
    """
    if bound in ("earliest", "latest"):
        return bound
    if bound.isascii() and bound.isdigit():
        return int(bound)
    try:
        at = datetime.fromisoformat(bound)
    except ValueError:
        message = f"{bound!r} is no offset, no time like 2026-03-01T08:00:00, and neither earliest nor latest"
        raise SettingsError(message) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _offsets(
    consumer: AIOKafkaConsumer,
    bound: str,
    firsts: Mapping[TopicPartition, int],
    lasts: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Return the offset of a bound in each partition, within what the log holds."""
    moment = _moment(bound)
    if isinstance(moment, str):
        return dict(firsts if moment == "earliest" else lasts)
    if isinstance(moment, int):
        return {tp: min(max(moment, firsts[tp]), lasts[tp]) for tp in firsts}
    found = await consumer.offsets_for_times(dict.fromkeys(firsts, int(moment.timestamp() * 1000)))
    offsets: dict[TopicPartition, int] = {}
    for tp in firsts:
        at = found.get(tp)
        offsets[tp] = lasts[tp] if at is None else at.offset
    return offsets


class KafkaSource:
    """Records of some partitions of a topic, read without a group."""

    unreadable = 0

    def __init__(self, settings: Settings, topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
        """Read these partitions, each from an offset up to another, which is not read."""
        self._settings = settings
        self._topic = topic
        self._ranges = dict(ranges)
        self._next = {partition: begin for partition, (begin, _) in ranges.items()}
        self.size = sum(max(0, end - begin) for begin, end in ranges.values())
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._consumer = self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(KafkaError):
            self._runner.run(self._consumer.stop())
        self._runner.close()

    @property
    def position(self) -> int:
        """Records read, and places of the log that hold none."""
        return sum(self._next[partition] - begin for partition, (begin, _) in self._ranges.items())

    @property
    def mark(self) -> KafkaMark:
        """Where to go on."""
        return KafkaMark(dict(self._next))

    def batches(self, records: int = BATCH) -> Iterator[Batches]:
        """Yield the records, the partitions of a batch in order.

        Raises:
            BrokerError: Kafka is gone for longer than `broker_wait_ms`, or no longer holds what is to be read.
        """
        heard_at = time.monotonic()
        while self._left():
            found = self._runner.run(self._fetch(records))
            if found:
                heard_at = time.monotonic()
                yield found
            elif (time.monotonic() - heard_at) * 1000 > self._settings.broker_wait_ms:
                message = (
                    f"Kafka at {self._settings.bootstrap_servers} has given nothing of {self._topic} for "
                    f"{self._settings.broker_wait_ms / 1000:.0f} s (broker_wait_ms)"
                )
                raise BrokerError(message)

    def _left(self) -> list[int]:
        return [partition for partition, (_, end) in self._ranges.items() if self._next[partition] < end]

    async def _start(self) -> AIOKafkaConsumer:
        await wait_for_broker(self._settings)
        consumer = AIOKafkaConsumer(
            **connection(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",  # what is no longer there must not be skipped in silence
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        await asyncio.sleep(0)  # its tasks must have begun before they can be ended, where nothing is to be read
        left = {TopicPartition(self._topic, partition): self._next[partition] for partition in self._left()}
        consumer.assign(list(left))
        for tp, offset in left.items():
            consumer.seek(tp, offset)
        return consumer

    async def _fetch(self, most: int) -> Batches:
        left = [TopicPartition(self._topic, partition) for partition in self._left()]
        try:
            found = await self._consumer.getmany(*left, timeout_ms=POLL_MS, max_records=most)
        except KafkaError as exc:
            message = f"{self._topic} cannot be read on: {str(exc) or type(exc).__name__}"
            raise BrokerError(message) from exc
        batches: Batches = []
        for tp in sorted(left):
            end = self._ranges[tp.partition][1]
            records = [record for record in found.get(tp, ()) if record.offset < end]
            position = min(await self._consumer.position(tp), end)
            if position >= end:
                self._consumer.pause(tp)
            if records or position > self._next[tp.partition]:
                batches.append((tp.partition, records))
            self._next[tp.partition] = position
        return batches


# The shop's side

Reference = list[tuple[str, bytes | None, bytes | None]]
"""Records of `catalogue-items` and `ad-campaigns`, each with its topic's name without the prefix."""


async def read_reference(settings: Settings) -> Reference:
    """Return the newest record of each key of catalogue and campaigns, as they stand now.

    Raises:
        KafkaError: Kafka is gone.
    """
    newest: dict[tuple[str, bytes | None], bytes | None] = {}
    names = {settings.topic(topic.name): topic.name for topic in (CATALOGUE, CAMPAIGNS)}
    present = await list_topics(settings)
    async with reader(settings) as consumer:
        partitions = [TopicPartition(name, 0) for name in names if name in present]
        if partitions:
            async for tp, records in read_to_end(consumer, partitions):
                for record in records:
                    newest.pop((names[tp.topic], record.key), None)
                    newest[names[tp.topic], record.key] = record.value
    return [(topic, key, value) for (topic, key), value in newest.items()]


def catalogue_of(reference: Reference) -> Catalogue:
    """Return the catalogue that records make; one that cannot be read changes nothing, as in a worker."""
    catalogue = Catalogue()
    for topic, key, value in reference:
        update = catalogue.update_item if topic == CATALOGUE.name else catalogue.update_campaign
        update(key, value)
    return catalogue
