"""Topic reader: a reader of all partitions of some topics."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.topics import Topic
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.log_reader import LogReader, open_reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import KafkaSettings


@asynccontextmanager
async def open_partitions(
    settings: KafkaSettings, topics: Iterable[Topic]
) -> AsyncGenerator[tuple[LogReader, list[TopicPartition]]]:
    """Yield a reader and all partitions of topics.

    Args:
        settings: Connection, and names of topics.
        topics: The topics.

    Raises:
        TopicMissingError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    names = [settings.topic(topic.name) for topic in topics]
    counts = await list_topics(settings, {name: {"read"} for name in names})
    missing = [name for name in names if name not in counts]
    if missing:
        message = f"topic {missing[0]} is missing. Make it with `clickscore topics create`"
        raise TopicMissingError(message)
    partitions = [TopicPartition(name, partition) for name in names for partition in range(counts[name])]
    try:
        async with open_reader(settings) as reader:
            yield reader, partitions
    except KafkaError as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {str(exc) or type(exc).__name__}"
        raise BrokerError(message) from exc
