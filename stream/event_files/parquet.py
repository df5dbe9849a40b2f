"""Parquet: rows of a file as the lines that its text form would have.

Columns are found by the names of an event's fields, or of a CSV's columns. A null is a field that is not there. A time
may be a timestamp column (one without a zone is UTC), an id a number.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from clickscore.stream.errors import InputFileError

PARQUET_MAGIC = b"PAR1"
ROWS = 4096
"""Rows that are held at once."""

EVENT_COLUMNS = ("type", "user_id", "ts")
"""What every event says itself; an `event_id` is made from the row where there is none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


class ParquetRows:
    """The rows of a Parquet file as lines.

    Raises:
        InputFileError: It cannot be read, lacks a column, or pyarrow is missing.
    """

    def __init__(self, path: Path, columns: Sequence[str], to_line: Callable[[Row], bytes]) -> None:
        """Open a file that must have these columns; `to_line` gets the row with all that it has."""
        try:
            import pyarrow as pa  # noqa: PLC0415 (of the `files` extra)
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            message = f"{path} is a Parquet file, which needs the files extra: pip install 'clickscore[files]'"
            raise InputFileError(message) from exc
        self._path = path
        self._to_line = to_line
        self._pa: Any = pa
        self._errors = (pa.ArrowException, OSError)
        try:
            self._file: Any = pq.ParquetFile(path)
        except self._errors as exc:
            raise self._unreadable(exc) from exc
        names: list[str] = self._file.schema_arrow.names
        self.count: int = self._file.metadata.num_rows
        """Rows of the file."""
        lacking = [name for name in columns if name not in names]
        if lacking:
            message = f"{path} cannot be read in this format: it has no column {', '.join(lacking)}"
            raise InputFileError(message)
        self._names = names

    def chunks(self, skip: int) -> Iterator[list[bytes]]:
        """Yield the rows after the first `skip`, some at a time.

        Raises:
            InputFileError: The file cannot be read on.
        """
        first, groups = 0, self._file.metadata
        for group in range(groups.num_row_groups):
            rows: int = groups.row_group(group).num_rows
            if first + rows > skip:
                yield from self._group(group, max(0, skip - first))
            first += rows

    def _group(self, group: int, skip: int) -> Iterator[list[bytes]]:
        try:
            for batch in self._file.iter_batches(batch_size=ROWS, row_groups=[group]):
                taken = batch.slice(skip)
                skip -= min(skip, batch.num_rows)
                if taken.num_rows:
                    columns = [self._values(taken.column(name)) for name in self._names]
                    yield [
                        self._to_line(dict(zip(self._names, row, strict=True))) for row in zip(*columns, strict=True)
                    ]
        except self._errors as exc:
            raise self._unreadable(exc) from exc

    def _values(self, column: Any) -> list[Any]:  # noqa: ANN401 (pyarrow has no types)
        """Return a column as Python values; times are cut to ms."""
        if self._pa.types.is_timestamp(column.type):
            column = column.cast(self._pa.timestamp("ms", column.type.tz), safe=False)
        return column.to_pylist()

    def _unreadable(self, exc: Exception) -> InputFileError:
        return InputFileError(f"{self._path} cannot be read: {exc}")


def event_line(row: Row) -> bytes:
    """Return the JSON of an event, an id from the row in it where it has none."""
    fields = {name: _field(name, value) for name, value in row.items() if value is not None}
    line = msgspec.json.encode(fields)
    if "event_id" in fields:
        return line
    return msgspec.json.encode(fields | {"event_id": xxhash.xxh3_128_hexdigest(line)})


def csv_line(columns: Sequence[str]) -> Callable[[Row], bytes]:
    """Return what makes a line of CSV of a row, with these columns in this order."""

    def to_line(row: Row) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow([_cell(row[name]) for name in columns])
        return text.getvalue().encode()

    return to_line


def _field(name: str, value: object) -> object:
    if isinstance(value, datetime):
        return (_utc(value) - _EPOCH) // timedelta(milliseconds=1)
    return str(value) if name.endswith("_id") and isinstance(value, int) else value


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{_utc(value):%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
