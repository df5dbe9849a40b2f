"""Mapped text: make events of the lines of a text file by a mapping."""

import csv
from typing import Any

from clickscore.stream.event_files.formats.dialect import Dialect
from clickscore.stream.event_files.formats.mapping import EventMapping, RowLayout
from clickscore.stream.event_files.lines import Line


class MappedText:
    """Makes lines of the lines of a text file: each is a JSON object, or a row of the mapping's layout."""

    def __init__(self, mapping: EventMapping, *, has_header: bool = True) -> None:
        """Start at the beginning of a text.

        Args:
            mapping: The mapping.
            has_header: Whether the first row names the columns, unless the mapping does. A topic has no header.
        """
        self.ignored = 0
        """Number of lines without an event: the mapping ignores the type."""
        self._mapping = mapping
        self._header_is_due = has_header
        self._layout = mapping.mapping.rows
        self._dialect = Dialect(self._layout.delimiter) if self._layout else Dialect()
        self._has_quotes = self._layout is not None and self._layout.delimiter != "\t"
        """Whether rows may have quotes. TSV has none by convention: Snowplow's cells of JSON begin with a brace."""
        self._header: list[str] | None = None
        self._header_number = 0
        """Number of the line that was taken for the header, until a row follows."""

    def has_open_quote(self, text: bytes) -> bool:
        """Return whether a quote opens in a row and does not close, so that the row goes on in the next line."""
        layout = self._layout
        has_rows = layout is not None and bool(layout.columns or self._header or self._header_is_due)
        return has_rows and self._has_quotes and not _is_object(text) and self._dialect.has_open_quote(text)

    def parse(self, number: int, text: bytes, record_id: str | None = None) -> list[Line]:
        """Return the events of a line, or one line with the error; no line for a header or an ignored type.

        Args:
            number: Number of the line, from 1.
            text: The line, without its line end.
            record_id: Id of the record at its source; the hash of the text if None.
        """
        text = text.removesuffix(b"\r")
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        layout, header_is_due = self._layout, self._header_is_due
        self._header_is_due = False
        if layout is None or _is_object(text):
            lines = self._mapping.json_lines(number, text, record_id)
            if self._header_number:
                lines = [Line(self._header_number, error="neither a JSON object nor the header of a row"), *lines]
                self._header, self._header_number = None, 0
        elif not layout.columns and self._header is None:
            if header_is_due:
                self.read_header(text)
                self._header_number = number
                return []
            return [Line(number, error="no JSON object, and there is no header that names the columns of a row")]
        else:
            self._header_number = 0
            try:
                record = self._row(layout, text)
            except (ValueError, csv.Error) as exc:
                error = "the row is not UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc)
                return [Line(number, error=error)]
            lines = self._mapping.lines(number, record, text, record_id)
        self.ignored += not lines
        return lines

    def read_header(self, text: bytes) -> None:
        """Take the names of the columns from the first line, unless the file has no header."""
        self._header_is_due = False
        layout = self._layout
        if layout is None or layout.columns or _is_object(text):
            return
        names = self._dialect.split_header(text.removesuffix(b"\r").decode("utf-8-sig", errors="replace"))
        self._header = [name.split(layout.name_end)[0] if layout.name_end else name for name in names]

    def _row(self, layout: RowLayout, text: bytes) -> dict[str, Any]:
        """Return the cells of a row by the names of the columns.

        Args:
            layout: Layout of the rows.
            text: The row.

        Raises:
            ValueError: The row is not UTF-8, or has another number of cells.
            csv.Error: The row has broken quotes.
        """
        row = text.decode()
        cells = self._dialect.split(row) if self._has_quotes else row.split(layout.delimiter)
        columns = layout.columns or [self._header or []]
        names = next((names for names in columns if len(names) == len(cells)), None)
        if names is None:
            counts = " or ".join(str(len(names)) for names in columns)
            message = f"{len(cells)} columns instead of {counts}"
            raise ValueError(message)
        return {name: cell for name, cell in zip(names, cells, strict=True) if cell and cell not in layout.missing}


def _is_object(text: bytes) -> bool:
    return text.lstrip().startswith(b"{")
