"""Kafka in memory: a log, a reader, a producer and a consumer group that drive the worker's parts without a broker."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.topic_description import TopicDescription
from clickscore.stream.worker.group import Headers, LossReporter, OutgoingRecord


class StoredRecord(NamedTuple):
    """A record as a partition of the log holds it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class MemoryLog:
    """Topics of partitions of records, in memory."""

    def __init__(self) -> None:
        self.fetch_errors: list[Exception] = []
        """Errors with which the next fetches of readers fail."""
        self.descriptions: dict[str, TopicDescription] = {}
        """What the broker says of topics; any other topic has four partitions and no id."""
        self.served: set[int] | None = None
        """Partitions that the members of every group read; None during a rebalance."""
        self.lacking_right = ""
        """Words for a right that the broker does not grant."""
        self.committed: dict[TopicPartition, int] = {}
        """Committed offsets of every group."""
        self._records: dict[tuple[str, int], list[StoredRecord]] = defaultdict(list)
        self._marked: dict[tuple[str, int], int] = {}

    def mark(self, topic: str, partition: int) -> None:
        """Store the marker of a transaction: it takes an offset, and no reader sees it."""
        self._marked[topic, partition] = self.end(topic, partition) + 1

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        timestamp: int = -1,
        offset: int | None = None,
    ) -> StoredRecord:
        """Store a record, behind the last one or at a later offset, as compaction and retention leave them."""
        position = self.end(topic, partition) if offset is None else offset
        record = StoredRecord(topic, partition, position, timestamp, key, value, headers)
        self._records[topic, partition].append(record)
        return record

    def records(self, topic: str, partition: int = 0, start: int = 0) -> list[StoredRecord]:
        """Return the records of a partition from an offset on."""
        return [record for record in self._records[topic, partition] if record.offset >= start]

    def beginning(self, topic: str, partition: int = 0) -> int:
        """Return the offset of the first record of a partition."""
        records = self._records[topic, partition]
        return records[0].offset if records else self.end(topic, partition)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Remove the records before an offset, as retention does."""
        self._records[topic, partition] = self.records(topic, partition, offset)

    def cut_back(self, topic: str, partition: int, end: int) -> None:
        """Remove the records from an offset on, as an unclean leader election does."""
        self._records[topic, partition] = [record for record in self.records(topic, partition) if record.offset < end]

    def end(self, topic: str, partition: int = 0) -> int:
        """Return the offset after the last record of a partition."""
        records = self._records[topic, partition]
        return max(records[-1].offset + 1 if records else 0, self._marked.get((topic, partition), 0))

    @asynccontextmanager
    async def open_reader(self) -> AsyncGenerator["MemoryReader"]:
        """Open a reader of this log."""
        yield MemoryReader(self)


class MemoryReader:
    """Reads partitions of a memory log, at most `max_records` at a time."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)
        self._paused = set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self._positions |= dict.fromkeys(partitions, 0)

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self._log.end(*partition) for partition in partitions}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self._log.beginning(*partition) for partition in partitions}

    async def committed_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: offset for tp, offset in self._log.committed.items() if tp in set(partitions) and group}

    async def served_partitions(self, group: str, topic: str) -> set[int] | None:
        return self._log.served if group and topic else None

    async def check_worker_rights(self, group: str) -> None:
        if self._log.lacking_right:
            raise BrokerError(self._log.lacking_right.format(group))

    async def describe(self, topic: str) -> TopicDescription:
        return self._log.descriptions.get(topic, TopicDescription(4))

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[StoredRecord]]:
        if self._log.fetch_errors:
            raise self._log.fetch_errors.pop()
        fetched: dict[TopicPartition, list[StoredRecord]] = {}
        for partition in partitions or self._positions:
            records = self._log.records(*partition, start=self._positions[partition])[:max_records]
            if records and partition not in self._paused:
                fetched[partition] = records
                self._positions[partition] = records[-1].offset + 1
        await asyncio.sleep(0 if fetched else timeout_ms / 1e6)  # a thousandth of the wait, so that tests take no time
        return fetched


class MemoryProducer:
    """Appends to a memory log. A topic may hold its acknowledgements back, or refuse records."""

    def __init__(self, log: MemoryLog, journal: list[str]) -> None:
        """Build it; `journal` notes each acknowledgement."""
        self.refusals: dict[str, Exception] = {}
        """Error with which a topic answers."""
        self.append_time: int | None = None
        """Append time of all records, ms; None as for topics that keep the producer's time."""
        self._log = log
        self._journal = journal
        self._held: dict[str, asyncio.Event] = {}

    def hold(self, topic: str) -> asyncio.Event:
        """Keep back a topic's acknowledgements until the returned event is set."""
        self._held[topic] = asyncio.Event()
        return self._held[topic]

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int | None:
        await self.publish_whole(topic, partition, messages)
        return self.append_time

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        await asyncio.sleep(0)
        if topic in self.refusals:
            raise self.refusals[topic]
        for key, value, headers in messages:
            self._log.append(topic, partition, key, value, headers=headers)
        end = self._log.end(topic, partition)
        if topic in self._held:
            await self._held[topic].wait()
        self._journal.append(f"{topic} acknowledged")
        return end


class MemoryTransactions:
    """Transactions of the partitions of a memory log, with an epoch a partition: a new owner fences the earlier one."""

    def __init__(self, log: MemoryLog, journal: list[str], epochs: dict[int, int] | None = None) -> None:
        """Build it; two owners of the same partitions share `epochs`, and `journal` notes each commit."""
        self.refusal: Exception | None = None
        """Error with which the next commits fail."""
        self.commits_held: asyncio.Event | None = None
        """Commits wait for this event."""
        self.epochs = {} if epochs is None else epochs
        self._log = log
        self._journal = journal
        self._owned: dict[int, int] = {}

    async def take_over(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self.epochs[partition] = self.epochs.get(partition, 0) + 1
        self._owned = {partition: self.epochs[partition] for partition in partitions}

    @asynccontextmanager
    async def begin(self, partition: int) -> AsyncGenerator["TransactionBuffer"]:
        buffer = TransactionBuffer(self._log)
        yield buffer
        if self.commits_held:
            await self.commits_held.wait()
        if self.refusal:
            raise self.refusal
        if partition not in self._owned or self._owned[partition] != self.epochs[partition]:
            raise ProducerFenced
        buffer.commit()
        self._journal.append(f"partition {partition} committed")


class TransactionBuffer:
    """Records of an open transaction."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._records: dict[tuple[str, int], list[OutgoingRecord]] = defaultdict(list)

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int | None:
        await self.publish_whole(topic, partition, messages)
        return None

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        await asyncio.sleep(0)
        self._records[topic, partition] += messages
        return self._log.end(topic, partition) + len(self._records[topic, partition])

    def commit(self) -> None:
        """Append the records to the log, and the markers behind them."""
        for (topic, partition), messages in self._records.items():
            for key, value, headers in messages:
                self._log.append(topic, partition, key, value, headers=headers)
            self._log.mark(topic, partition)


@dataclass
class MemoryBatch:
    """A fetched batch that remembers what was done with it."""

    partition: int
    records: Sequence[StoredRecord]
    generation: int
    ends_fetch: bool = True
    committable: bool = False
    acked: bool = False
    journal: list[str] = field(default_factory=list)

    def mark_committable(self) -> None:
        self.committable = True
        self.journal.append("committable")

    def ack(self) -> None:
        self.acked = True
        self.journal.append("acked")


class MemoryGroup:
    """A consumer group of one member, whose rebalances are calls."""

    def __init__(self, log: MemoryLog, topic: str, partitions: Sequence[int] = (0,)) -> None:
        self.journal: list[str] = []
        self.generation = 1
        self.rebalancing = False
        self.knows_ends = True
        self.partitions: int | None = None
        """Number of partitions of the topic; the user ids of most tests belong to no partition."""
        self.producer = MemoryProducer(log, self.journal)
        self.expected: Mapping[int, int] = {}
        self.crashes: list[BaseException] = []
        self._log = log
        self._topic = topic
        self._partitions = list(partitions)
        self._positions: dict[int, int] = {}

    def rebalance(self, *partitions: int) -> None:
        """Start a new generation, in which this member owns these partitions."""
        self.generation += 1
        self._partitions = list(partitions)

    def fetch(self, partition: int, limit: int | None = None, *, ends_fetch: bool = True) -> MemoryBatch:
        """Return the next records of a partition as a batch of the present generation."""
        start = self._positions.get(partition, self.expected.get(partition, 0))
        records = self._log.records(self._topic, partition, start)[:limit]
        self._positions[partition] = records[-1].offset + 1 if records else start
        return MemoryBatch(partition, records, self.generation, ends_fetch, journal=self.journal)

    def assignment(self) -> list[int]:
        return list(self._partitions)

    def highwater(self, partition: int) -> int | None:
        return self._log.end(self._topic, partition) if self.knows_ends else None

    def partition_count(self) -> int | None:
        return self.partitions

    def expect(self, offsets: Mapping[int, int], losses: LossReporter) -> None:
        self.expected, self.losses = offsets, losses

    async def crash(self, exc: BaseException) -> None:
        self.crashes.append(exc)
