"""Row parser: make events of the rows of a text file, whatever separator, quotes and header the file has."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.detection import likely_format
from clickscore.stream.event_files.formats.rows import SEPARATORS, RowFormat, column_indices, row_line, row_text
from clickscore.stream.event_files.lines import Line

MAX_ROW_LINES = 100
"""Limit of lines of a row with line breaks in quotes. Beyond it, the quote that opens is taken for a stray quote."""

MAX_ROW_BYTES = 1024 * 1024
"""Limit of bytes of a row with line breaks in quotes: the length limit of a line."""


@dataclass(frozen=True)
class Dialect:
    """Form of the rows of a file."""

    separator: str = ","
    """Character between two cells."""
    spaces: bool = False
    """Whether spaces around cells are no part of the cells."""

    @property
    def usual(self) -> bool:
        """Whether the text of a row is its text in the usual CSV: the text that the event id is made of."""
        return self.separator == "," and not self.spaces

    def split(self, row: str) -> list[str]:
        """Return the cells of a row.

        Raises:
            csv.Error: The row has broken quotes.
        """
        if '"' not in row:
            cells = row.split(self.separator)
        else:
            rows = io.StringIO(row, newline="\n")
            cells = next(csv.reader(rows, strict=True, delimiter=self.separator, skipinitialspace=self.spaces))
        return [cell.strip() for cell in cells] if self.spaces else cells


class RowParser:
    """Makes lines of the rows of a file; the first row tells the dialect, and where each column is."""

    def __init__(self, path: Path, row_format: RowFormat) -> None:
        """Start before the first row.

        Args:
            path: Path of the file, for messages.
            row_format: Format of the rows.
        """
        self._path = path
        self._format = row_format
        self._dialect: Dialect | None = None
        self._columns: tuple[int, ...] = ()
        self._open: list[tuple[int, bytes]] = []
        self._open_bytes = 0

    @property
    def open_bytes(self) -> int:
        """Number of bytes, with line ends, of the lines of a row that has not ended yet."""
        return self._open_bytes

    @property
    def open_lines(self) -> int:
        """Number of lines of a row that has not ended yet."""
        return len(self._open)

    def read_first_row(self, text: bytes) -> bool:
        """Find the dialect and the columns in the first row, and return whether the first row is a header.

        Raises:
            InputFileError: The format has a header, and the first row lacks a column.
        """
        row = text.decode("utf-8-sig", errors="replace").strip("\r")
        for separator in SEPARATORS:
            names = _split_header(row, separator)
            columns = column_indices(names, self._format.columns)
            if columns:
                self._dialect = Dialect(separator, spaces=_has_spaces(row, separator))
                self._columns = columns
                return True
        if self._format.has_header:
            raise InputFileError(self._refusal(row))
        separators = [
            separator for separator in SEPARATORS if _column_count(row, separator) == len(self._format.columns)
        ]
        separator = separators[0] if separators else ","
        self._dialect = Dialect(separator, spaces=_has_spaces(row, separator))
        return False

    def parse(self, number: int, text: bytes) -> Iterator[Line]:
        """Yield the rows that end with a line of text: a row may have line breaks in quotes.

        Args:
            number: Number of the line, from 1.
            text: The line without its line end.

        Raises:
            InputFileError: The header lacks a column.
        """
        if self._dialect is None:
            header = self.read_first_row(text)
            if header:
                return
        if not self._open and (b'"' not in text or not self._has_open_quote(text)):
            yield self._row(number, text)
            return
        self._open.append((number, text))
        self._open_bytes += len(text) + 1
        if len(self._open) == 1:
            return
        if len(self._open) > MAX_ROW_LINES or self._open_bytes > MAX_ROW_BYTES:
            yield from self._give_up()
        elif b'"' in text and not self._has_open_quote(joined := b"\n".join(line for _, line in self._open)):
            first = self._open[0][0]
            self._close()
            yield self._row(first, joined)

    def finish(self) -> Iterator[Line]:
        """Yield the rows of the lines that wait for a closing quote, at the end of the file."""
        while self._open:
            yield from self._give_up()

    def _give_up(self) -> Iterator[Line]:
        """Yield the first waiting line as a row of its own, and begin again with the lines after it."""
        (number, text), *rest = self._open
        self._close()
        yield self._row(number, text)
        for later_number, later_text in rest:
            yield from self.parse(later_number, later_text)

    def _close(self) -> None:
        self._open = []
        self._open_bytes = 0

    def _has_open_quote(self, text: bytes) -> bool:
        dialect = self._dialect or Dialect()
        try:
            dialect.split(text.removesuffix(b"\r").decode(errors="replace"))
        except csv.Error as exc:
            return "unexpected end of data" in str(exc)
        return False

    def _row(self, number: int, text: bytes) -> Line:
        row, dialect = text.removesuffix(b"\r"), self._dialect or Dialect()
        try:
            cells = dialect.split(row.decode())
            if not dialect.usual:
                row = row_text(cells)
            if self._columns:
                cells = [cells[column] for column in self._columns]
        except IndexError:
            return Line(number, error="fewer columns than the header has")
        except UnicodeDecodeError:
            return Line(number, error="the row is not UTF-8")
        except csv.Error as exc:
            return Line(number, error=str(exc))
        return row_line(number, cells, row, self._format)

    def _refusal(self, row: str) -> str:
        separator = max(SEPARATORS, key=row.count)
        names = {name.casefold() for name in _split_header(row, separator)}
        missing = [name for name in self._format.columns if name not in names]
        message = f"{self._path} is not a {self._format.name} file: its first line does not name {', '.join(missing)}"
        likely = likely_format([row.encode()])
        return f"{message}; it looks like --format {likely}" if likely else message


def _split_header(row: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in Dialect(separator, spaces=True).split(row)]
    except csv.Error:
        return []


def _column_count(row: str, separator: str) -> int:
    return len(_split_header(row, separator))


def _has_spaces(row: str, separator: str) -> bool:
    """Return whether a space follows every separator of a row."""
    cells: Sequence[str] = row.split(separator)[1:]
    return bool(cells) and all(cell.startswith(" ") for cell in cells)
