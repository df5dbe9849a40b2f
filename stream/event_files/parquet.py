"""Parquet: read the rows of a Parquet file as events, column by column.

Columns are found by name: the names of the fields of an event, or the column names of a format of rows. A null is a
missing field, or an empty cell. A time may be a timestamp column (a timestamp without a zone is UTC), an id may be a
number. A row of a format of rows gets the event id of its CSV text, so that a CSV file and a Parquet file of the same
rows give equal events. The text is built for the id alone, and is not parsed again.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.json_lines import PARQUET_COLUMNS, event_json, json_line
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.rows import CACHED_TIMES, RowFormat, row_line
from clickscore.stream.event_files.lines import Line

PARQUET_MAGIC = b"PAR1"

BATCH_ROWS = 4096
"""Number of rows in memory at once."""


class ParquetEvents:
    """The rows of a Parquet file, as lines.

    Raises:
        InputFileError: The file cannot be read or lacks a column, or pyarrow is not installed.
    """

    def __init__(self, path: Path, row_format: RowFormat | None, mapped: MappedText | None = None) -> None:
        """Open a file.

        Args:
            path: Path of the file.
            row_format: Format of the rows; None if the columns are the fields of an event.
            mapped: Mapping of the rows, if there is one: then a row is a JSON object with a field for each column.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 (part of the `files` extra)
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            message = f"{path} is a Parquet file, which needs the files extra: pip install 'clickscore[files]'"
            raise InputFileError(message) from exc
        self._path = path
        self._row_format = row_format
        self._mapped = mapped
        self._pa: Any = pa
        self._errors = (pa.ArrowException, OSError)
        try:
            self._file: Any = pq.ParquetFile(path)
        except self._errors as exc:
            raise self._read_error(exc) from exc
        self._names: list[str] = self._file.schema_arrow.names
        self.row_count: int = self._file.metadata.num_rows
        """Number of rows of the file."""
        required = row_format.columns if row_format else () if mapped else PARQUET_COLUMNS
        missing = [name for name in required if name not in self._names]
        if missing:
            message = f"{path} cannot be read in this format: it has no column {', '.join(missing)}"
            raise InputFileError(message)

    def chunks(self, skip: int) -> Iterator[list[Line]]:
        """Yield the rows after the first `skip` rows, a batch at a time.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        try:
            yield from self._chunks(skip)
        except self._errors as exc:
            raise self._read_error(exc) from exc

    def _chunks(self, skip: int) -> Iterator[list[Line]]:
        number, metadata = 0, self._file.metadata
        for group in range(metadata.num_row_groups):
            rows: int = metadata.row_group(group).num_rows
            if number + rows <= skip:
                number += rows
                continue
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                read = min(batch.num_rows, max(0, skip - number))  # rows that an earlier reading has yielded
                if read < batch.num_rows:
                    yield self._lines(batch.slice(read), number + read + 1)
                number += batch.num_rows

    def _lines(self, batch: Any, first_number: int) -> list[Line]:  # noqa: ANN401 (pyarrow has no types)
        row_format = self._row_format
        if self._mapped:
            texts = [msgspec.json.encode(row) for row in batch.to_pylist()]
            return [
                line for number, text in enumerate(texts, first_number) for line in self._mapped.parse(number, text)
            ]
        if row_format is None:
            columns = [self._field_values(name, batch.column(name)) for name in self._names]
            rows = (
                event_json({name: value for name, value in zip(self._names, row, strict=True) if value is not None})
                for row in zip(*columns, strict=True)
            )
            return [json_line(number, text) for number, text in enumerate(rows, first_number)]
        cells = [self._cells(batch.column(name)) for name in row_format.columns]
        return [
            row_line(number, row, _row_text(row), row_format)
            for number, row in enumerate(zip(*cells, strict=True), first_number)
        ]

    def _field_values(self, name: str, column: Any) -> list[Any]:  # noqa: ANN401
        """Return the values of a field of an event: times as ms since the epoch, numeric ids as text."""
        if self._pa.types.is_timestamp(column.type):
            return self._milliseconds(column)
        values: list[Any] = column.to_pylist()
        return [str(value) if isinstance(value, int) else value for value in values] if name.endswith("_id") else values

    def _cells(self, column: Any) -> list[str]:  # noqa: ANN401
        """Return the values of a column as the cells of CSV text."""
        if self._pa.types.is_timestamp(column.type):
            return ["" if ms is None else _time_text(ms // 1000) for ms in self._milliseconds(column)]
        if self._pa.types.is_integer(column.type):
            column = column.cast(self._pa.string())
        values: list[Any] = column.to_pylist()
        return [value if isinstance(value, str) else "" if value is None else str(value) for value in values]

    def _milliseconds(self, column: Any) -> list[int | None]:  # noqa: ANN401
        """Return a column of timestamps in ms since the epoch, UTC; finer times are cut to ms."""
        milliseconds = self._pa.timestamp("ms", column.type.tz)
        return column.cast(milliseconds, safe=False).cast(self._pa.int64()).to_pylist()

    def _read_error(self, exc: Exception) -> InputFileError:
        return InputFileError(f"{self._path} cannot be read: {exc}")


@lru_cache(maxsize=CACHED_TIMES)
def _time_text(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _row_text(cells: Sequence[str]) -> bytes:
    """Return the cells of a row as a line of CSV, exactly as `csv.writer` does."""
    text = ",".join(cells)
    if text.count(",") == len(cells) - 1 and not ('"' in text or "\n" in text or "\r" in text):
        return text.encode()
    quoted = io.StringIO()
    csv.writer(quoted, lineterminator="").writerow(cells)
    return quoted.getvalue().encode()
