"""Reference records: read the compacted topics of the catalogue and of the campaigns."""

from collections.abc import AsyncGenerator, Collection

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import PartitionReader, read_to_end
from clickscore.stream.settings import KafkaSettings


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
