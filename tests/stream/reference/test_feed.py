"""Feed: the catalogue is loaded whole, followed, and spared from records that cannot be read."""

import asyncio

import msgspec
import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.reference.catalogue_history import CatalogueHistory, Offsets
from clickscore.stream.reference.feed import CatalogueFeed, Positions, Records
from clickscore.stream.settings import Settings
from tests.memory_kafka import MemoryLog
from tests.stream.worker.stage import background, until


class Shop:
    """A log with the topics of the catalogue, and a feed that reads them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.feed = CatalogueFeed(Settings().kafka, self.log.open_reader)

    def send_item(self, item_id: str) -> None:
        self.log.append(CATALOGUE.name, 0, item_id.encode(), msgspec.json.encode(Item(item_id=item_id)))

    def send_campaign(self, campaign_id: str) -> None:
        value = msgspec.json.encode(Campaign(campaign_id=campaign_id, item_id="kettle", bid=1.0))
        self.log.append(CAMPAIGNS.name, 0, campaign_id.encode(), value)

    def load(self, oldest: Offsets | None = None) -> CatalogueHistory:
        return asyncio.run(self.feed.load(oldest))[0]

    async def follow(self, position: Offsets) -> None:
        """Load, send an item, and follow until a position."""
        history, positions = await self.feed.load(None)
        self.send_item("mug")

        async def add(records: Records, positions: Positions) -> None:
            self.feed.add(history, records, positions)

        async with background(lambda: self.feed.follow(positions, add)):
            await until(lambda: history.position == position)


def test_load_takes_items_and_campaigns():
    shop = Shop()
    shop.send_item("kettle")
    shop.send_campaign("spring")
    catalogue = shop.load().newest
    assert (catalogue.version, list(catalogue.campaigns)) == (2, ["spring"])


def test_load_returns_where_to_read_on():
    shop = Shop()
    shop.send_item("kettle")
    positions = asyncio.run(shop.feed.load(None))[1]
    assert {tp.topic: position for tp, position in positions.items()} == {CATALOGUE.name: 1, CAMPAIGNS.name: 0}


def test_records_after_the_oldest_epoch_wait():
    shop = Shop()
    shop.send_item("kettle")
    shop.send_item("mug")
    history = shop.load(Offsets(1, 0))
    assert (history.newest.item_ids, history.position) == ({"kettle"}, Offsets(2, 0))


def test_record_that_cannot_be_read_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture):
    shop = Shop()
    shop.log.append(CATALOGUE.name, 0, b"kettle", b"broken")
    shop.send_item("mug")
    assert shop.load().newest.item_ids == {"mug"}
    assert caplog.messages[0].startswith("catalogue-items, offset 0, key kettle: ignored: ")


def test_campaign_that_contradicts_itself_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture):
    shop = Shop()
    shop.send_campaign("spring")
    value = b'{"campaign_id":"spring","item_id":"mug","bid":1,"bid_per":"order","purchase_window_ms":0}'
    shop.log.append(CAMPAIGNS.name, 0, b"spring", value)
    campaign = shop.load().newest.campaign("spring")
    assert campaign is not None
    assert campaign.bid_per == "click"
    assert caplog.messages[0].startswith("ad-campaigns, offset 1, key spring: ignored: bid_per is order, but ")


def test_later_records_are_followed():
    shop = Shop()
    shop.send_item("kettle")
    asyncio.run(shop.follow(Offsets(2, 0)))


def test_fetch_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture):
    shop = Shop()

    async def run() -> None:
        shop.log.fetch_errors.append(KafkaError("gone"))
        await shop.follow(Offsets(1, 0))

    asyncio.run(run())
    assert len(caplog.messages) == 1


def test_ends_are_those_of_the_topics():
    shop = Shop()
    shop.send_campaign("spring")
    assert asyncio.run(shop.feed.end_offsets()) == Offsets(0, 1)
