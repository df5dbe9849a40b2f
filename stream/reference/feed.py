"""Catalogue feed: load catalogue and campaigns from their compacted topics, then follow the topics.

Every worker reads all of both topics, so the feed belongs to no consumer group.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clickscore.stream.kafka.log_reader import Fetched, OpenReader, PartitionReader
from clickscore.stream.kafka.rights import RIGHT_ERRORS
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.records import apply_record, read_reference_topics, reference_topics
from clickscore.stream.settings import KafkaSettings

log = logging.getLogger(__name__)

FETCH_MS = 1_000
"""Longest wait of a fetch for new records, ms; without new records the next fetch follows."""

Records = Sequence[ConsumerRecord[bytes, bytes]]
Positions = dict[TopicPartition, int]
"""Offset of the next record to read, by partition."""


class CatalogueFeed:
    """Keeps a catalogue up to date with the topics."""

    def __init__(self, settings: KafkaSettings, catalogue: Catalogue, open_reader: OpenReader) -> None:
        """Build the feed.

        Args:
            settings: Names of topics.
            catalogue: Catalogue to keep up to date.
            open_reader: Opens a reader of the topics.
        """
        self._open_reader = open_reader
        self._catalogue = catalogue
        self._topics = reference_topics(settings)

    async def load(self) -> Positions:
        """Apply every present record of the topics; return the start positions of `follow`."""
        async with self._open_reader() as reader:
            async for record in read_reference_topics(reader, self._topics):
                self.apply([record])
            return {partition: await reader.position(partition) for partition in self._topics}

    async def follow(self, positions: Positions, on_records: Callable[[Records], Awaitable[None]]) -> None:
        """Read the later records until cancelled.

        Args:
            positions: Offset of the first record to read, by partition.
            on_records: Receives the records, and calls `apply` at a moment when no batch uses the catalogue.
        """
        async with self._open_reader() as reader:
            reader.assign(list(positions))
            for partition, position in positions.items():
                reader.seek(partition, position)
            while True:
                for records in (await _fetch(reader)).values():
                    await on_records(records)

    def apply(self, records: Records) -> None:
        """Apply records to the catalogue; an unreadable record is logged and changes nothing."""
        for record in records:
            topic = self._topics[TopicPartition(record.topic, record.partition)]
            error = apply_record(self._catalogue, topic, record.key, record.value)
            if error:
                log.warning("%s, offset %d: ignored: %s", record.topic, record.offset, error)


async def _fetch(reader: PartitionReader) -> Fetched:
    """Return the next records, or an empty fetch while Kafka cannot be read.

    Raises:
        KafkaError: The right to read was taken away.
    """
    try:
        return await reader.getmany(timeout_ms=FETCH_MS)
    except RIGHT_ERRORS:
        raise
    except KafkaError as exc:
        log.warning("catalogue and campaigns cannot be read just now: %s", exc)
        return {}
