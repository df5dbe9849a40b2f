"""Relay: map the records of a live topic of another system onto the topic of events, at least once.

The offsets of a batch are committed after the broker has acknowledged all events and dead letters of the batch. A relay
that dies repeats its last batch, with the same event ids: the worker counts each id once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, MAX_ERROR_CHARACTERS, TOPICS
from clickscore.stream.errors import BrokerError, SettingsError, TopicMissingError
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.mapping import EventMapping
from clickscore.stream.event_files.line_errors import LineErrors
from clickscore.stream.event_files.registered_records import MAGIC, RecordDecoder
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import consumer_arguments, stop_client
from clickscore.stream.kafka.producer import EventSender, Headers
from clickscore.stream.kafka.schema_registry import SchemaRegistry
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import KafkaSettings

BATCH_RECORDS = 1000
"""Records between two commits, at most: the number of records that a relay that dies may send again."""

POLL_MS = 200
"""Longest wait for a record, ms: the delay until a stop is noticed."""

STOP_SECONDS = 5.0
"""Timeout of leaving the consumer group."""

SourceRecord = ConsumerRecord[bytes, bytes]
"""A record of the source topic."""

_log = logging.getLogger(__name__)


class RelayTally:
    """Numbers of records read, events sent and records that gave no event."""

    def __init__(self, show: int = 5) -> None:
        """Start at zero.

        Args:
            show: Offsets to keep for each reason of a dead letter.
        """
        self.read = 0
        """Number of records of the source."""
        self.sent = 0
        """Number of acknowledged events."""
        self.ignored = 0
        """Number of records of a type that the mapping ignores."""
        self.dead = LineErrors(show)
        """Dead letters, by reason."""


class RelayedRecord(NamedTuple):
    """A record to send: an event or a dead letter."""

    topic: str
    """Name of the topic, without the prefix."""
    value: bytes
    key: bytes | None
    headers: Headers


class RecordMapper:
    """Makes events and dead letters of the records of a topic, and counts them."""

    def __init__(
        self, mapping: EventMapping, tally: RelayTally, max_event_bytes: int, decoder: RecordDecoder | None = None
    ) -> None:
        """Start without records.

        Args:
            mapping: Mapping of the records.
            tally: Counts to fill.
            max_event_bytes: Length limit of the value of a dead letter, bytes; a longer value is cut.
            decoder: Decodes records with a schema id; None without a schema registry.
        """
        self._decoder = decoder
        self._text = MappedText(mapping, has_header=False)
        self._tally = tally
        self._max_event_bytes = max_event_bytes

    def outgoing(self, record: SourceRecord) -> list[RelayedRecord]:
        """Return the events of a record, or its dead letter; nothing for a record of an ignored type.

        A record without an id gets topic, partition and offset as event id.
        """
        self._tally.read += 1
        if not record.value:
            return [self._dead_letter(record, "the record has no value")]
        try:
            text = self._decode(record.value)
        except ValueError as exc:
            return [self._dead_letter(record, str(exc))]
        record_id = f"{record.topic}-{record.partition}-{record.offset}"
        lines = self._text.parse(record.offset, text, record_id)
        self._tally.ignored += not lines
        return [
            RelayedRecord(EVENTS.name, line.value, line.key, ())
            if line.error is None
            else self._dead_letter(record, line.error)
            for line in lines
        ]

    def _decode(self, value: bytes) -> bytes:
        """Return a record as text.

        Raises:
            ValueError: The record has a schema id, and cannot be decoded.
        """
        if value[0] != MAGIC:
            return value
        if self._decoder is None:
            message = "the record has a schema id (Avro or Protobuf): set schema_registry"
            raise ValueError(message)
        if len(value) > self._max_event_bytes:
            message = f"{len(value)} bytes, more than max_event_bytes ({self._max_event_bytes})"
            raise ValueError(message)
        return self._decoder.decode(value)

    def _dead_letter(self, record: SourceRecord, error: str) -> RelayedRecord:
        """Return the dead letter of a record: its value, its position at the source, and the reason."""
        error = error[:MAX_ERROR_CHARACTERS]
        self._tally.dead.add(error, record.offset)
        value = record.value or b""
        headers = [
            ("topic", record.topic.encode()),
            ("partition", str(record.partition).encode()),
            ("offset", str(record.offset).encode()),
            ("error", error.encode(errors="replace")),
        ]
        if len(value) > self._max_event_bytes:
            headers.append(("cut-from-bytes", str(len(value)).encode()))
        return RelayedRecord(DEAD_LETTERS.name, value[: self._max_event_bytes], record.key, headers)


def check_source(settings: KafkaSettings, source: str) -> None:
    """Check that a relay does not read a topic of Clickscore itself.

    Raises:
        SettingsError: The source is a topic of Clickscore.
    """
    if source in {settings.topic(topic.name) for topic in TOPICS}:
        message = f"{source} is a topic of Clickscore: --from-topic is the topic of another system"
        raise SettingsError(message)


async def relay(
    settings: KafkaSettings,
    source: str,
    mapping: EventMapping,
    tally: RelayTally,
    *,
    group: str,
    max_event_bytes: int,
    stop: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Map the records of a topic onto the events until a stop is requested.

    Args:
        settings: Address of the broker, and the topic prefix.
        source: Full name of the source topic.
        mapping: Mapping of the records.
        tally: Counts to fill.
        group: Consumer group of the relay; several relays of a group share the partitions.
        max_event_bytes: Length limit of the value of a dead letter, bytes; a longer value is cut.
        stop: Set to stop after the current batch.
        on_ready: Called when the relay has connected.

    Raises:
        SettingsError: The source is a topic of Clickscore.
        TopicMissingError: A topic does not exist, or the topic of events has grown.
        BrokerError: The broker cannot be reached, or did not acknowledge all records.
    """
    check_source(settings, source)
    if source not in await list_topics(settings):
        message = f"topic {source} is missing: correct --from-topic"
        raise TopicMissingError(message)
    consumer = bound_unpacking(
        AIOKafkaConsumer(
            source,
            **consumer_arguments(settings),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
    )
    try:
        async with (
            open_decoder(settings) as decoder,
            EventSender(settings) as events,
            EventSender(settings, DEAD_LETTERS.name) as dead_letters,
        ):
            mapper = RecordMapper(mapping, tally, max_event_bytes, decoder)
            await consumer.start()
            on_ready()
            while not stop.is_set():
                batch = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
                if not batch:
                    continue
                await events.check_partitions()
                if decoder is not None:
                    await decoder.prepare(record.value for records in batch.values() for record in records)
                for records in batch.values():
                    for record in records:
                        for topic, value, key, headers in mapper.outgoing(record):
                            await (events if topic == EVENTS.name else dead_letters).add(value, key, headers)
                await events.settle()
                await dead_letters.settle()
                tally.sent = events.sent
                await _commit(consumer, batch)
    except KafkaError as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
    finally:
        await stop_client(consumer, STOP_SECONDS)


@contextlib.asynccontextmanager
async def open_decoder(settings: KafkaSettings) -> AsyncGenerator[RecordDecoder | None]:
    """Provide a decoder of records with a schema id; None without a schema registry.

    Raises:
        SettingsError: The address is no URL, or the file of certificates cannot be read.
    """
    if not settings.schema_registry:
        yield None
        return
    registry, session = SchemaRegistry.open(settings)
    async with session:
        yield RecordDecoder(registry)


async def _commit(consumer: AIOKafkaConsumer, batch: Mapping[TopicPartition, Sequence[SourceRecord]]) -> None:
    """Commit the offsets of a batch; if the group has reassigned a partition, its new owner repeats the records."""
    try:
        await consumer.commit({partition: records[-1].offset + 1 for partition, records in batch.items()})
    except (CommitFailedError, IllegalStateError) as exc:
        _log.warning("The group has reassigned partitions; some records may be relayed again: %s", exc)
