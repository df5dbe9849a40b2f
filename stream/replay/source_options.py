"""Source options: find the recorded events that a user names, a file or `kafka:TOPIC`."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from clickscore.stream.event_files.time_order import Order, ReadingPlan, plan_reading
from clickscore.stream.replay.file_source import FileSpec, make_file_spec
from clickscore.stream.replay.topic_source import TopicRangeSpec, resolve_topic_range
from clickscore.stream.settings import Settings

TOPIC_SCHEME = "kafka:"
"""Prefix of a source that is a topic."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Recorded events as a user names them."""

    source: str
    """Path of a file, `-` for stdin, or `kafka:` and the name of a topic."""
    file_format: str
    """Format of a file."""
    order: Order
    """Order of reading a file."""
    begin: str | None
    """First record of a topic's range; None for `earliest`."""
    end: str | None
    """End of a topic's range, excluded; None for `latest`."""
    warm_up_from: str | None
    """First record of the warm-up in a topic; None for no warm-up."""
    catalogue: Path | None = None
    """File of catalogue records, for a file of events."""
    campaigns: Path | None = None
    """File of campaigns, for a file of events."""

    def resolve(self, settings: Settings) -> FileSpec | TopicRangeSpec:
        """Return the description of the events.

        Raises:
            ClickscoreError: The file cannot be read, Kafka cannot be reached, or a bound cannot be parsed.
        """
        topic = topic_in(self.source)
        if topic is None:
            path = Path(self.source)
            file_format, reading = plan_reading(path, self.file_format, settings.sessions.lateness_ms)
            reading = reading if self.order == "time" else ReadingPlan(identifies=reading.identifies)
            return make_file_spec(
                path,
                file_format,
                settings.kafka.partitions,
                reading,
                catalogue=self.catalogue,
                campaigns=self.campaigns,
            )
        begin, end = self.begin or "earliest", self.end or "latest"
        return asyncio.run(resolve_topic_range(settings.kafka, topic, begin, end, self.warm_up_from))


def topic_in(source: str) -> str | None:
    """Return the name of the topic in `kafka:NAME`, or None if the source is a file."""
    return source.removeprefix(TOPIC_SCHEME) if source.startswith(TOPIC_SCHEME) else None
