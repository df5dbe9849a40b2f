"""Row parser: make events of the rows of a text file, whatever separator, quotes and header the file has."""

import csv
from pathlib import Path

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.detection import likely_format
from clickscore.stream.event_files.formats.dialect import Dialect, has_spaces
from clickscore.stream.event_files.formats.rows import SEPARATORS, RowFormat, column_indices, row_line, row_text
from clickscore.stream.event_files.lines import Line


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
        self._header_is_due = False

    def read_first_row(self, text: bytes) -> bool:
        """Find the dialect and the columns in the first row, and return whether the first row is a header.

        Raises:
            InputFileError: The format has a header, and the first row lacks a column.
        """
        row = text.decode("utf-8-sig", errors="replace").strip("\r")
        for separator in SEPARATORS:
            names = Dialect(separator, spaces=True).split_header(row)
            columns = column_indices(names, self._format.columns)
            if columns:
                self._dialect = Dialect(separator, spaces=has_spaces(row, separator))
                self._columns = columns
                return True
        if self._format.has_header:
            raise InputFileError(self._refusal(row))
        separators = [
            separator
            for separator in SEPARATORS
            if len(Dialect(separator, spaces=True).split_header(row)) == len(self._format.columns)
        ]
        separator = separators[0] if separators else ","
        self._dialect = Dialect(separator, spaces=has_spaces(row, separator))
        return False

    def has_open_quote(self, text: bytes) -> bool:
        """Return whether a quote opens in a row and does not close, so that the row goes on in the next line.

        Raises:
            InputFileError: The text is the first row, and lacks a column.
        """
        dialect = self._dialect
        if dialect is None:
            self._header_is_due = self.read_first_row(text)
            dialect = self._dialect or Dialect()
        return dialect.has_open_quote(text)

    def parse(self, number: int, row: bytes) -> list[Line]:
        """Return the line of a row; no line for the header.

        Args:
            number: Number of the row's first line, from 1.
            row: The row, with its line breaks in quotes, without its line end.
        """
        if self._header_is_due:
            self._header_is_due = False
            return []
        return [self._line(number, row)]

    def _line(self, number: int, text: bytes) -> Line:
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
        names = {name.casefold() for name in Dialect(separator, spaces=True).split_header(row)}
        missing = [name for name in self._format.columns if name not in names]
        message = f"{self._path} is not a {self._format.name} file: its first line does not name {', '.join(missing)}"
        likely = likely_format([row.encode()])
        return f"{message}; it looks like --format {likely}" if likely else message
