"""Reference records: both topics are read to their ends, and a catalogue follows from the records."""

import asyncio

import msgspec
from aiokafka import TopicPartition

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.reference.records import read_reference_topics, reference_topics
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
