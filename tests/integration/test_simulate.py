"""The simulated shop on a real broker: what it publishes can be read, and says what was true."""

import asyncio

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from clickscore.schemas.catalogue import decode_campaign, decode_item
from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.client import client_arguments
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.kafka.topics import create_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.demo_metrics import DemoMetrics
from clickscore.stream.simulator.shop.live import LiveShop
from clickscore.stream.simulator.shop.shop_events import TRUTH_HEADER, decode_truth
from clickscore.stream.simulator.shop.shoppers import make_shop
from clickscore.stream.simulator.traffic import publish_assortment, run_shop

pytestmark = pytest.mark.kafka

SHOP = make_shop(7, shoppers=500)


def open_for(settings: Settings, seconds: float) -> DemoMetrics:
    async def opened() -> None:
        await asyncio.wait_for(run_shop(settings.kafka, live, counts), seconds)

    live = LiveShop(SHOP, "t", rate=200.0)
    counts = DemoMetrics(0, live.variants, live.shelves)
    with pytest.raises(TimeoutError):
        asyncio.run(opened())
    return counts


def read(settings: Settings, topic: str):
    async def read_all():
        consumer = AIOKafkaConsumer(
            settings.kafka.topic(topic), **client_arguments(settings.kafka), auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            records = []
            while len(records) < sum(ends.values()):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records += batch
            return records
        finally:
            await consumer.stop()

    return asyncio.run(asyncio.wait_for(read_all(), 30))


def test_catalogue_and_campaigns_are_published_under_their_ids(settings):
    asyncio.run(publish_assortment(settings.kafka, SHOP.assortment))
    items = {record.key.decode(): decode_item(record.value) for record in read(settings, CATALOGUE.name)}
    assert items == {item.item_id: item for item in SHOP.assortment.items}
    campaigns = {record.key.decode(): decode_campaign(record.value) for record in read(settings, CAMPAIGNS.name)}
    assert campaigns == {campaign.campaign_id: campaign for campaign in SHOP.assortment.campaigns}


def test_events_carry_their_truth_and_lie_where_every_client_looks_for_the_user(settings):
    counts = open_for(settings, 4.0)
    records = read(settings, EVENTS.name)
    stated = [record for record in records if record.headers]
    assert len(stated) >= counts.events > 200  # one may have been on its way when the shop closed
    for record in stated:
        event, truth = decode_record(record.value), decode_truth(dict(record.headers)[TRUTH_HEADER])
        assert event.event_id == truth.event_id
        assert record.key.decode() == event.user_id
        assert record.partition == partition_of(record.key, settings.kafka.partitions)


def test_records_without_truth_are_the_spoiled_ones(settings):
    open_for(settings, 4.0)
    for record in read(settings, EVENTS.name):
        if not record.headers:
            with pytest.raises(msgspec.DecodeError):
                decode_record(record.value)


def test_shop_says_which_topics_are_missing(broker):
    settings = Settings.of(bootstrap_servers=broker, topic_prefix="nowhere-")
    live = LiveShop(SHOP, "t", rate=200.0)
    with pytest.raises(TopicMissingError, match="nowhere-clickstream-events"):
        asyncio.run(run_shop(settings.kafka, live, DemoMetrics(0, live.variants, live.shelves)))


def test_shop_whose_broker_goes_away_ends_and_says_so(own_broker, topic_prefix):
    settings = Settings.of(
        bootstrap_servers=own_broker.bootstrap_servers, topic_prefix=topic_prefix, broker_wait_ms=5_000
    )

    async def open_until_the_broker_stops() -> None:
        await create_topics(settings.kafka)
        live = LiveShop(SHOP, "t", rate=200.0)
        counts = DemoMetrics(0, live.variants, live.shelves)
        shop = asyncio.create_task(run_shop(settings.kafka, live, counts))
        while not counts.events:  # noqa: ASYNC110 (counts in the same loop)
            await asyncio.sleep(0.1)
        await asyncio.to_thread(own_broker.stop)
        await shop

    with pytest.raises(BrokerError, match=settings.kafka.bootstrap_servers):
        asyncio.run(asyncio.wait_for(open_until_the_broker_stops(), 60))
