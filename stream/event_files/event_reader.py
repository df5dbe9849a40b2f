"""Reader: read the lines of an event file, from the beginning or from the position of an earlier reading.

A file may be plain, gzip, Zstandard or Parquet: the first bytes tell. `-` is stdin.
"""

import csv
import io
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.compression import BrokenDataError, Decompressor, find_decompressor, has_magic
from clickscore.stream.event_files.formats.json_lines import json_line
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.mapping_files import is_mapping, read_mapping
from clickscore.stream.event_files.formats.registry import ROW_FORMATS
from clickscore.stream.event_files.formats.rows import RowFormat, row_line, split_row
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.parquet import PARQUET_MAGIC, ParquetEvents

CHUNK_BYTES = 64 * 1024
"""Bytes of a read: the usual size of a pipe's buffer."""

MAX_LINE_BYTES = 1024 * 1024
"""Length limit of a line. No event comes near the limit, and a file without line ends must not fill the memory."""

LIVE_WAIT_SECONDS = 0.1
"""Time limit of a read from a silent pipe, so that the caller can do other work."""


class LinePosition(NamedTuple):
    """Position in a file, the start of a later reading."""

    number: int = 0
    """Number of lines read, or of rows of a Parquet file."""
    offset: int = 0
    """Number of decompressed bytes of these lines; 0 in a Parquet file."""


BEGINNING = LinePosition()


class _RowParser:
    """Makes lines of rows of text; a header, if the format has a header, tells where each column is."""

    def __init__(self, path: Path, row_format: RowFormat) -> None:
        self._path = path
        self._format = row_format
        self._columns: tuple[int, ...] = ()

    def parse(self, number: int, text: bytes) -> Line | None:
        """Return the line of a row, or None for the header.

        Raises:
            InputFileError: The header lacks a column.
        """
        if number == 1 and self._format.has_header:
            self._read_header(text)
            return None
        row = text.removesuffix(b"\r")
        try:
            cells = split_row(row)
            if self._columns:
                cells = [cells[column] for column in self._columns]
        except IndexError:
            return Line(number, error="fewer columns than the header has")
        except UnicodeDecodeError:
            return Line(number, error="the row is not UTF-8")
        except csv.Error as exc:
            return Line(number, error=str(exc))
        return row_line(number, cells, row, self._format)

    def _read_header(self, text: bytes) -> None:
        names = text.decode("utf-8-sig", errors="replace").strip().split(",")
        missing = [name for name in self._format.columns if name not in names]
        if missing:
            message = (
                f"{self._path} is not a {self._format.name} file: its first line does not name {', '.join(missing)}"
            )
            raise InputFileError(message)
        self._columns = tuple(names.index(name) for name in self._format.columns)


class EventFile:
    """An open event file, a context manager: iterate over its lines, or over `chunks` of lines as they arrive.

    Raises:
        InputFileError: The file cannot be opened or read to the end, or has another format.
    """

    def __init__(self, path: Path, file_format: str, start: LinePosition = BEGINNING) -> None:
        """Open a file.

        Args:
            path: Path of the file, `-` for stdin.
            file_format: Name of the format of the lines, or path of a mapping.
            start: Start of the reading: the `position` of an earlier reading.
        """
        self.path = path
        self.position = start
        """Position after the yielded lines."""
        self.live = str(path) == "-"
        """Whether the file is stdin, where silence does not mean the end."""
        self.bytes_read = 0
        """Number of bytes read from disk, before decompression."""
        try:
            # Unbuffered, so that bytes of a pipe are read when they arrive, not when a buffer is full.
            self._raw = io.FileIO(sys.stdin.fileno() if self.live else path, closefd=not self.live)
            self.size = 0 if self.live else path.stat().st_size
            """Number of bytes on disk; 0 for stdin."""
        except OSError as exc:
            raise self._read_error(exc.strerror or str(exc)) from exc
        self.format = file_format
        """Format of the lines."""
        self._row_format = ROW_FORMATS.get(file_format)
        self._mapped = MappedText(read_mapping(file_format)) if is_mapping(file_format) else None
        self._rows = _RowParser(path, self._row_format) if self._row_format else None
        self._parquet = not self.live and has_magic(self._raw, PARQUET_MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[Line]:
        return (line for chunk in self.chunks() for line in chunk)

    def chunks(self) -> Iterator[list[Line]]:
        """Yield lines as they arrive, in lists; an empty list if stdin has been silent for a moment.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        return self._parquet_chunks() if self._parquet else self._text_chunks()

    def _text_chunks(self) -> Iterator[list[Line]]:
        number, offset = self.position
        if number and (self._mapped or (self._row_format and self._row_format.has_header)):
            self._parse_header()
        for texts, length in _split_lines(self._contents(offset)):
            lines: list[Line] = []
            for text in texts:
                number += 1
                if len(text) > MAX_LINE_BYTES:
                    lines.append(Line(number, error=f"longer than {MAX_LINE_BYTES} bytes"))
                elif text and not text.isspace():
                    lines += self._parse(number, text)
            self.position = LinePosition(number, offset + length)
            yield lines

    def _parse_header(self) -> None:
        """Parse the first line, with the names of the columns, before reading goes on."""
        with EventFile(self.path, self.format) as head:
            first = next(texts for texts, _ in _split_lines(head._contents(0)) if texts)[0]
        if self._mapped:
            self._mapped.read_header(first)
        else:
            self._parse(1, first)

    def _parse(self, number: int, text: bytes) -> Sequence[Line]:
        if self._mapped:
            return self._mapped.parse(number, text)
        line = self._rows.parse(number, text) if self._rows else json_line(number, text)
        return (line,) if line else ()

    @property
    def ignored(self) -> int:
        """Number of lines without an event: the mapping ignores the type of the line."""
        return self._mapped.ignored if self._mapped else 0

    def _parquet_chunks(self) -> Iterator[list[Line]]:
        """Yield the rows of a Parquet file as lines, numbered from 1."""
        rows = ParquetEvents(self.path, self._row_format, self._mapped)
        number = self.position.number
        for lines in rows.chunks(number):
            number += len(lines)
            self.bytes_read = self.size * number // rows.row_count
            self.position = LinePosition(number)
            yield lines

    def _contents(self, skip: int) -> Iterator[bytes]:
        """Yield the decompressed content after the first `skip` bytes; empty bytes while stdin is silent.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        decompressor: Decompressor | None = None
        try:
            while True:
                if self.live and not select.select([self._raw], [], [], LIVE_WAIT_SECONDS)[0]:
                    yield b""
                    continue
                data = self._raw.read(CHUNK_BYTES)
                if not data:
                    break
                if not self.bytes_read:
                    decompressor = find_decompressor(data)
                self.bytes_read += len(data)
                content = decompressor.decompress(data) if decompressor else data
                if skip >= len(content):
                    skip -= len(content)
                    continue
                yield content[skip:]
                skip = 0
            if decompressor and not decompressor.complete:
                raise self._read_error(f"its {decompressor.name} data ends early")
        except OSError as exc:
            raise self._read_error(exc.strerror or str(exc)) from exc
        except BrokenDataError as exc:
            raise self._read_error(str(exc)) from exc

    def _read_error(self, reason: str) -> InputFileError:
        return InputFileError(f"{'stdin' if self.live else self.path} cannot be read: {reason}")


def _split_lines(chunks: Iterator[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield complete lines without their line ends, and the number of bytes of all lines so far, with line ends.

    A line above the length limit is cut to the limit plus 1 byte, so that the caller sees the excess.
    """
    partial = b""
    total = partial_length = 0  # bytes of all chunks, and of the line that is not complete yet
    for chunk in chunks:
        total += len(chunk)
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = partial + lines[0]
            partial, partial_length = tail, len(tail)
        else:
            partial, partial_length = (partial + tail)[: MAX_LINE_BYTES + 1], partial_length + len(tail)
        yield lines, total - partial_length
    if partial:
        yield [partial], total
