"""Feed: the catalogue is loaded whole, followed, and spared from records that cannot be read."""

import asyncio

import msgspec
import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.feed import CatalogueFeed
from clickscore.stream.settings import Settings
from tests.memory_kafka import MemoryLog
from tests.stream.worker.stage import background, until


class Shop:
    """A log with the topics of the catalogue, and a feed that reads them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.catalogue = Catalogue()
        self.feed = CatalogueFeed(Settings().kafka, self.catalogue, self.log.open_reader)

    def send_item(self, item_id: str) -> None:
        self.log.append(CATALOGUE.name, 0, item_id.encode(), msgspec.json.encode(Item(item_id=item_id)))

    def send_campaign(self, campaign_id: str) -> None:
        value = msgspec.json.encode(Campaign(campaign_id=campaign_id, item_id="kettle", bid=1.0))
        self.log.append(CAMPAIGNS.name, 0, campaign_id.encode(), value)

    def load(self) -> dict[str, int]:
        """Load; return the position in each topic."""
        return {tp.topic: position for tp, position in asyncio.run(self.feed.load()).items()}

    async def follow(self, updates: int) -> None:
        """Load, send an item, and follow until the catalogue has so many updates."""
        positions = await self.feed.load()
        self.send_item("mug")

        async def between(records) -> None:
            self.feed.apply(records)

        async with background(lambda: self.feed.follow(positions, between)):
            await until(lambda: self.catalogue.version == updates)


def test_load_takes_items_and_campaigns():
    shop = Shop()
    shop.send_item("kettle")
    shop.send_campaign("spring")
    shop.load()
    assert (shop.catalogue.version, list(shop.catalogue.campaigns)) == (2, ["spring"])


def test_load_returns_where_to_read_on():
    shop = Shop()
    shop.send_item("kettle")
    assert shop.load() == {CATALOGUE.name: 1, CAMPAIGNS.name: 0}


def test_record_that_cannot_be_read_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture):
    shop = Shop()
    shop.log.append(CATALOGUE.name, 0, b"kettle", b"broken")
    shop.send_item("mug")
    shop.load()
    assert shop.catalogue.version == 1
    assert caplog.messages[0].startswith("catalogue-items, offset 0: ignored: ")


def test_later_records_are_followed():
    shop = Shop()
    shop.send_item("kettle")
    asyncio.run(shop.follow(updates=2))


def test_fetch_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        shop = Shop()
        positions = await shop.feed.load()
        shop.send_item("mug")
        shop.log.fetch_errors.append(KafkaError("gone"))

        async def between(records) -> None:
            shop.feed.apply(records)

        async with background(lambda: shop.feed.follow(positions, between)):
            await until(lambda: shop.catalogue.version == 1)

    asyncio.run(run())
    assert len(caplog.messages) == 1
