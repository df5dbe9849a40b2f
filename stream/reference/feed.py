"""Catalogue feed: load catalogue and campaigns from their compacted topics, then follow the topics.

Every worker reads all of both topics, so the feed belongs to no consumer group.
"""

import logging
import sys
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import ConsumerRecord, TopicPartition

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.stream.kafka.log_reader import OpenReader, fetch_or_nothing
from clickscore.stream.reference.catalogue_history import NO_OFFSETS, RETAINED_CHANGES, CatalogueHistory, Offsets
from clickscore.stream.reference.records import read_reference_topics, reference_topics
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.terminal_text import safe_text

log = logging.getLogger(__name__)

LOADED_CHANGES = 10_000
"""Records that may wait while the topics are loaded, before the old ones take effect: a bound of the memory."""

Records = Sequence[ConsumerRecord[bytes, bytes]]
Positions = dict[TopicPartition, int]
"""Offset of the next record to read, by partition."""


class CatalogueFeed:
    """Reads the topics into the history of a catalogue."""

    def __init__(self, settings: KafkaSettings, open_reader: OpenReader, retained: int = RETAINED_CHANGES) -> None:
        """Build the feed.

        Args:
            settings: Names of topics.
            open_reader: Opens a reader of the topics.
            retained: Number of newest changes of each topic that are kept although no partition needs them.
        """
        self._open_reader = open_reader
        self._retained = retained
        self._topics = reference_topics(settings)

    async def load(
        self, oldest: Offsets | None, newest: Offsets = NO_OFFSETS, max_changes: int = sys.maxsize
    ) -> tuple[CatalogueHistory, Positions]:
        """Read the present records of the topics; too many records for partitions that lag stay for `follow`.

        Args:
            oldest: Offsets of the oldest epoch in use; without offsets all records take effect at once.
            newest: Offsets of the newest epoch in use: the records before are read in any case.
            max_changes: Number of waiting records with which the reading ends.

        Returns:
            The history, and the start positions of `follow`.
        """
        history = CatalogueHistory(retained=self._retained)
        async with self._open_reader() as reader:
            async for record in read_reference_topics(reader, self._topics):
                self.add(history, [record], {})
                if history.retained > LOADED_CHANGES:
                    history.forget_before(history.position if oldest is None else oldest)
                if history.retained >= max_changes and history.has_reached(newest):
                    positions = {tp: history.position_of(name) for tp, name in self._topics.items()}
                    break
            else:
                positions = {partition: await reader.position(partition) for partition in self._topics}
        self.add(history, [], positions)
        history.forget_before(history.position if oldest is None else oldest)
        return history, positions

    async def follow(self, positions: Positions, on_records: Callable[[Records, Positions], Awaitable[None]]) -> None:
        """Read the later records until cancelled.

        Args:
            positions: Offset of the first record to read, by partition.
            on_records: Receives records and the positions after them, and calls `add` when no batch uses the history.
        """
        async with self._open_reader() as reader:
            reader.assign(list(positions))
            for partition, position in positions.items():
                reader.seek(partition, position)
            while True:
                fetched = await fetch_or_nothing(reader, "catalogue and campaigns")
                reached = {partition: await reader.position(partition) for partition in positions}
                if fetched or reached != positions:
                    await on_records([record for records in fetched.values() for record in records], reached)
                    positions = reached

    async def end_offsets(self) -> Offsets:
        """Return the offsets after the last records of the topics."""
        async with self._open_reader() as reader:
            ends = await reader.end_offsets(list(self._topics))
        by_name = {self._topics[partition]: end for partition, end in ends.items()}
        return Offsets(by_name[CATALOGUE.name], by_name[CAMPAIGNS.name])

    def add(self, history: CatalogueHistory, records: Records, positions: Positions) -> None:
        """Add records to a history; an unreadable record is logged and changes nothing.

        Args:
            history: History of the catalogue.
            records: Records of the topics, in the order of each.
            positions: Offset after the records, by partition.
        """
        for record in records:
            topic = self._topics[TopicPartition(record.topic, record.partition)]
            error = history.add(topic, record.offset, record.key, record.value)
            if error:
                key = safe_text((record.key or b"").decode(errors="replace"))
                log.warning("%s, offset %d, key %s: ignored: %s", record.topic, record.offset, key, error)
        for partition, position in positions.items():
            history.move_to(self._topics[partition], position)
