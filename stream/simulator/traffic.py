"""Simulate: the synthetic shop on a real Kafka, where its shoppers read the decisions and answer them."""

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
from clickscore.stream.kafka.client import connection
from clickscore.stream.kafka.topics import check_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.shop.assortment import Assortment
from clickscore.stream.simulator.shop.live import LiveShop
from clickscore.stream.simulator.shop.records import TRUTH_HEADER, Truth, encode_truth

STEP_SECONDS = 0.02
"""Between two looks at who acts now: below what a shopper would notice."""
_LINGER_MS = 2  # a step's records leave together
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Onlooker(Protocol):
    """Who is told what passes."""

    def sent(self, event: AnyEvent, truth: Truth) -> None:
        """An event went to Kafka."""
        ...

    def decided(self, topic: str, decision: AnyDecision, appended_at: int) -> None:
        """A decision was read; the broker appended it then, ms. `topic` is its name without prefix."""
        ...

    def gave_up(self) -> None:
        """A dead letter was read."""
        ...


async def publish_assortment(settings: Settings, assortment: Assortment) -> None:
    """Put the catalogue and the campaigns on their topics, and return once they are acknowledged.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
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


async def keep_shop(settings: Settings, shop: LiveShop, onlooker: Onlooker) -> None:
    """Keep the shop open until cancelled: send what shoppers do, and let them see what was decided.

    Raises:
        TopicMissingError: The topics are not there.
        BrokerError: The broker cannot be reached, or refuses.
    """
    partitions = await check_topics(settings)
    async with _producer(settings) as producer, _consumer(settings, partitions) as consumer:
        await race(_trade(settings, producer, shop, onlooker), _listen(settings, consumer, shop, onlooker))


async def race(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until one ends, by itself or by an error, which is raised; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in ended:
        task.result()


async def _trade(settings: Settings, producer: AIOKafkaProducer, shop: LiveShop, onlooker: Onlooker) -> None:
    events, catalogue = settings.topic(EVENTS.name), settings.topic(CATALOGUE.name)
    failures: list[BaseException] = []

    def acknowledged(record: "asyncio.Future[Any]") -> None:
        if not record.cancelled() and (failure := record.exception()):
            failures.append(failure)

    async def send(topic: str, value: bytes, key: str, headers: list[tuple[str, bytes]] | None = None) -> None:
        # Waits while the record's partition has a full batch that is unsent: that bounds what is on its way.
        record = await producer.send(topic, value, key.encode(), headers=headers)
        record.add_done_callback(acknowledged)

    now = 0
    while not failures:
        # A wall clock may step back; the shop's may not.
        now = max(now, int(time.time() * 1000))
        out = shop.advance(now)
        for event, truth in out.events:
            await send(events, encode_event(event), event.user_id, [(TRUTH_HEADER, encode_truth(truth))])
            onlooker.sent(event, truth)
        for user_id, record in out.spoiled:
            await send(events, record, user_id)
        for item in out.items:
            await send(catalogue, encode_item(item), item.item_id)
        await asyncio.sleep(STEP_SECONDS)
    raise failures[0]


async def _listen(settings: Settings, consumer: AIOKafkaConsumer, shop: LiveShop, onlooker: Onlooker) -> None:
    names = {settings.topic(topic.name): topic.name for topic in (RECOMMENDATIONS, ADS, DEAD_LETTERS)}
    while True:
        batches = await consumer.getmany(timeout_ms=500)
        for partition, records in batches.items():
            topic = names[partition.topic]
            for record in records:
                if topic == DEAD_LETTERS.name:
                    onlooker.gave_up()
                    continue
                decision = _decoded(record.value)
                shop.receive(decision)
                onlooker.decided(topic, decision, record.timestamp)


def _decoded(value: bytes | None) -> AnyDecision:
    try:
        return decode_decision(value or b"")
    except msgspec.DecodeError as exc:
        message = f"a decision topic holds what is no decision: {exc}. Is another program writing to it?"
        raise BrokerError(message) from exc


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncGenerator[AIOKafkaProducer]:
    """Give a producer that is connected; what Kafka says against it becomes a BrokerError.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    producer = AIOKafkaProducer(
        **connection(settings), linger_ms=_LINGER_MS, request_timeout_ms=settings.broker_wait_ms
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
async def _consumer(settings: Settings, partitions: int) -> AsyncGenerator[AIOKafkaConsumer]:
    """Give a consumer of what is decided from now on; without a group, since every shop sees everything."""
    consumer = AIOKafkaConsumer(**connection(settings), group_id=None, enable_auto_commit=False)
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
    """Stop a client; how, is no news: without its broker it takes long, or ends by a cancellation of its own making."""
    stopping = asyncio.create_task(client.stop())
    await asyncio.wait([stopping], timeout=_STOP_SECONDS)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
