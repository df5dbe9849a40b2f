"""Reader: read the lines of an event file, from the beginning or from the position of an earlier reading.

A file may be plain, gzip, bzip2, xz, zip, Zstandard or Parquet: the first bytes tell. `-` is stdin.
"""

import io
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from clickscore.schemas.events import decode_record
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.compression import (
    ZIP_MAGIC,
    BrokenDataError,
    Decompressor,
    find_decompressor,
    has_magic,
    read_zip,
)
from clickscore.stream.event_files.formats.detection import DETECTION_LINES, likely_format
from clickscore.stream.event_files.formats.json_lines import json_line
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.mapping_files import is_mapping, read_mapping
from clickscore.stream.event_files.formats.registry import ROW_FORMATS
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.parquet_reader import PARQUET_MAGIC, ParquetReader
from clickscore.stream.event_files.row_joiner import RowJoiner
from clickscore.stream.event_files.row_parser import RowParser
from clickscore.stream.event_files.text_encoding import read_as_utf8

CHUNK_BYTES = 64 * 1024
"""Bytes of a read: the usual size of a pipe's buffer."""

MAX_LINE_BYTES = 1024 * 1024
"""Length limit of a line. No event comes near the limit, and a file without line ends must not fill the memory."""

SHOWN_BYTES = 80
"""Bytes of a line in a message: a line of a terminal."""

LIVE_WAIT_SECONDS = 0.1
"""Time limit of a read from a silent pipe, so that the caller can do other work."""


class LinePosition(NamedTuple):
    """Position in a file, the start of a later reading."""

    number: int = 0
    """Number of lines read, or of rows of a Parquet file."""
    offset: int = 0
    """Number of decompressed bytes of these lines; 0 in a Parquet file."""


BEGINNING = LinePosition()


class EventFile:
    """An open event file, a context manager: iterate over its lines, or over `chunks` of lines as they arrive.

    Raises:
        InputFileError: The file cannot be opened or read to the end, or has another format.
    """

    def __init__(self, path: Path, file_format: str, start: LinePosition = BEGINNING) -> None:
        """Open a file.

        Args:
            path: Path of the file, `-` for stdin.
            file_format: str of the lines.
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
        """Format of the lines; `auto` until the first lines tell the format."""
        self.has_event = start.number > 0
        """Whether a line so far was a good event; taken for granted where an earlier reading has read the beginning."""
        self._first_error: str | None = None
        self._first_texts: list[bytes] = []
        self._parser: RowParser | MappedText | None = None
        self._joiner: RowJoiner | None = None
        if is_mapping(file_format):
            self._set_parser(MappedText(read_mapping(file_format)))
        self.ignored = 0
        """Number of lines without an event: the mapping ignores the type of the line."""
        self._parquet = not self.live and has_magic(self._raw, PARQUET_MAGIC)
        self._zip = not self.live and has_magic(self._raw, ZIP_MAGIC)

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
        for lines in self._parquet_chunks() if self._parquet else self._text_chunks():
            if not self.has_event:
                self._look_for_event(lines)
            yield lines

    def require_event(self) -> None:
        """Refuse a file that was read to the end and holds no good event.

        Raises:
            InputFileError: The file holds no good event; the message has the first reason and the likely format.
        """
        if self.has_event:
            return
        if not self._first_texts:
            message = f"{self.name} holds no event: the file is empty"
            raise InputFileError(message)
        message = f"{self.name} holds no event in the format {self.format}"
        if self._first_error:
            message += f": {self._first_error}"
        if self.ignored:
            message += f": the mapping ignores the type of {self.ignored:,} lines"
        likely = likely_format(self._first_texts)
        if likely and likely != self.format and not self.ignored:
            message += f". It looks like --format {likely}"
        raise InputFileError(message)

    @property
    def name(self) -> str:
        """Name of the file for messages."""
        return "stdin" if self.live else str(self.path)

    def _look_for_event(self, lines: list[Line]) -> None:
        """Look for the first good event among lines, and keep the first reason why a line is none."""
        for line in lines:
            error = line.error or _event_error(line.value)
            if error is None:
                self.has_event = True
                return
            if self._first_error is None:
                self._first_error = f"line {line.number}: {error}"

    def _text_chunks(self) -> Iterator[list[Line]]:
        number, offset = self.position
        length = former_length = 0
        if number:
            self._parse_beginning()
        for texts, length in _split_lines(self._contents(offset)):
            if self.format == "auto" or not self._first_texts:
                self._detect_format(texts)
            lines: list[Line] = []
            joiner = self._joiner
            # A file may be blank for gigabytes, and the loop is slow for it.
            blank = len(texts) > 1 and not any(texts) and not (joiner and joiner.open_lines)
            if blank:
                number += len(texts)
            for text in () if blank else texts:
                number += 1
                if len(text) > MAX_LINE_BYTES:
                    lines += self._parse_rows(joiner.finish()) if joiner else []
                    lines.append(Line(number, error=f"longer than {MAX_LINE_BYTES} bytes"))
                elif (text and not text.isspace()) or (joiner and joiner.open_lines):
                    lines += self._parse(number, text)
            if joiner and joiner.open_lines:
                lacks_end = len(texts) == 1 and length - former_length == len(texts[0])  # the last line of the file
                open_bytes = joiner.open_bytes - lacks_end
                self.position = LinePosition(number - joiner.open_lines, offset + length - open_bytes)
            else:
                self.position = LinePosition(number, offset + length)
            former_length = length
            yield lines
        if self._joiner and self._joiner.open_lines:
            lines = self._parse_rows(self._joiner.finish())
            self.position = LinePosition(number, offset + length)
            yield lines

    def _set_parser(self, parser: RowParser | MappedText) -> None:
        self._parser = parser
        self._joiner = RowJoiner(parser.has_open_quote)

    def _parse(self, number: int, text: bytes) -> list[Line]:
        return self._parse_rows(self._joiner.add(number, text)) if self._joiner else [json_line(number, text)]

    def _parse_rows(self, rows: Iterator[tuple[int, bytes]]) -> list[Line]:
        parser = self._parser
        lines = [line for number, row in rows if parser and row.strip() for line in parser.parse(number, row)]
        if isinstance(parser, MappedText):
            self.ignored = parser.ignored
        return lines

    def _detect_format(self, texts: list[bytes]) -> None:
        """Find the format, unless it is given, when the first lines have arrived.

        Raises:
            InputFileError: The lines tell no format.
        """
        self._first_texts = [text[:MAX_LINE_BYTES] for text in texts if text.strip()][:DETECTION_LINES]
        if not self._first_texts:
            return
        if self.format == "auto":
            likely = likely_format(self._first_texts)
            if likely is None:
                raise InputFileError(f"{self.name}: {_no_format(self._first_texts[0])}")
            self.format = likely
        if row_format := ROW_FORMATS.get(self.format):
            self._set_parser(RowParser(self.path, row_format))

    def _parse_beginning(self) -> None:
        """Parse the first lines, which tell the format and the columns, before reading goes on."""
        with EventFile(self.path, self.format) as head:
            for texts, _ in _split_lines(head._contents(0)):
                self._detect_format(texts)
                if self._first_texts:
                    break
        if self._first_texts and isinstance(self._parser, RowParser):
            self._parser.read_first_row(self._first_texts[0])
        elif self._first_texts and isinstance(self._parser, MappedText):
            self._parser.read_header(self._first_texts[0])

    def _parquet_chunks(self) -> Iterator[list[Line]]:
        """Yield the rows of a Parquet file as lines, numbered from 1."""
        number = self.position.number
        with ParquetReader(self.path, self.format, number) as rows:
            self.format = rows.format
            for count, lines in rows.chunks():
                number += count
                self.ignored = rows.ignored
                self.bytes_read = self.size * number // max(1, rows.row_count)
                self.position = LinePosition(number)
                yield lines

    def _contents(self, skip: int) -> Iterator[bytes]:
        """Yield the decompressed content after the first `skip` bytes; empty bytes while stdin is silent.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        try:
            for content in read_as_utf8(self._zip_bytes() if self._zip else self._decompressed_bytes()):
                if skip and skip >= len(content):
                    skip -= len(content)
                    continue
                yield content[skip:]
                skip = 0
        except OSError as exc:
            raise self._read_error(exc.strerror or str(exc)) from exc
        except BrokenDataError as exc:
            raise self._read_error(str(exc)) from exc

    def _zip_bytes(self) -> Iterator[bytes]:
        for piece in read_zip(self._raw):
            self.bytes_read = self._raw.tell()
            yield piece
        self.bytes_read = self.size

    def _decompressed_bytes(self) -> Iterator[bytes]:
        """Yield the content of the file as it arrives, in pieces of bounded size; empty bytes while stdin is silent.

        Raises:
            InputFileError: The compressed data ends early.
        """
        decompressor: Decompressor | None = None
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
            if decompressor:
                yield from decompressor.decompress(data)
            else:
                yield data
        if decompressor and not decompressor.complete:
            raise self._read_error(f"its {decompressor.name} data ends early")

    def _read_error(self, reason: str) -> InputFileError:
        return InputFileError(f"{self.name} cannot be read: {reason}")


def _event_error(value: bytes) -> str | None:
    """Return why the value of a record is no event; None for a good event."""
    try:
        decode_record(value)
    except ValueError as exc:  # the errors of msgspec and of UTF-8 are ValueErrors
        return str(exc)
    return None


def _no_format(first: bytes) -> str:
    """Return why the first line tells no format, and what to do."""
    text = ascii(first[:SHOWN_BYTES].decode(errors="replace"))
    if first.lstrip().startswith(b"["):
        return f"the first line begins a JSON array, not an event: write one event per line ({text})"
    return (
        f"the first lines tell no format: {text}. Name the format with --format: clickscore (an event as JSON in "
        "each line), csv or rees46 (the first line names the columns), or taobao"
    )


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
