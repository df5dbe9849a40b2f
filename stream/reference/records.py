"""Reference records: read the compacted topics of the catalogue, and apply records to a catalogue."""

from collections.abc import AsyncGenerator, Collection

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import PartitionReader, open_reader, read_to_end
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import KafkaSettings

ReferenceRecords = list[tuple[str, bytes | None, bytes | None]]
"""Records of `catalogue-items` and `ad-campaigns`: name of the topic without the prefix, key and value."""


def reference_topics(settings: KafkaSettings) -> dict[TopicPartition, str]:
    """Return the partitions of the catalogue's topics, each with the topic's name without the prefix.

    Both topics have a single partition, because every worker reads all records.
    """
    return {TopicPartition(settings.topic(topic.name), 0): topic.name for topic in (CATALOGUE, CAMPAIGNS)}


async def read_reference_topics(
    reader: PartitionReader, topics: Collection[TopicPartition]
) -> AsyncGenerator["ConsumerRecord[bytes, bytes]"]:
    """Yield the records of the catalogue's topics, from the first record to the present end of each.

    Args:
        reader: An open reader, which stays at the ends of the topics.
        topics: Partitions of `reference_topics`.
    """
    async for _, records in read_to_end(reader, topics):
        for record in records:
            yield record


class NewestRecords:
    """The newest record of each key. A record that a worker ignores does not replace the record before."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, bytes | None], bytes | None] = {}
        self._catalogue = Catalogue()

    def add(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Take the next record of a topic.

        Args:
            topic: Name of the topic without the prefix.
            key: Id of the item or the campaign.
            value: The item or the campaign as JSON.
        """
        if apply_record(self._catalogue, topic, key, value):
            return
        self._newest.pop((topic, key), None)  # the records keep the order of the log, so the key moves to the end
        self._newest[topic, key] = value

    def records(self) -> ReferenceRecords:
        """Return the records in the order of the log."""
        return [(topic, key, value) for (topic, key), value in self._newest.items()]


async def read_reference(settings: KafkaSettings) -> ReferenceRecords:
    """Return the newest readable record of each key of catalogue and campaigns. A missing topic has no records.

    Raises:
        BrokerError: The broker cannot be reached.
        KafkaError: The broker is lost while the topics are read.
    """
    existing = await list_topics(settings)
    topics = {partition: name for partition, name in reference_topics(settings).items() if partition.topic in existing}
    if not topics:
        return []
    newest = NewestRecords()
    async with open_reader(settings) as reader:
        async for record in read_reference_topics(reader, topics):
            newest.add(topics[TopicPartition(record.topic, record.partition)], record.key, record.value)
    return newest.records()


def apply_record(catalogue: Catalogue, topic: str, key: bytes | None, value: bytes | None) -> str | None:
    """Apply a record to a catalogue.

    Args:
        catalogue: Catalogue to change.
        topic: Name of the record's topic without the prefix.
        key: Id of the item or the campaign.
        value: The item or the campaign as JSON; null and empty are tombstones.

    Returns:
        The reason why the record is ignored; None if the record was applied.
    """
    update = catalogue.update_item if topic == CATALOGUE.name else catalogue.update_campaign
    return update(key, value)


def build_catalogue(records: ReferenceRecords) -> Catalogue:
    """Return the catalogue of these records; an unreadable record is ignored, as in a worker."""
    catalogue = Catalogue()
    for topic, key, value in records:
        apply_record(catalogue, topic, key, value)
    return catalogue
