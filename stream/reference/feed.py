"""Reference: follows the catalogue and the campaigns, which no consumer group shares: every worker knows them all."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import Fetched, OpenReader, PartitionReader, read_to_end
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import KafkaSettings

log = logging.getLogger(__name__)

Records = Sequence[ConsumerRecord[bytes, bytes]]
Positions = dict[TopicPartition, int]
"""Offset of the next record to read, by partition."""


class Reference:
    """Reads the compacted topics into a catalogue."""

    def __init__(self, settings: KafkaSettings, catalogue: Catalogue, open_reader: OpenReader) -> None:
        """Build the feed.

        Args:
            settings: Names of topics.
            catalogue: Catalogue to keep up to date.
            open_reader: Opens a reader of the topics.
        """
        self._settings = settings
        self._open_reader = open_reader
        self._catalogue = catalogue
        self._partitions = [TopicPartition(settings.topic(topic.name), 0) for topic in (CATALOGUE, CAMPAIGNS)]

    async def load(self) -> Positions:
        """Take everything that the topics hold now; return where to go on."""
        async with self._open_reader() as consumer:
            async for _, records in read_to_end(consumer, self._partitions):
                self.take(records)
            return {tp: await consumer.position(tp) for tp in self._partitions}

    async def follow(self, positions: Positions, between: Callable[[Records], Awaitable[None]]) -> None:
        """Hand every later record to `between`, which takes it between two batches, until cancelled."""
        async with self._open_reader() as consumer:
            consumer.assign(list(positions))
            for tp, position in positions.items():
                consumer.seek(tp, position)
            while True:
                for records in (await _fetch(consumer)).values():
                    await between(records)

    def take(self, records: Records) -> None:
        """Put records into the catalogue; one that cannot be read is logged and changes nothing."""
        items = self._settings.topic(CATALOGUE.name)
        for record in records:
            update = self._catalogue.update_item if record.topic == items else self._catalogue.update_campaign
            error = update(record.key, record.value)
            if error:
                log.warning("%s, offset %d: ignored: %s", record.topic, record.offset, error)


async def _fetch(consumer: PartitionReader) -> Fetched:
    try:
        return await consumer.getmany(timeout_ms=1000)
    except KafkaError as exc:
        log.warning("catalogue and campaigns cannot be read just now: %s", exc)
        return {}
