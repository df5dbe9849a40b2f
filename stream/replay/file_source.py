"""File source: a file of events as the records of a topic's partitions."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

import msgspec
import xxhash

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.reader import EventFile
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Record
from clickscore.stream.replay.source import BATCH, Batches, FileMark, Mark, Recorded
from clickscore.stream.settings import KafkaSettings

HEAD_BYTES = 64 * 1024
"""Of a file, by which it is known again."""


class FileOrigin(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file that is to be read."""

    path: str
    format: Format
    partitions: int
    fingerprint: str
    """Of its size and its beginning, so that another file of the same name is noticed."""

    def open(self, settings: KafkaSettings, mine: Collection[int], mark: Mark | None) -> "FileSource":
        """Open it, to read some partitions from a mark on."""
        del settings
        start = mark if isinstance(mark, FileMark) else FileMark(offsets=(0,) * self.partitions)
        return FileSource(Path(self.path), self.format, mine, start)


def file_origin(path: Path, file_format: Format, partitions: int) -> FileOrigin:
    """Return a file as an origin.

    Raises:
        InputFileError: It cannot be read.
    """
    fingerprint = ""
    if str(path) != "-":
        try:
            with path.open("rb") as file:
                fingerprint = f"{path.stat().st_size}-{xxhash.xxh3_64_hexdigest(file.read(HEAD_BYTES))}"
        except OSError as exc:
            message = f"{path} cannot be read: {exc.strerror or exc}"
            raise InputFileError(message) from exc
    return FileOrigin(path=str(path), format=file_format, partitions=partitions, fingerprint=fingerprint)


class FileSource:
    """The lines of a file that some partitions hold."""

    def __init__(self, path: Path, file_format: Format, mine: Collection[int], start: FileMark) -> None:
        self.unreadable = 0
        self._file = EventFile(path, file_format, start.place)
        self.size = self._file.size
        self._mine = frozenset(mine)
        self._next = list(start.offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def position(self) -> int:
        """Bytes read, as they lie on disk."""
        return self._file.bytes_read

    @property
    def mark(self) -> FileMark:
        """Where to go on."""
        return FileMark(self._file.position, tuple(self._next))

    def batches(self, records: int = BATCH) -> Iterator[Batches]:
        """Yield the file's records, the partitions of a batch in order."""
        partitions, mine, following = len(self._next), self._mine, self._next
        found: dict[int, list[Record]] = {}
        held = 0
        for chunk in self._file.chunks():
            for line in chunk:
                if line.error is not None:
                    self.unreadable += 1
                    continue
                partition = partition_of(line.routing, partitions)
                if partition not in mine:
                    continue
                of_partition = found.get(partition)
                if of_partition is None:
                    of_partition = found[partition] = []
                of_partition.append(Recorded(following[partition], -1, line.key, line.value))
                following[partition] += 1
                held += 1
            if held >= records or (self._file.live and not chunk):
                yield sorted(found.items())
                found, held = {}, 0
        yield sorted(found.items())
