"""Mapped text: make events of the lines of a text file by a mapping."""

import csv
from typing import Any

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
        self._has_header = has_header
        self._layout = mapping.mapping.rows
        self._header: list[str] | None = None

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
        layout = self._layout
        if layout is None or text.lstrip().startswith(b"{"):
            lines = self._mapping.json_lines(number, text, record_id)
        elif not (layout.columns or self._has_header):
            return [Line(number, error="no JSON object, and there is no header that names the columns of a row")]
        elif not layout.columns and self._header is None:
            self.read_header(text)
            return []
        else:
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
        layout = self._layout
        if layout is None or layout.columns or text.lstrip().startswith(b"{"):
            return
        row = text.removesuffix(b"\r").decode("utf-8-sig", errors="replace")
        names = [name.strip() for name in next(csv.reader([row], delimiter=layout.delimiter))]
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
        # TSV has no quotes by convention: Snowplow's cells of JSON begin with a quote or a brace.
        quoted = '"' in row and layout.delimiter != "\t"
        cells = (
            next(csv.reader([row], strict=True, delimiter=layout.delimiter)) if quoted else row.split(layout.delimiter)
        )
        columns = [self._header] if self._header else layout.columns
        names = next((names for names in columns if len(names) == len(cells)), None)
        if names is None:
            counts = " or ".join(str(len(names)) for names in columns)
            message = f"{len(cells)} columns instead of {counts}"
            raise ValueError(message)
        return {name: cell for name, cell in zip(names, cells, strict=True) if cell and cell not in layout.missing}
