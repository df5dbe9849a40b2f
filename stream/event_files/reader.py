"""Reader: the lines of an event file as events, from a place on."""

import io
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.compression import BrokenDataError, Inflate, begins_with, inflate_for
from clickscore.stream.event_files.formats import (
    CSV_COLUMNS,
    REES46_COLUMNS,
    TAOBAO_COLUMNS,
    Format,
    HeadedEvent,
    Line,
    clickscore_line,
    csv_event,
    csv_row_line,
    rees46_event,
    rees46_line,
    row_line,
    taobao_line,
)
from clickscore.stream.event_files.parquet import EVENT_COLUMNS, PARQUET_MAGIC, ParquetRows, csv_line, event_line

CHUNK_BYTES = 64 * 1024

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is an error in words: no event is near it, and a file without line ends must not fill the memory."""

LIVE_WAIT_SECONDS = 0.1
"""How long a read waits on a silent pipe, before its reader may do something else."""


class Place(NamedTuple):
    """How far a file has been read, so that reading can go on there."""

    number: int = 0
    """Lines read; rows, of a Parquet file."""
    offset: int = 0
    """Bytes that they take, decompressed; 0 of a Parquet file."""


BEGINNING = Place()

_OF_PARQUET = {
    "clickscore": (EVENT_COLUMNS, event_line, clickscore_line),
    "taobao": (TAOBAO_COLUMNS, csv_line(TAOBAO_COLUMNS), taobao_line),
    "rees46": (REES46_COLUMNS, csv_line(REES46_COLUMNS), rees46_line),
    "csv": (CSV_COLUMNS, csv_line(CSV_COLUMNS), csv_row_line),
}
"""Of each format: the columns that a Parquet file must have, how a row becomes a line of text, and that a `Line`."""


class _Headed:
    """Lines of a file whose first one says in which column is what."""

    def __init__(self, path: Path, names: Sequence[str], to_event: HeadedEvent, kind: str) -> None:
        self._path, self._names, self._to_event, self._kind = path, names, to_event, kind
        self._columns: tuple[int, ...] = ()

    def __call__(self, number: int, line: bytes) -> Line | None:
        if number > 1:
            return row_line(number, line, lambda row, event_id: self._to_event(row, event_id, self._columns))
        names = line.decode("utf-8-sig", errors="replace").strip().split(",")
        lacking = [name for name in self._names if name not in names]
        if lacking:
            message = f"{self._path} is no {self._kind} file: its first line does not name {', '.join(lacking)}"
            raise InputFileError(message)
        self._columns = tuple(names.index(name) for name in self._names)
        return None


class EventFile:
    """An open event file, a context manager: iterate over its lines, or over `chunks` of them as they come.

    Raises:
        InputFileError: It cannot be opened or read on, or is not of this format.
    """

    def __init__(self, path: Path, file_format: Format, start: Place = BEGINNING) -> None:
        """Open a file to read from `start` on, which is a `place` that an earlier reading came to."""
        self.path = path
        self.place = start
        """How far the lines that were yielded go."""
        self.live = str(path) == "-"
        """Whether it is stdin, where silence is no end."""
        self.position = 0
        """Bytes read so far, as they lie on disk."""
        try:
            # Unbuffered: what a pipe holds is to be had now, not once a buffer is full.
            self._raw = io.FileIO(sys.stdin.fileno() if self.live else path, closefd=not self.live)
            self.size = 0 if self.live else path.stat().st_size
            """Bytes on disk, 0 where nobody knows."""
        except OSError as exc:
            raise self._unreadable(exc.strerror or str(exc)) from exc
        self._format: Format = file_format
        self._to_line: Callable[[int, bytes], Line | None] = {
            "clickscore": clickscore_line,
            "taobao": taobao_line,
            "rees46": _Headed(path, REES46_COLUMNS, rees46_event, "REES46"),
            "csv": _Headed(path, CSV_COLUMNS, csv_event, "csv"),
        }[file_format]
        self._parquet = not self.live and begins_with(self._raw, PARQUET_MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[Line]:
        return (line for chunk in self.chunks() for line in chunk)

    def chunks(self) -> Iterator[list[Line]]:
        """Yield lines as they come, some at a time; an empty list where a live file has been silent for a moment."""
        return self._rows() if self._parquet else self._texts()

    def _texts(self) -> Iterator[list[Line]]:
        number, offset = self.place
        if number and self._format in ("rees46", "csv"):
            self._learn_header()
        for texts, taken in _split(self._bytes(offset)):
            lines: list[Line] = []
            for text in texts:
                number += 1
                if len(text) > MAX_LINE_BYTES:
                    lines.append(Line(number, error=f"longer than {MAX_LINE_BYTES} bytes"))
                elif text and not text.isspace():
                    line = self._to_line(number, text)
                    if line:
                        lines.append(line)
            self.place = Place(number, offset + taken)
            yield lines

    def _learn_header(self) -> None:
        """Read the first line, which says what the columns are."""
        with EventFile(self.path, self._format) as head:
            first = next(texts for texts, _ in _split(head._bytes(0)) if texts)[0]
        self._to_line(1, first)

    def _rows(self) -> Iterator[list[Line]]:
        """Yield the rows of a Parquet file as lines; a row's number is its place from 1."""
        columns, to_text, to_line = _OF_PARQUET[self._format]
        rows = ParquetRows(self.path, columns, to_text)
        number = self.place.number
        for texts in rows.chunks(number):
            lines = [to_line(number + at, text) for at, text in enumerate(texts, start=1)]
            number += len(texts)
            self.position = self.size * number // rows.count
            self.place = Place(number)
            yield lines

    def _bytes(self, skip: int) -> Iterator[bytes]:
        """Yield the file's content, decompressed, after so many bytes; nothing for now where a live one is silent.

        Raises:
            InputFileError: It cannot be read on.
        """
        inflate: Inflate | None = None
        try:
            while True:
                if self.live and not select.select([self._raw], [], [], LIVE_WAIT_SECONDS)[0]:
                    yield b""
                    continue
                data = self._raw.read(CHUNK_BYTES)
                if not data:
                    break
                if not self.position:
                    inflate = inflate_for(data)
                self.position += len(data)
                content = inflate(data) if inflate else data
                if skip >= len(content):
                    skip -= len(content)
                    continue
                yield content[skip:]
                skip = 0
            if inflate and not inflate.complete:
                raise self._unreadable(f"its {inflate.name} data ends early")
        except OSError as exc:
            raise self._unreadable(exc.strerror or str(exc)) from exc
        except BrokenDataError as exc:
            raise self._unreadable(str(exc)) from exc

    def _unreadable(self, why: str) -> InputFileError:
        return InputFileError(f"{'stdin' if self.live else self.path} cannot be read: {why}")


def _split(chunks: Iterator[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield complete lines without their ends, and the bytes taken so far; of a line above the bound a part that shows.

    The bytes taken are those of the lines that were yielded, with their ends.
    """
    rest = b""
    fed = left = 0  # bytes in all, and of the line that is not complete
    for chunk in chunks:
        fed += len(chunk)
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = rest + lines[0]
            rest, left = tail, len(tail)
        else:
            rest, left = (rest + tail)[: MAX_LINE_BYTES + 1], left + len(tail)
        yield lines, fed - left
    if rest:
        yield [rest], fed
