"""Origins: what recorded events come from, a file or a topic's range."""

from clickscore.schemas.topics import EVENTS
from clickscore.stream.replay.file_source import FileOrigin
from clickscore.stream.replay.source import Batches
from clickscore.stream.replay.topic_source import KafkaOrigin
from clickscore.stream.settings import KafkaSettings

Origin = FileOrigin | KafkaOrigin


def topic_name(origin: Origin, settings: KafkaSettings) -> str:
    """Return the topic's name that decisions are called by; of a file, the one that `produce` would put it on."""
    return settings.topic(EVENTS.name) if isinstance(origin, FileOrigin) else origin.topic


def parted(origin: Origin, batches: Batches) -> tuple[Batches, Batches]:
    """Return the records that only make the state, and those after them."""
    if isinstance(origin, FileOrigin):
        return [], batches
    warming: Batches = []
    due: Batches = []
    for partition, records in batches:
        begin = origin.ranges[partition].begin
        if not records or records[0].offset >= begin:
            due.append((partition, records))
        else:
            warming.append((partition, [record for record in records if record.offset < begin]))
            due.append((partition, [record for record in records if record.offset >= begin]))
    return warming, due
