"""Console reader: follow the topics for the console, from a bounded history on, and jump ahead where it is too slow."""

import asyncio
import heapq
import logging
import time
from collections.abc import Mapping, Sequence

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS, ROLLOUTS
from clickscore.stream.console.console_state import MAX_VALUE_BYTES, MOMENT_BYTES, ConsoleState, LogRecord
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.log_reader import PartitionReader, open_reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import Settings

HISTORY_RECORDS = 40_000
"""Number of newest records to read at the start: some seconds of work, and some 50 MB for that time."""
MAX_BEHIND = 20_000
"""Most unread records of a partition. With more, the reader jumps to the end of the partition."""
FETCH_RECORDS = 4_000
"""Most records of a fetch."""
TURN_RECORDS = 200
"""Records between two turns of the gateway's requests: some 10 ms of work."""
FETCH_MS = 300
PROBE_SECONDS = 2.0
"""Time between two questions for ends of partitions and for the offsets of the workers, s."""
TABLES = (CAMPAIGNS.name, CATALOGUE.name, ROLLOUTS.name)
"""Topics to read from the beginning."""

log = logging.getLogger(__name__)


async def follow_topics(settings: Settings, state: ConsoleState) -> None:
    """Read the topics into the state until cancelled. Topics that the broker lacks are left out.

    Args:
        settings: Connection, names of topics, and the group of the workers.
        state: State to fill.

    Raises:
        BrokerError: Kafka cannot be reached, or refuses the reader.
    """
    state.future_ms = settings.sessions.future_ms
    try:
        topics = await list_topics(settings.kafka)
        state.status.absent_topics = [name for name in state.topics if settings.kafka.topic(name) not in topics]
        partitions = [
            TopicPartition(full_name, partition)
            for name in state.topics
            for full_name in (settings.kafka.topic(name),)
            for partition in range(topics.get(full_name, 0))
        ]
        async with open_reader(settings.kafka) as reader:
            await ConsoleReader(settings, state, reader, partitions).run()
    except KafkaError as exc:
        message = f"Kafka at {settings.kafka.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc


class RecentRecords:
    """The newest records of all partitions, within a number of records and of bytes."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        """Hold nothing yet.

        Args:
            max_records: Most records.
            max_bytes: Most bytes of all values.
        """
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._heap: list[tuple[tuple[int, int], int, LogRecord]] = []  # oldest record first
        self._arrivals = 0
        self._bytes = 0

    def add(self, record: LogRecord, time_order: tuple[int, int]) -> None:
        """Add a record. Beyond the limits the oldest records go.

        Args:
            record: The record.
            time_order: Rank of the record in time.
        """
        heapq.heappush(self._heap, (time_order, self._arrivals, record))
        self._arrivals += 1
        self._bytes += len(record.value or b"")
        while len(self._heap) > self._max_records or self._bytes > self._max_bytes:
            *_, oldest = heapq.heappop(self._heap)
            self._bytes -= len(oldest.value or b"")

    def records(self) -> list[LogRecord]:
        """Return the records in the order of time; records of the same rank in the order of their arrival."""
        return [record for *_, record in sorted(self._heap, key=lambda entry: entry[:2])]


class ConsoleReader:
    """Reads partitions into a state."""

    def __init__(
        self,
        settings: Settings,
        state: ConsoleState,
        reader: PartitionReader,
        partitions: Sequence[TopicPartition],
        history_bytes: int = MOMENT_BYTES,
    ) -> None:
        """Connect the parts.

        Args:
            settings: Names of topics, and the group of the workers.
            state: State to fill.
            reader: An open reader.
            partitions: Partitions to read.
            history_bytes: Most bytes of the newest records to read at the start.
        """
        self._history_bytes = history_bytes
        self._settings = settings
        self._state = state
        self._reader = reader
        self._partitions = partitions
        self._names = {settings.kafka.topic(name): name for name in state.topics}
        self._order = {name: number for number, name in enumerate(state.topics)}  # an event before its decision

    async def run(self) -> None:
        """Read until cancelled."""
        await self._read_history()
        self._state.status.is_reading, self._state.status.problem = True, ""
        probed_at = 0.0
        while True:
            await self._take(await self._fetch())
            if time.monotonic() - probed_at > PROBE_SECONDS:
                await self._probe()
                probed_at = time.monotonic()

    async def _read_history(self) -> None:
        """Read the tables and the newest records, and take them in the order of time: a click follows its decision."""
        self._reader.assign(list(self._partitions))
        ends = await self._reader.end_offsets(self._partitions)
        starts = await self._reader.beginning_offsets(self._partitions)
        logs = [partition for partition in ends if self._names[partition.topic] not in TABLES]
        share = HISTORY_RECORDS // max(1, len(logs))
        for partition, end in ends.items():
            start = max(starts[partition], end - share) if partition in logs else starts[partition]
            self._reader.seek(partition, start)
        # Live records arrive as well while the tables are read, so that the history needs limits of its own.
        history = RecentRecords(HISTORY_RECORDS, self._history_bytes)
        while any([await self._reader.position(partition) < end for partition, end in ends.items()]):
            for record in await self._fetch():
                if record.topic in TABLES or len(record.value or b"") > MAX_VALUE_BYTES:
                    self._state.receive(record)
                else:
                    history.add(record, self._time_order(record))
        await self._take(history.records())

    async def _fetch(self) -> list[LogRecord]:
        fetched = await self._reader.getmany(timeout_ms=FETCH_MS, max_records=FETCH_RECORDS)
        return sorted(
            (self._as_log_record(record) for records in fetched.values() for record in records), key=self._time_order
        )

    async def _take(self, records: Sequence[LogRecord]) -> None:
        """Give records to the state, with turns for the requests of the gateway in between."""
        for start in range(0, len(records), TURN_RECORDS):
            for record in records[start : start + TURN_RECORDS]:
                self._state.receive(record)
            await asyncio.sleep(0)

    def _time_order(self, record: LogRecord) -> tuple[int, int]:
        return record.appended_at, self._order[record.topic]

    async def _probe(self) -> None:
        """Look how far the reader and the workers are behind, and jump ahead where the reader is too slow."""
        ends = await self._reader.end_offsets(self._partitions)
        status, behind = self._state.status, 0
        for partition, end in ends.items():
            unread = max(0, end - await self._reader.position(partition))
            if unread > MAX_BEHIND and self._names[partition.topic] not in TABLES:
                self._reader.seek(partition, end)
                status.skipped += unread
                unread = 0
            behind += unread
        status.behind = behind
        await self._look_at_group(ends)

    async def _look_at_group(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note how many events the workers have not decided on."""
        events, group = self._settings.kafka.topic(EVENTS.name), self._settings.worker.group
        partitions = {partition: end for partition, end in ends.items() if partition.topic == events}
        committed = await self._reader.committed_offsets(group, partitions)
        self._state.status.lag = {
            number: max(0, end - max(committed.get(partition, 0), self._state.decided.get(number, -1) + 1))
            for partition, end in partitions.items()
            for number in (partition.partition,)
        }
        served = await self._reader.served_partitions(group, events)
        self._state.status.members = None if served is None else sorted(served)

    def _as_log_record(self, record: "ConsumerRecord[bytes, bytes]") -> LogRecord:
        return LogRecord(
            self._names[record.topic],
            f"{record.topic}-{record.partition}-{record.offset}",
            record.partition,
            record.key,
            record.value,
            dict(record.headers),
            record.timestamp,
        )
