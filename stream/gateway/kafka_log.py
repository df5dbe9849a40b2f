"""Kafka log: store events in Kafka, follow the published decisions, and find a decision in its topic."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.topics import ADS, ERASURE_RECEIPTS, EVENTS, MAX_RECORD_BYTES, RECOMMENDATIONS
from clickscore.stream.decision_ids import DecisionId, parse_decision_id
from clickscore.stream.errors import BrokerError, RequestError, SettingsError, TopicMissingError
from clickscore.stream.gateway.decision_memory import decode_published_decision
from clickscore.stream.gateway.event_bodies import IncomingEvent
from clickscore.stream.gateway.event_log import LogHealth
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import (
    MAX_REQUEST_BYTES,
    client_arguments,
    consumer_arguments,
    stop_client,
    with_retry_backoff,
)
from clickscore.stream.kafka.rights import Right
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import GatewaySettings, KafkaSettings
from clickscore.stream.trace_headers import Headers

METADATA_MS = 10_000
"""Age at which the number of partitions is asked for again, ms."""
FETCH_BYTES = 4 * 1024 * 1024
"""Largest fetch of a partition, bytes: a bound for memory while the history is read."""
PROBE_SECONDS = 1.0
"""Time between two questions for the ends of the partitions, s."""
LOST_MS = 10_000
"""Time without an answer of Kafka after which the log is not ready, ms."""
SENT_AT_ONCE = 256
"""Events of a request that are handed to the producer before other requests get a turn: some 10 ms of work."""
FIND_SECONDS = 2.0
"""Longest search for a decision in its topic, s."""
FIND_AT_ONCE = 2
"""Searches at the same time: a search opens a connection and reads some MB."""

_log = logging.getLogger(__name__)


class KafkaLog:
    """Kafka's topics of events, decisions and erasure receipts. A context manager; `follow` must run inside.

    The reader joins no consumer group: each gateway reads all decisions, and workers do not notice.

    Raises:
        TopicMissingError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        gateway: GatewaySettings,
        *,
        on_decision: Callable[[bytes], None],
        on_ad: Callable[[bytes], None],
        on_receipt: Callable[[bytes], None],
    ) -> None:
        """Prepare the clients.

        Args:
            kafka: Connection, and names of topics.
            gateway: Limits of waits, and the history to read.
            on_decision: Called with each published recommendation, in order within each partition.
            on_ad: Called with each published decision on an ad, in order within each partition.
            on_receipt: Called with each erasure receipt, in order within each partition.
        """
        self._kafka = kafka
        self._gateway = gateway
        self._events = kafka.topic(EVENTS.name)
        self._recommendations = kafka.topic(RECOMMENDATIONS.name)
        self._ads = kafka.topic(ADS.name)
        self._receivers = {
            self._recommendations: on_decision,
            self._ads: on_ad,
            kafka.topic(ERASURE_RECEIPTS.name): on_receipt,
        }
        self._is_caught_up = False
        self._lag = 0
        self._answered_at = time.monotonic()
        self._searches = asyncio.Semaphore(FIND_AT_ONCE)

    async def __aenter__(self) -> Self:
        needed: dict[str, set[Right]] = {
            self._events: {"write", "read"},
            **{topic: {"read"} for topic in self._receivers},
        }
        topics = await list_topics(self._kafka, needed)
        missing = [name for name in needed if name not in topics]
        if missing:
            message = f"topic {missing[0]} is missing. Make it with `clickscore topics create`"
            raise TopicMissingError(message)
        self._partitions = topics
        # An idempotent producer would wait for a lost broker without end. A client that gets no answer sends its event
        # again with the same event id, and the worker drops the repeat.
        self._producer = with_retry_backoff(
            AIOKafkaProducer(
                **client_arguments(self._kafka),
                acks="all",
                max_request_size=MAX_REQUEST_BYTES,
                request_timeout_ms=self._gateway.gateway_store_ms,
                metadata_max_age_ms=METADATA_MS,
            )
        )
        self._consumer = self._new_consumer(metadata_max_age_ms=METADATA_MS)
        try:
            await self._producer.start()
            await self._consumer.start()
        except KafkaError as exc:
            await self._stop()
            raise self._broker_error(exc) from exc
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def store(self, events: Sequence[IncomingEvent], headers: Headers) -> list[str]:
        """Store events, each in its user's partition, and return the id of each: `TOPIC-PARTITION-OFFSET`.

        Args:
            events: The events.
            headers: Headers of the records.

        Raises:
            RequestError: Kafka did not store the events in time.
        """
        try:
            async with asyncio.timeout(self._gateway.gateway_store_ms / 1000):
                # aiokafka's own partitioner is murmur2 of the key, as that of the Java client.
                sent: list[asyncio.Future[Any]] = []
                for number, event in enumerate(events, 1):
                    sent.append(await self._producer.send(self._events, event.value, event.key, headers=list(headers)))
                    if number % SENT_AT_ONCE == 0:
                        await asyncio.sleep(0)
                stored = await asyncio.gather(*sent)
        except (KafkaError, TimeoutError) as exc:
            reason = str(exc) or type(exc).__name__
            message = (
                f"Kafka has not confirmed all events ({reason}): send the request again with the same event ids; "
                "an event that is stored twice counts once"
            )
            raise RequestError(503, message, headers={"Retry-After": "1"}) from exc
        return [f"{self._events}-{metadata.partition}-{metadata.offset}" for metadata in stored]

    async def follow(self) -> None:
        """Read the published decisions, first those of the history, until the task is cancelled.

        Raises:
            BrokerError: Kafka refuses the reader.
        """
        try:
            await self._seek_history()
            probing = asyncio.create_task(self._probe())
            try:
                while True:
                    fetched = await self._consumer.getmany(timeout_ms=500)
                    for partition, records in fetched.items():
                        receive = self._receivers[partition.topic]
                        for record in records:
                            if record.value is not None:
                                receive(record.value)
                    if probing.done():
                        await probing  # raises its error
            finally:
                probing.cancel()
        except KafkaError as exc:
            raise self._broker_error(exc) from exc

    def health(self) -> LogHealth:
        """Return the state of the connection to Kafka."""
        answered_ms = int((time.monotonic() - self._answered_at) * 1000)
        return LogHealth(self._is_caught_up and answered_ms < LOST_MS, self._lag, answered_ms)

    async def find_decision(self, decision_id: str) -> bytes | None:
        """Return a published decision by id; None where the topic lacks the id.

        The id names the place of the answered event. A worker publishes the decision after the append time of the event
        on the same partition, so the search begins with the first decision of that time.
        """
        try:
            place = parse_decision_id(decision_id)
        except SettingsError:
            return None
        if place.topic != self._events:
            return None
        try:
            async with asyncio.timeout(FIND_SECONDS), self._searches:
                return await self._search(place)
        except (KafkaError, TimeoutError) as exc:
            message = (
                f"the decision was not found in {FIND_SECONDS:.0f} s ({str(exc) or type(exc).__name__}): try again"
            )
            raise RequestError(503, message, headers={"Retry-After": "1"}) from exc

    async def _search(self, place: DecisionId) -> bytes | None:
        """Return the decision with an id, from the partition of its event."""
        offset = place.offset
        events = TopicPartition(self._events, place.partition)
        decisions = TopicPartition(self._ads if place.is_ad else self._recommendations, place.partition)
        if decisions not in self._followed_partitions():
            return None
        consumer = self._new_consumer()
        try:
            await consumer.start()
            consumer.assign([events, decisions])
            first_offsets = await consumer.beginning_offsets([events])
            ends = await consumer.end_offsets([events, decisions])
            if not first_offsets[events] <= offset < ends[events]:
                return None
            consumer.pause(decisions)
            consumer.seek(events, offset)
            event = await consumer.getone(events)
            first_records = await consumer.offsets_for_times({decisions: event.timestamp})
            start = first_records[decisions]
            if start is None:
                return None
            consumer.pause(events)
            consumer.seek(decisions, start.offset)
            consumer.resume(decisions)
            while await consumer.position(decisions) < ends[decisions]:
                for record in await _fetch(consumer, decisions):
                    if record.value is not None and _has_id(record.value, str(place)):
                        return record.value
        finally:
            await stop_client(consumer)
        return None

    def _followed_partitions(self) -> list[TopicPartition]:
        """Return the partitions of the followed topics. The consumer knows topics only once they are assigned."""
        return [
            TopicPartition(topic, number)
            for topic in self._receivers
            for number in sorted(self._consumer.partitions_for_topic(topic) or range(self._partitions[topic]))
        ]

    async def _seek_history(self) -> None:
        """Assign all partitions, and go to the first decision of the history in each."""
        partitions = self._followed_partitions()
        self._consumer.assign(partitions)
        since_ms = int(time.time() * 1000) - self._gateway.gateway_history_ms
        self._ends = await self._consumer.end_offsets(partitions)
        first_records = await self._consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        for partition, end in self._ends.items():
            first_record = first_records.get(partition)
            self._consumer.seek(partition, first_record.offset if first_record else end)

    async def _probe(self) -> None:
        """Ask for the ends of the partitions from time to time, and take up new partitions."""
        while True:
            partitions = list(self._consumer.assignment())
            try:
                ends: Mapping[TopicPartition, int] = await self._consumer.end_offsets(partitions)
                positions = {partition: await self._consumer.position(partition) for partition in partitions}
            except KafkaError as exc:
                _log.warning("Kafka does not answer: %s", str(exc) or type(exc).__name__)
            else:
                self._answered_at = time.monotonic()
                self._lag = sum(max(0, end - positions[partition]) for partition, end in ends.items())
                self._is_caught_up = self._is_caught_up or all(
                    positions[partition] >= end for partition, end in self._ends.items()
                )
                self._take_up_new_partitions(positions)
            await asyncio.sleep(PROBE_SECONDS if self._is_caught_up else PROBE_SECONDS / 10)

    def _take_up_new_partitions(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read new partitions from their first record on, and go on with the others where they are."""
        partitions = self._followed_partitions()
        if len(partitions) <= len(positions):
            return
        _log.info("Topics have grown: %s partitions are read now", len(partitions))
        self._consumer.assign(partitions)
        for partition in partitions:
            self._consumer.seek(partition, positions.get(partition, 0))

    def _new_consumer(self, **arguments: Any) -> AIOKafkaConsumer:  # noqa: ANN401 (aiokafka's arguments)
        return bound_unpacking(
            AIOKafkaConsumer(
                **consumer_arguments(self._kafka),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # also if retention has deleted the next record
                max_partition_fetch_bytes=min(FETCH_BYTES, MAX_RECORD_BYTES),
                **arguments,
            )
        )

    async def _stop(self) -> None:
        await stop_client(self._producer)
        await stop_client(self._consumer)

    def _broker_error(self, error: KafkaError) -> BrokerError:
        return BrokerError(f"Kafka at {self._kafka.bootstrap_servers}: {str(error) or type(error).__name__}")


async def _fetch(consumer: AIOKafkaConsumer, partition: TopicPartition) -> Sequence[Any]:
    return (await consumer.getmany(partition, timeout_ms=200)).get(partition, ())


def _has_id(value: bytes, decision_id: str) -> bool:
    """Return whether a published value is the decision of this id. The bytes are asked first: decoding is slower."""
    if msgspec.json.encode(decision_id) not in value:
        return False
    try:
        return decode_published_decision(value).decision_id == decision_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
