"""Records: catalogue and campaigns as a run keeps them."""

from aiokafka import TopicPartition

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import read_to_end, reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import KafkaSettings

Reference = list[tuple[str, bytes | None, bytes | None]]
"""Records of `catalogue-items` and `ad-campaigns`, each with its topic's name without the prefix."""


async def read_reference(settings: KafkaSettings) -> Reference:
    """Return the newest record of each key of catalogue and campaigns, as they stand now.

    Raises:
        KafkaError: Kafka is gone.
    """
    newest: dict[tuple[str, bytes | None], bytes | None] = {}
    names = {settings.topic(topic.name): topic.name for topic in (CATALOGUE, CAMPAIGNS)}
    present = await list_topics(settings)
    async with reader(settings) as consumer:
        partitions = [TopicPartition(name, 0) for name in names if name in present]
        if partitions:
            async for tp, records in read_to_end(consumer, partitions):
                for record in records:
                    newest.pop((names[tp.topic], record.key), None)
                    newest[names[tp.topic], record.key] = record.value
    return [(topic, key, value) for (topic, key), value in newest.items()]


def catalogue_of(reference: Reference) -> Catalogue:
    """Return the catalogue that records make; one that cannot be read changes nothing, as in a worker."""
    catalogue = Catalogue()
    for topic, key, value in reference:
        update = catalogue.update_item if topic == CATALOGUE.name else catalogue.update_campaign
        update(key, value)
    return catalogue
