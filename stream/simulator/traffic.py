"""Traffic: run the synthetic shop on a real Kafka. Its shoppers read the decisions and react to the recommendations."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import encode as encode_item
from clickscore.schemas.decisions import AnyDecision, decode_decision
from clickscore.schemas.events import AnyEvent, encode_event
from clickscore.schemas.topics import ADS, CAMPAIGNS, CATALOGUE, DEAD_LETTERS, EVENTS, RECOMMENDATIONS
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import client_arguments, consumer_arguments
from clickscore.stream.kafka.topics import check_topics
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.simulator.shop.assortment import Assortment
from clickscore.stream.simulator.shop.live import LiveShop
from clickscore.stream.simulator.shop.shop_events import TRUTH_HEADER, Truth, encode_truth

STEP_SECONDS = 0.02
"""Pause between two steps of the shop: shorter than a shopper would notice."""
_LINGER_MS = 2  # the records of one step share a request
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Observer(Protocol):
    """Observer of a shop's traffic."""

    def sent(self, event: AnyEvent, truth: Truth) -> None:
        """Handle an event that was sent to Kafka."""
        ...

    def decided(self, topic: str, decision: AnyDecision, appended_at: int) -> None:
        """Handle a decision that was read from Kafka.

        Args:
            topic: Name of the decision's topic, without prefix.
            decision: The decision.
            appended_at: Append time of the decision at the broker, ms since the epoch.
        """
        ...

    def dead_lettered(self) -> None:
        """Handle a dead letter that was read from Kafka."""
        ...


async def publish_assortment(settings: KafkaSettings, assortment: Assortment) -> None:
    """Write the catalogue and the campaigns to their topics, and return after the acknowledgement.

    Raises:
        BrokerError: The broker cannot be reached, or refuses the records.
    """
    async with _producer(settings) as producer:
        records = [
            await producer.send(settings.topic(topic), encode_item(value), key.encode())
            for topic, values in (
                (CATALOGUE.name, [(item.item_id, item) for item in assortment.items]),
                (CAMPAIGNS.name, [(campaign.campaign_id, campaign) for campaign in assortment.campaigns]),
            )
            for key, value in values
        ]
        await asyncio.gather(*records)


async def run_shop(settings: KafkaSettings, shop: LiveShop, observer: Observer) -> None:
    """Run the shop until cancelled: send the actions of shoppers, and show the decisions to the shoppers.

    Args:
        settings: Broker and topics.
        shop: The open shop.
        observer: Observer of all events, decisions and dead letters.

    Raises:
        TopicMissingError: A topic does not exist.
        BrokerError: The broker cannot be reached, or refuses the records.
    """
    partitions = await check_topics(settings)
    async with _producer(settings) as producer, _consumer(settings, partitions) as consumer:
        await race(
            _send_events(settings, producer, shop, observer), _read_decisions(settings, consumer, shop, observer)
        )


async def race(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until the first coroutine ends, cancel the rest, and raise the error of the ended coroutine."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in ended:
        task.result()


async def _send_events(settings: KafkaSettings, producer: AIOKafkaProducer, shop: LiveShop, observer: Observer) -> None:
    events, catalogue = settings.topic(EVENTS.name), settings.topic(CATALOGUE.name)
    failures: list[BaseException] = []

    def acknowledged(record: "asyncio.Future[Any]") -> None:
        if not record.cancelled() and (failure := record.exception()):
            failures.append(failure)

    async def send(topic: str, value: bytes, key: str, headers: list[tuple[str, bytes]] | None = None) -> None:
        # `send` waits while the partition has a full unsent batch; so the records in flight are bounded.
        record = await producer.send(topic, value, key.encode(), headers=headers)
        record.add_done_callback(acknowledged)

    now = 0
    while not failures:
        # A wall clock may step back; the shop's time may not.
        now = max(now, int(time.time() * 1000))
        out = shop.advance(now)
        for event, truth in out.events:
            await send(events, encode_event(event), event.user_id, [(TRUTH_HEADER, encode_truth(truth))])
            observer.sent(event, truth)
        for user_id, record in out.malformed:
            await send(events, record, user_id)
        for item in out.items:
            await send(catalogue, encode_item(item), item.item_id)
        await asyncio.sleep(STEP_SECONDS)
    raise failures[0]


async def _read_decisions(
    settings: KafkaSettings, consumer: AIOKafkaConsumer, shop: LiveShop, observer: Observer
) -> None:
    names = {settings.topic(topic.name): topic.name for topic in (RECOMMENDATIONS, ADS, DEAD_LETTERS)}
    while True:
        batches = await consumer.getmany(timeout_ms=500)
        for partition, records in batches.items():
            topic = names[partition.topic]
            for record in records:
                if topic == DEAD_LETTERS.name:
                    observer.dead_lettered()
                    continue
                decision = _decoded(record.value)
                shop.receive(decision)
                observer.decided(topic, decision, record.timestamp)


def _decoded(value: bytes | None) -> AnyDecision:
    try:
        return decode_decision(value or b"")
    except msgspec.DecodeError as exc:
        message = f"a decision topic holds what is no decision: {exc}. Is another program writing to it?"
        raise BrokerError(message) from exc


@asynccontextmanager
async def _producer(settings: KafkaSettings) -> AsyncGenerator[AIOKafkaProducer]:
    """Provide a connected producer, and turn Kafka's errors into a BrokerError.

    Raises:
        BrokerError: The broker cannot be reached, or refuses the records.
    """
    producer = AIOKafkaProducer(
        **client_arguments(settings), linger_ms=_LINGER_MS, request_timeout_ms=settings.broker_wait_ms
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await producer.start()
        yield producer
    except (KafkaError, OSError) as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
    finally:
        await _stop(producer)


@asynccontextmanager
async def _consumer(settings: KafkaSettings, partitions: int) -> AsyncGenerator[AIOKafkaConsumer]:
    """Provide a consumer of all new decisions. The consumer has no group, because every shop reads all decisions."""
    consumer = bound_unpacking(
        AIOKafkaConsumer(**consumer_arguments(settings), group_id=None, enable_auto_commit=False)
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await consumer.start()
            topics = [settings.topic(topic.name) for topic in (RECOMMENDATIONS, ADS, DEAD_LETTERS)]
            consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(partitions)])
            await consumer.seek_to_end()
        yield consumer
    finally:
        await _stop(consumer)


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop a client within a time limit. A client without a broker may hang, or may cancel its own stop."""
    stopping = asyncio.create_task(client.stop())
    await asyncio.wait([stopping], timeout=_STOP_SECONDS)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
