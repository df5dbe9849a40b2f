"""Detection: tell the format of a file by its first lines, or by the names of its columns."""

import csv
from collections.abc import Collection, Sequence

from clickscore.stream.event_files.formats.json_lines import PARQUET_COLUMNS
from clickscore.stream.event_files.formats.registry import ROW_FORMATS
from clickscore.stream.event_files.formats.rows import SEPARATORS, column_indices

DETECTION_LINES = 20
"""Lines to look at: enough to pass some broken lines at the beginning."""

_TAOBAO_BEHAVIOURS = {"pv", "cart", "fav", "buy"}


def likely_format(lines: Sequence[bytes]) -> str | None:
    """Return the format of a file with these first lines, or None if no line tells the format."""
    for line in [line for line in lines if line.strip()][:DETECTION_LINES]:
        text = line.decode("utf-8-sig", errors="replace").strip()
        if text.startswith("{"):
            return "clickscore"
        for separator in SEPARATORS:
            try:
                cells = [cell.strip() for cell in next(csv.reader([text], delimiter=separator, skipinitialspace=True))]
            except (csv.Error, StopIteration):
                continue
            if (row_format := format_of_columns(cells)) and row_format != "clickscore":
                return row_format
            if len(cells) == len(ROW_FORMATS["taobao"].columns) and cells[3] in _TAOBAO_BEHAVIOURS:
                return "taobao"
    return None


def format_of_columns(names: Collection[str]) -> str | None:
    """Return the format of a table with these columns, or None if no format has them."""
    for name, row_format in ROW_FORMATS.items():
        if column_indices(list(names), row_format.columns):
            return name
    return "clickscore" if column_indices(list(names), PARQUET_COLUMNS) else None
