"""Reference records: both topics are read to their ends, and a catalogue follows from the records."""

import asyncio

import msgspec
from aiokafka import TopicPartition

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.reference.records import (
    NewestRecords,
    ReferenceRecords,
    build_catalogue,
    read_reference_topics,
    reference_topics,
)
from clickscore.stream.settings import KafkaSettings
from tests.memory_kafka import MemoryLog

SOLD_OUT = msgspec.json.encode(Item(item_id="kettle", stock=0))
SPRING = msgspec.json.encode(Campaign(campaign_id="spring", item_id="kettle", bid=1.0))


def test_topics_have_the_prefix_and_one_partition() -> None:
    assert reference_topics(KafkaSettings(topic_prefix="shop-")) == {
        TopicPartition("shop-catalogue-items", 0): CATALOGUE.name,
        TopicPartition("shop-ad-campaigns", 0): CAMPAIGNS.name,
    }


def test_records_of_both_topics_are_read() -> None:
    log = MemoryLog()
    log.append(CATALOGUE.name, 0, b"kettle", SOLD_OUT)
    log.append(CAMPAIGNS.name, 0, b"spring", SPRING)

    async def read() -> set[tuple[str, bytes | None]]:
        async with log.open_reader() as reader:
            topics = reference_topics(KafkaSettings())
            return {(record.topic, record.key) async for record in read_reference_topics(reader, topics)}

    assert asyncio.run(read()) == {(CATALOGUE.name, b"kettle"), (CAMPAIGNS.name, b"spring")}


def test_catalogue_of_records_has_items_and_campaigns() -> None:
    catalogue = build_catalogue([(CATALOGUE.name, b"kettle", SOLD_OUT), (CAMPAIGNS.name, b"spring", SPRING)])
    assert (catalogue.out_of_stock, list(catalogue.campaigns)) == ({"kettle"}, ["spring"])


def test_record_that_cannot_be_read_changes_nothing() -> None:
    records: ReferenceRecords = [(CATALOGUE.name, b"kettle", SOLD_OUT), (CATALOGUE.name, b"kettle", b"broken")]
    assert build_catalogue(records).out_of_stock == {"kettle"}


def test_record_that_a_worker_ignores_does_not_replace_the_record_before() -> None:
    in_stock = msgspec.json.encode(Item(item_id="kettle", stock=5))
    newest = NewestRecords()
    newest.add(CATALOGUE.name, b"kettle", in_stock)
    newest.add(CATALOGUE.name, b"pot", None)
    newest.add(CAMPAIGNS.name, b"spring", SPRING)
    newest.add(CATALOGUE.name, b"kettle", SOLD_OUT)
    newest.add(CATALOGUE.name, b"kettle", b"broken")
    newest.add(CATALOGUE.name, b"\xff", SOLD_OUT)
    newest.add(CATALOGUE.name, b"pot", SOLD_OUT)
    newest.add(CAMPAIGNS.name, b"spring", b"{}")
    assert newest.records() == [
        (CATALOGUE.name, b"pot", None),
        (CAMPAIGNS.name, b"spring", SPRING),
        (CATALOGUE.name, b"kettle", SOLD_OUT),
    ]
