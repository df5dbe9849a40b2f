"""File source: a file of events as the records of a topic's partitions."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Self

import msgspec
import xxhash

from clickscore.schemas.events import read_identify
from clickscore.schemas.topics import EVENTS
from clickscore.stream.errors import InputFileError, SettingsError
from clickscore.stream.event_files.formats.mapping_files import is_mapping, mapping_text
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.time_order import FILE_ORDER, OrderedEventFile, ReadingPlan
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline_records import Record
from clickscore.stream.replay.reference_files import read_reference_files
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.source import (
    BATCH_RECORDS,
    Batches,
    FilePosition,
    FileRecord,
    HandoverSlot,
    OffsetRange,
    Position,
)
from clickscore.stream.settings import KafkaSettings, Settings

FINGERPRINT_BYTES = 64 * 1024
"""Length of the beginning of a file that is hashed: enough to tell two logs apart, and read in a millisecond."""


class FileSpec(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """Description of a file of events."""

    path: str
    """Path of the file, `-` for stdin."""
    format: str
    partitions: int
    """Number of partitions."""
    fingerprint: str
    """Size and hash of the beginning, and hash of the mapping, so that a changed file of the same name is noticed."""
    reading: ReadingPlan = FILE_ORDER
    """How to read the file: in its own order or by time, and which times are plausible."""
    catalogue: str = ""
    """Path of a file of catalogue records; empty for none."""
    campaigns: str = ""
    """Path of a file of campaigns; empty for none."""

    @property
    def cold_partitions(self) -> Mapping[int, int]:
        """No partition: a file is read from its beginning."""
        return {}

    @property
    def max_workers(self) -> int:
        """Number of partitions; 1 where an event identifies a user: a session moves between partitions."""
        return 1 if self.reading.identifies else self.partitions

    def topic_name(self, settings: KafkaSettings) -> str:
        """Return the name of the topic to which `clickscore produce` would send the file."""
        return settings.topic(EVENTS.name)

    def open(self, settings: Settings, partitions: Collection[int], position: Position | None) -> "FileSource":
        """Open the file.

        Args:
            settings: Not used: a file needs no broker.
            partitions: Partitions to read.
            position: Position of an earlier reading; None reads from the beginning.
        """
        del settings
        start = position if isinstance(position, FilePosition) else FilePosition(offsets=(0,) * self.partitions)
        return FileSource(Path(self.path), self.format, partitions, start, self.reading)

    def split_warm_up(self, batches: Batches) -> tuple[Batches, Batches]:
        """Return no warm-up records, and all records to replay: a file has no warm-up."""
        return [], batches

    def offset_ranges(self, partitions: Collection[int]) -> dict[int, OffsetRange]:
        """Refuse: nobody has published decisions on a file.

        Raises:
            SettingsError: Always.
        """
        del partitions
        message = f"{self.path} is a file: only a topic (kafka:NAME) can be compared with published decisions"
        raise SettingsError(message)

    def read_reference(self, settings: KafkaSettings) -> ReferenceLog:
        """Return the records of the files of catalogue and campaigns, if any.

        Raises:
            InputFileError: A file or a line cannot be read.
        """
        del settings
        catalogue, campaigns = (Path(path) if path else None for path in (self.catalogue, self.campaigns))
        return read_reference_files(catalogue, campaigns)

    def without_offsets(self) -> Self:
        """Return the spec itself: a file has no offsets to resolve."""
        return self


def make_file_spec(
    path: Path,
    file_format: str,
    partitions: int,
    reading: ReadingPlan = FILE_ORDER,
    *,
    catalogue: Path | None = None,
    campaigns: Path | None = None,
) -> FileSpec:
    """Return the description of a file.

    Args:
        path: Path of the file, `-` for stdin.
        file_format: str of the lines; `auto` finds the format.
        partitions: Number of partitions to divide the users into.
        reading: How to read the file (`plan_reading`).
        catalogue: File of catalogue records.
        campaigns: File of campaigns.

    Raises:
        InputFileError: The file cannot be read.
    """
    fingerprint = ""
    if str(path) != "-":
        try:
            with path.open("rb") as file:
                digest = xxhash.xxh3_64_hexdigest(file.read(FINGERPRINT_BYTES))
                fingerprint = f"{path.stat().st_size}-{digest}"
        except OSError as exc:
            message = f"{path} cannot be read: {exc.strerror or exc}"
            raise InputFileError(message) from exc
    if is_mapping(file_format):
        fingerprint += f"-{xxhash.xxh3_64_hexdigest(mapping_text(file_format))}"
    return FileSpec(
        path=str(path),
        format=file_format,
        partitions=partitions,
        fingerprint=fingerprint,
        reading=reading,
        catalogue=str(catalogue or ""),
        campaigns=str(campaigns or ""),
    )


class FileSource:
    """The lines of a file that belong to some partitions."""

    def __init__(
        self,
        path: Path,
        file_format: str,
        partitions: Collection[int],
        start: FilePosition,
        reading: ReadingPlan = FILE_ORDER,
    ) -> None:
        """Open a file.

        Args:
            path: Path of the file, `-` for stdin.
            file_format: str of the lines.
            partitions: Partitions to read.
            start: Start of the reading.
            reading: How to read the file.
        """
        self.unreadable = 0
        self.slot: HandoverSlot | None = None
        """Position of the hand-over that the last record of the yielded batches may cause."""
        self.is_resumable = True
        """Whether a later reading can go on at `position`: not in the middle of the lines that were read together."""
        self._partitions = frozenset(partitions)
        partition_count = len(start.offsets)

        def keeps(line: Line) -> bool:
            return line.error is not None or partition_of(line.routing, partition_count) in self._partitions

        keeps_line = keeps if reading.sorts else None  # `batches` finds the partition of a line anyway
        self._file = OrderedEventFile(path, file_format, reading, start.line, keeps_line)
        self.total = self._file.size
        self._next_offsets = list(start.offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def completed(self) -> int:
        """Number of bytes read from disk, before decompression."""
        return self._file.bytes_read

    @property
    def position(self) -> FilePosition:
        """Position after the yielded batches."""
        return FilePosition(self._file.position, tuple(self._next_offsets))

    def batches(self, records: int = BATCH_RECORDS) -> Iterator[Batches]:
        """Yield the records of the file, about `records` at a time, in the order of partitions.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        partition_count, partitions, next_offsets = len(self._next_offsets), self._partitions, self._next_offsets
        by_partition: dict[int, list[Record]] = {}
        count = 0
        for chunk in self._file.chunks():
            self.slot = None
            for line in chunk:
                if line.error is not None:
                    self.unreadable += 1
                    continue
                partition = partition_of(line.routing, partition_count)
                if partition not in partitions:
                    continue
                batch = by_partition.get(partition)
                if batch is None:
                    batch = by_partition[partition] = []
                batch.append(FileRecord(next_offsets[partition], -1, line.key, line.value))  # no append time
                next_offsets[partition] += 1
                count += 1
                event = read_identify(line.value)
                if event is not None:  # its hand-over comes before all later lines
                    user_partition = partition_of(event.identified_as.encode(), partition_count)
                    self.slot = HandoverSlot(user_partition, next_offsets[user_partition])
                    next_offsets[user_partition] += 1
                    self.is_resumable = False
                    yield sorted(by_partition.items())
                    self.slot, by_partition, count = None, {}, 0
            was_cut, self.is_resumable = not self.is_resumable, True
            if count >= records or was_cut or (self._file.live and not chunk):
                yield sorted(by_partition.items())
                by_partition, count = {}, 0
        if self._file.live:  # a file was checked before, by `plan_reading`
            self._file.require_event()
        yield sorted(by_partition.items())
