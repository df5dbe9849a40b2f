"""Topic source: a range of a topic, read without a consumer group."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.field_types import YEAR_2000_MS, YEAR_9999_MS
from clickscore.stream.errors import BrokerError, SettingsError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import consumer_arguments, stop_client
from clickscore.stream.kafka.log_reader import open_reader
from clickscore.stream.kafka.topics import count_partitions
from clickscore.stream.pipeline_records import MAX_KEY_BYTES
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.source import BATCH_RECORDS, Batches, OffsetPosition, OffsetRange, Position
from clickscore.stream.replay.topic_reference import read_reference_log
from clickscore.stream.settings import KafkaSettings, Settings

FETCH_BYTES = 4 * 1024 * 1024
"""Size limit of a fetch of a partition, in bytes: some 20,000 events, more than a batch."""

POLL_MS = 500
"""Time limit of a fetch. An empty fetch only checks again whether Kafka has been silent for too long."""

FETCH_WAIT_MS = 50
"""Wait of the broker for more data. The log of a replay already holds the data, so a longer wait gains nothing."""


class TopicRangeSpec(msgspec.Struct, frozen=True, kw_only=True, tag="kafka"):
    """Description of a range of a topic, resolved to offsets once, so that a second reading gives the same records."""

    topic: str
    """Name of the topic, with its prefix."""
    begin: str
    """First record, as the user gave it: an offset, a time, `earliest` or `latest`."""
    end: str
    """End of the range, as the user gave it; excluded."""
    warm_up: str = msgspec.field(name="warm")
    """First record of the warm-up, as the user gave it."""
    ranges: dict[int, OffsetRange]
    """Offsets of each partition."""

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic."""
        return len(self.ranges)

    @property
    def cold_partitions(self) -> Mapping[int, int]:
        """First offset read, for each partition whose log begins earlier: the state before is not known."""
        return {
            partition: offsets.warm_up
            for partition, offsets in self.ranges.items()
            if 0 < offsets.warm_up < offsets.end
        }

    @property
    def max_workers(self) -> int:
        """Number of partitions: the log has all hand-overs, so no partition needs the state of another."""
        return self.partitions

    def topic_name(self, settings: KafkaSettings) -> str:
        """Return the name of the topic, with its prefix."""
        del settings
        return self.topic

    def open(self, settings: Settings, partitions: Collection[int], position: Position | None) -> "TopicSource":
        """Open the range.

        Args:
            settings: Address of the broker, and the size limit of an event.
            partitions: Partitions to read.
            position: Position of an earlier reading; None reads from the start of the warm-up.
        """
        if isinstance(position, OffsetPosition):
            begins = position.offsets
        else:
            begins = {partition: self.ranges[partition].warm_up for partition in partitions}
        ranges = {partition: (begins[partition], self.ranges[partition].end) for partition in partitions}
        return TopicSource(settings, self.topic, ranges)

    def split_warm_up(self, batches: Batches) -> tuple[Batches, Batches]:
        """Return the records before the range, which only update the state, and the records of the range."""
        warm_up: Batches = []
        replayed: Batches = []
        for partition, records in batches:
            begin = self.ranges[partition].begin
            if not records or records[0].offset >= begin:
                replayed.append((partition, records))
            else:
                warm_up.append((partition, [record for record in records if record.offset < begin]))
                replayed.append((partition, [record for record in records if record.offset >= begin]))
        return warm_up, replayed

    def offset_ranges(self, partitions: Collection[int]) -> dict[int, OffsetRange]:
        """Return the offsets of some partitions."""
        return {partition: self.ranges[partition] for partition in partitions}

    def read_reference(self, settings: KafkaSettings) -> ReferenceLog:
        """Return the records of catalogue and campaigns, and the epochs in which the range begins.

        Raises:
            KafkaError: The connection to Kafka is lost.
        """
        return asyncio.run(read_reference_log(settings, self.topic, self.ranges))

    def without_offsets(self) -> Self:
        """Return the request of the user: topic, begin, end and warm-up, without the resolved offsets."""
        return msgspec.structs.replace(self, ranges={})


async def resolve_topic_range(
    settings: KafkaSettings, topic: str, begin: str, end: str, warm_up_from: str | None
) -> TopicRangeSpec:
    """Return a range of a topic, with bounds resolved to the offsets of this moment.

    Args:
        settings: Address of the broker.
        topic: Name of the topic, without the prefix.
        begin: First record: an offset (of every partition), a time (ISO, UTC), `earliest` or `latest`.
        end: End of the range, in the same form; excluded.
        warm_up_from: First record to read, in the same form; None reads from `begin`.

    Raises:
        BrokerError: Kafka cannot be reached.
        TopicMissingError: The topic does not exist.
        SettingsError: A bound cannot be parsed, or the bounds contradict each other.
    """
    warm_up = warm_up_from if warm_up_from is not None else begin
    bounds: list[Bound] = [_parse_bound(text) for text in (begin, end, warm_up)]
    await wait_for_broker(settings)
    name = settings.topic(topic)
    count = await count_partitions(settings, name)
    partitions = [TopicPartition(name, number) for number in range(count)]
    async with open_reader(settings) as consumer:
        first_offsets = await consumer.beginning_offsets(partitions)
        end_offsets = await consumer.end_offsets(partitions)
        begins, ends, warm_ups = [await _resolve_bound(consumer, bound, first_offsets, end_offsets) for bound in bounds]
    ranges: dict[int, OffsetRange] = {}
    for tp in partitions:
        offsets = OffsetRange(begins[tp], ends[tp], warm_ups[tp], first_offsets[tp])
        if offsets.end < offsets.begin or offsets.begin < offsets.warm_up:
            problem = "--to lies before --from" if offsets.end < offsets.begin else "--warm-up-from lies after --from"
            message = (
                f"{problem} in {name}-{tp.partition}: --warm-up-from is offset {offsets.warm_up}, --from is "
                f"{offsets.begin}, --to is {offsets.end}"
            )
            raise SettingsError(message)
        ranges[tp.partition] = offsets
    return TopicRangeSpec(topic=name, begin=begin, end=end, warm_up=warm_up, ranges=ranges)


Bound = int | Literal["earliest", "latest"] | datetime
"""Bound of a range: an offset, an end of the log, or a time."""


def _parse_bound(text: str) -> Bound:
    if text in ("earliest", "latest"):
        return text
    if text.isascii() and text.isdigit():
        number = int(text)
        if number > YEAR_9999_MS:
            message = f"{text} is too large for an offset, and as ms since 1970 it is after the year 9999"
            raise SettingsError(message)
        # No partition has 900 billion records: so large a number is a time.
        return datetime.fromtimestamp(number / 1000, UTC) if number >= YEAR_2000_MS else number
    try:
        time_bound = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is not an offset, not a time like 2026-03-01T08:00:00, and neither earliest nor latest"
        raise SettingsError(message) from None
    return time_bound if time_bound.tzinfo else time_bound.replace(tzinfo=UTC)


async def _resolve_bound(
    consumer: AIOKafkaConsumer,
    bound: Bound,
    first_offsets: Mapping[TopicPartition, int],
    end_offsets: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Return the offset of a bound in each partition, within the log."""
    if isinstance(bound, str):
        return dict(first_offsets if bound == "earliest" else end_offsets)
    if isinstance(bound, int):
        return {tp: min(max(bound, first_offsets[tp]), end_offsets[tp]) for tp in first_offsets}
    by_time = await consumer.offsets_for_times(dict.fromkeys(first_offsets, int(bound.timestamp() * 1000)))
    offsets: dict[TopicPartition, int] = {}
    for tp in first_offsets:
        match = by_time.get(tp)
        offsets[tp] = end_offsets[tp] if match is None else match.offset  # no match: all records are older
    return offsets


class TopicSource:
    """Records of some partitions of a topic, read without a consumer group."""

    unreadable = 0
    slot = None
    is_resumable = True

    def __init__(self, settings: Settings, topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
        """Prepare to read.

        Args:
            settings: Address of the broker, and the size limit of an event.
            topic: Name of the topic, with its prefix.
            ranges: First offset of each partition, and the offset after the last record.
        """
        self._settings = settings.kafka
        self._max_event_bytes = settings.sessions.max_event_bytes
        self._topic = topic
        self._ranges = dict(ranges)
        self._next_offsets = {partition: begin for partition, (begin, _) in ranges.items()}
        self.total = sum(max(0, end - begin) for begin, end in ranges.values())
        self._runner = asyncio.Runner()
        self._fetched: Batches = []

    def __enter__(self) -> Self:
        self._consumer = self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(stop_client(self._consumer))
        self._runner.close()

    @property
    def completed(self) -> int:
        """Number of offsets read, with offsets that hold no record."""
        return sum(self._next_offsets[partition] - begin for partition, (begin, _) in self._ranges.items())

    @property
    def position(self) -> OffsetPosition:
        """Position after the yielded batches."""
        return OffsetPosition(dict(self._next_offsets))

    def batches(self, records: int = BATCH_RECORDS) -> Iterator[Batches]:
        """Yield the records, at most `records` at a time, in the order of partitions.

        Raises:
            BrokerError: Kafka has been silent for longer than `broker_wait_ms`, or has deleted a part of the range.
        """
        last_fetch = time.monotonic()
        while self._unfinished():
            self._runner.run(self._fetch(records))
            batches, self._fetched = self._fetched, []
            if batches:
                last_fetch = time.monotonic()
                yield batches
            elif (time.monotonic() - last_fetch) * 1000 > self._settings.broker_wait_ms:
                message = (
                    f"Kafka at {self._settings.bootstrap_servers} has sent no record of {self._topic} for "
                    f"{self._settings.broker_wait_ms / 1000:.0f} s (broker_wait_ms)"
                )
                raise BrokerError(message)

    def _unfinished(self) -> list[int]:
        return [partition for partition, (_, end) in self._ranges.items() if self._next_offsets[partition] < end]

    async def _start(self) -> AIOKafkaConsumer:
        await wait_for_broker(self._settings)
        consumer = bound_unpacking(
            AIOKafkaConsumer(
                **consumer_arguments(self._settings),
                enable_auto_commit=False,
                auto_offset_reset="none",  # deleted records are an error: a replay must not skip records in silence
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=FETCH_WAIT_MS,
            ),
            max_key_bytes=MAX_KEY_BYTES,
            max_value_bytes=self._max_event_bytes,
        )
        await consumer.start()
        await asyncio.sleep(0)  # lets the consumer's tasks start: `stop` cancels only tasks that have started
        starts = {TopicPartition(self._topic, number): self._next_offsets[number] for number in self._unfinished()}
        consumer.assign(list(starts))
        for tp, offset in starts.items():
            consumer.seek(tp, offset)
        return consumer

    async def _fetch(self, limit: int) -> None:
        """Fetch the next records into `_fetched`.

        They are no result of the task: asyncio's runner may format the task as text, with all bytes of its result.
        """
        unfinished = [TopicPartition(self._topic, partition) for partition in self._unfinished()]
        try:
            fetched = await self._consumer.getmany(*unfinished, timeout_ms=POLL_MS, max_records=limit)
        except KafkaError as exc:
            message = f"{self._topic} cannot be read to the end: {str(exc) or type(exc).__name__}"
            raise BrokerError(message) from exc
        batches: Batches = []
        for tp in sorted(unfinished):
            end = self._ranges[tp.partition][1]
            records = [record for record in fetched.get(tp, ()) if record.offset < end]
            next_offset = min(await self._consumer.position(tp), end)
            if next_offset >= end:
                self._consumer.pause(tp)
            if records or next_offset > self._next_offsets[tp.partition]:
                batches.append((tp.partition, records))
            self._next_offsets[tp.partition] = next_offset
        self._fetched = batches
