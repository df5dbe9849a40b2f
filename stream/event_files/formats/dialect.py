"""Dialect: separator, quotes and spaces of the rows of a text file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass


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

    def split_header(self, row: str) -> list[str]:
        """Return the names in a header; no names if its quotes are broken."""
        try:
            return [name.strip() for name in self.split(row)]
        except csv.Error:
            return []

    def has_open_quote(self, row: bytes) -> bool:
        """Return whether a quote opens in the text of a row and does not close, so that the row goes on."""
        if b'"' not in row:
            return False
        try:
            self.split(row.removesuffix(b"\r").decode(errors="replace"))
        except csv.Error as exc:
            return "unexpected end of data" in str(exc)
        return False


def has_spaces(row: str, separator: str) -> bool:
    """Return whether a space follows every separator of a row."""
    cells: Sequence[str] = row.split(separator)[1:]
    return bool(cells) and all(cell.startswith(" ") for cell in cells)
