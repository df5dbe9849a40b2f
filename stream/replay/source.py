"""Sources: recorded events of a file or a topic, as the records of partitions, readable from any position.

A file has the same partitions as the topic to which `clickscore produce` would send the file, and the same offsets
up to the first `identify` event: in a file, each `identify` event takes the next offset of the user's partition for
its hand-over. A file has no append times, so the time of an event in the far future is believed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import msgspec

from clickscore.stream.event_files.event_reader import LinePosition
from clickscore.stream.pipeline_records import Message, Record
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.settings import KafkaSettings, Settings

BATCH_RECORDS = 4096
"""Records in a batch, by default. The number bounds the memory and changes no decision."""


class OffsetRange(msgspec.Struct, frozen=True):
    """Offsets of a partition to replay: from `begin` up to `end`, without `end`."""

    begin: int
    """First offset to replay."""
    end: int
    """Offset after the last record to replay."""
    warm_up: int = msgspec.field(name="warm")
    """First offset to read. The records from here to `begin` update the state and give no output."""
    log_begin: int
    """First offset of the log, at the time of the resolution."""


class FilePosition(msgspec.Struct, frozen=True, tag="file"):
    """Position in a file."""

    line: LinePosition = msgspec.field(default=LinePosition(), name="place")
    """Position after the lines read."""
    offsets: tuple[int, ...] = ()
    """Offset of the next record of each partition."""


class OffsetPosition(msgspec.Struct, frozen=True, tag="kafka"):
    """Position in a topic."""

    offsets: dict[int, int]
    """Offset of the next record of each partition."""


Position = FilePosition | OffsetPosition

Batches = list[tuple[int, Sequence[Record]]]
"""Records by partition, each list in the order of offsets."""


class HandoverSlot(NamedTuple):
    """Position of the hand-over that follows an `identify` event of a file: the next record of the user's partition."""

    partition: int
    offset: int


class FileRecord(msgspec.Struct, frozen=True, gc=False):
    """A line of a file, or a hand-over, as a record of a topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def handover_batches(slot: HandoverSlot | None, messages: Iterable[Message]) -> Batches:
    """Return the hand-over of a batch as a record, where a worker would have written it into the log.

    Args:
        slot: Position of the hand-over; None where the log has its hand-overs already, or no event identifies a user.
        messages: Hand-overs of the batch, which ends with the `identify` event: one or none.
    """
    if slot is None:
        return []
    return [(slot.partition, [FileRecord(slot.offset, -1, message.key, message.value)]) for message in messages]


class Source(Protocol):
    """Open recorded events of some partitions, a context manager."""

    total: int
    """Amount to read, in the unit of `completed`; 0 if the amount is not known."""

    @property
    def slot(self) -> HandoverSlot | None:
        """Position of the hand-over that the last record of the yielded batches may cause."""
        ...

    @property
    def is_resumable(self) -> bool:
        """Whether a later reading can go on at `position`."""
        ...

    @property
    def completed(self) -> int:
        """Amount read so far, in bytes of a file or offsets of a topic."""
        ...

    @property
    def unreadable(self) -> int:
        """Number of lines read so far without a record."""
        ...

    @property
    def position(self) -> Position:
        """Position after the yielded batches."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def batches(self, records: int = BATCH_RECORDS) -> Iterator[Batches]:
        """Yield the records, about `records` at a time."""
        ...


class SourceSpec(Protocol):
    """Description of recorded events, enough to open the same events again."""

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        ...

    @property
    def cold_partitions(self) -> Mapping[int, int]:
        """First offset read, for each partition whose log begins earlier: the state before is not known."""
        ...

    @property
    def max_workers(self) -> int:
        """Largest number of processes that can share the partitions."""
        ...

    def topic_name(self, settings: KafkaSettings) -> str:
        """Return the name of the topic, with its prefix, for the ids of decisions."""
        ...

    def open(self, settings: Settings, partitions: Collection[int], position: Position | None) -> Source:
        """Open the source.

        Args:
            settings: Address of the broker, and the size limit of an event.
            partitions: Partitions to read.
            position: Position of an earlier reading; None reads from the beginning.
        """
        ...

    def split_warm_up(self, batches: Batches) -> tuple[Batches, Batches]:
        """Return the records that only update the state, and the records to replay."""
        ...

    def offset_ranges(self, partitions: Collection[int]) -> dict[int, OffsetRange]:
        """Return the offsets to compare with published decisions.

        Raises:
            SettingsError: The source is a file: nobody has published decisions on a file.
        """
        ...

    def read_reference(self, settings: KafkaSettings) -> ReferenceLog:
        """Return the records of catalogue and campaigns, and the first epochs; a file has none of these.

        Raises:
            KafkaError: The connection to Kafka is lost.
        """
        ...

    def without_offsets(self) -> Self:
        """Return the request of the user: the spec without the offsets that `latest` or a time resolved to."""
        ...
