"""Topic source: a range of a topic, read without a consumer group."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.stream.errors import BrokerError, SettingsError, TopicMissingError
from clickscore.stream.kafka.client import connection
from clickscore.stream.kafka.reader import reader
from clickscore.stream.kafka.topics import list_topics, wait_for_broker
from clickscore.stream.replay.source import BATCH, Batches, KafkaMark, Mark
from clickscore.stream.settings import KafkaSettings

FETCH_BYTES = 4 * 1024 * 1024  # a partition and request

POLL_MS = 500


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

    def open(self, settings: KafkaSettings, mine: Collection[int], mark: Mark | None) -> "KafkaSource":
        """Open it, to read some partitions from a mark on."""
        offsets = mark.offsets if isinstance(mark, KafkaMark) else {p: self.ranges[p].warm for p in mine}
        return KafkaSource(settings, self.topic, {p: (offsets[p], self.ranges[p].end) for p in mine})


async def kafka_origin(settings: KafkaSettings, topic: str, begin: str, end: str, warm: str | None) -> KafkaOrigin:
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

    def __init__(self, settings: KafkaSettings, topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
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
