"""Sources: recorded events, from a file or a topic's range, as records of partitions that can be read on from a mark.

A file is laid out as `produce` would: the same partitions, the same offsets. It knows no append time, so an event of
the far future is not found out: its `ts` is believed.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import msgspec

from clickscore.stream.event_files.reader import LinePosition
from clickscore.stream.pipeline import Record

KAFKA = "kafka:"
"""What a source that is a topic begins with."""

BATCH = 4096
"""Records that are processed at once, unless one says otherwise: bounds the memory, and changes no decision."""


class FileMark(msgspec.Struct, frozen=True, tag="file"):
    """How far a file has been read."""

    place: LinePosition = LinePosition()
    offsets: tuple[int, ...] = ()
    """The next record's, of each partition."""


class KafkaMark(msgspec.Struct, frozen=True, tag="kafka"):
    """How far a topic has been read: the next offset of each partition."""

    offsets: dict[int, int]


Mark = FileMark | KafkaMark

Batches = list[tuple[int, Sequence[Record]]]
"""Records by partition, each in the order of offsets."""


class Source(Protocol):
    """Recorded events of some partitions, a context manager."""

    size: int
    """How much there is to read, in the unit of `position`; 0 where nobody knows."""

    @property
    def position(self) -> int:
        """How much of it has been read."""
        ...

    @property
    def unreadable(self) -> int:
        """Lines read so far of which no record could be made."""
        ...

    @property
    def mark(self) -> Mark:
        """Where to go on after the batches that were yielded."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def batches(self, records: int = BATCH) -> Iterator[Batches]:
        """Yield what is to be read, about so many records at a time."""
        ...


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A line of a file as the record that a topic would hold."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
