"""Parquet rows: read the rows of a Parquet file as events, column by column.

Columns are found by name: the names of the fields of an event, or the column names of a format of rows. A null and a
number that is no number (NaN) are a missing field, or an empty cell. A time may be a timestamp column (a timestamp
without a zone is UTC), an id may be a number. A row of a format of rows gets the event id of its CSV text, so that a
CSV file and a Parquet file of the same rows give equal events. The text is built for the id alone, and is not parsed
again.

A small file may decode to gigabytes, so text is read as indices of a dictionary, and rows are made in slices of
bounded size. The reader runs in a process with a memory limit (`parquet_reader`), since a broken file may also lead
the decoder to allocate without a limit, or crash it.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.formats.detection import format_of_columns
from clickscore.stream.event_files.formats.json_lines import PARQUET_COLUMNS, event_json, json_line
from clickscore.stream.event_files.formats.mapped_text import MappedText
from clickscore.stream.event_files.formats.mapping_files import is_mapping, read_mapping
from clickscore.stream.event_files.formats.registry import ROW_FORMATS
from clickscore.stream.event_files.formats.rows import CACHED_TIMES, column_indices, row_line, row_text
from clickscore.stream.event_files.lines import Line

BATCH_ROWS = 4096
"""Number of rows in memory at once."""

SLICE_BYTES = 16 * 1024 * 1024
"""Bytes of text in memory at once: rows of a batch beyond it are made later."""

MAX_ROW_BYTES = 128 * 1024
"""Limit of the text of a row. Each row may repeat a long value that the file holds once, so the limit of a line of text
would let a file of a kilobyte take minutes."""

BUFFER_BYTES = 1024 * 1024
"""Bytes of a column that are read at once: a column of a row group may be gigabytes long."""

_WHOLE_NUMBERS = {"ts", "position", "quantity"}
"""Fields of an event that are whole numbers; a column with a null may hold them as 100.0."""

_UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class ParquetRows:
    """The rows of a Parquet file, as lines.

    Raises:
        InputFileError: The file cannot be read or lacks a column, or pyarrow is not installed.
    """

    def __init__(self, path: str, file_format: str) -> None:
        """Open a file.

        Args:
            path: Path of the file.
            file_format: str of the rows; `auto` finds the format in the names of the columns.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 (part of the `files` extra)
            import pyarrow.compute as pc  # noqa: PLC0415
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            message = f"{path} is a Parquet file, which needs the files extra: pip install '.[files]'"
            raise InputFileError(message) from exc
        self._path = path
        self._pa: Any = pa
        self._pc: Any = pc
        self._errors = (pa.ArrowException, OSError, MemoryError)
        try:
            schema: Any = pq.read_schema(path)
            text_columns = [field.name for field in schema if _is_text(pa, field.type)]
            self._file: Any = pq.ParquetFile(
                path, read_dictionary=text_columns, buffer_size=BUFFER_BYTES, pre_buffer=False
            )
            self.row_count: int = self._file.metadata.num_rows
            """Number of rows of the file."""
        except self._errors as exc:
            raise self._read_error(exc) from exc
        names: list[str] = schema.names
        if file_format == "auto":
            found = format_of_columns(names)
            if found is None:
                message = f"{path}: the columns tell no format: {', '.join(names)[:200]}. Name the format with --format"
                raise InputFileError(message)
            file_format = found
        self.format = file_format
        """Format of the rows."""
        self._row_format = ROW_FORMATS.get(file_format)
        self._mapped = MappedText(read_mapping(file_format)) if is_mapping(file_format) else None
        required = self._row_format.columns if self._row_format else () if self._mapped else PARQUET_COLUMNS
        indices = column_indices(names, required)
        if not indices and not self._mapped:
            lower = {name.strip().casefold() for name in names}
            missing = ", ".join(name for name in required if name not in lower)
            message = f"{path} cannot be read in this format: it has no column {missing}"
            likely = format_of_columns(names)
            raise InputFileError(f"{message}; it looks like --format {likely}" if likely else message)
        found_names = dict(zip(indices, required, strict=True))
        if self._row_format is None:
            found_names = {index: found_names.get(index, name) for index, name in enumerate(names)}
        self._columns = found_names
        self._names = names

    @property
    def ignored(self) -> int:
        """Number of rows so far without an event: the mapping ignores the type."""
        return self._mapped.ignored if self._mapped else 0

    def chunks(self, skip: int) -> Iterator[tuple[int, list[Line]]]:
        """Yield the number and the lines of the rows after the first `skip` rows, a batch at a time.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        try:
            yield from self._chunks(skip)
        except self._errors as exc:
            raise self._read_error(exc) from exc

    def _chunks(self, skip: int) -> Iterator[tuple[int, list[Line]]]:
        number, metadata = 0, self._file.metadata
        read_names = list(dict.fromkeys(self._names[index] for index in self._columns))
        for group in range(metadata.num_row_groups):
            rows: int = metadata.row_group(group).num_rows
            if number + rows <= skip:
                number += rows
                continue
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=read_names):
                read = min(batch.num_rows, max(0, skip - number))  # rows that an earlier reading has yielded
                if read < batch.num_rows:
                    yield from self._slices(batch.slice(read), number + read + 1)
                number += batch.num_rows

    def _slices(self, batch: Any, first_number: int) -> Iterator[tuple[int, list[Line]]]:  # noqa: ANN401 (pyarrow has no types)
        """Yield the rows of a batch as lines, about `SLICE_BYTES` of text at a time."""
        sizes = self._text_sizes(batch)
        if sizes is None:
            yield batch.num_rows, self._lines(batch, first_number)
            return
        begin = total = 0
        for row, size in enumerate(sizes):
            if size > MAX_ROW_BYTES or total + size > SLICE_BYTES:
                if row > begin:
                    yield row - begin, self._lines(batch.slice(begin, row - begin), first_number + begin)
                begin, total = row, 0
            if size > MAX_ROW_BYTES:
                yield 1, [Line(first_number + row, error=f"longer than {MAX_ROW_BYTES} bytes")]
                begin = row + 1
            else:
                total += size
        if begin < len(sizes):
            yield len(sizes) - begin, self._lines(batch.slice(begin), first_number + begin)

    def _text_sizes(self, batch: Any) -> list[int] | None:  # noqa: ANN401
        """Return the bytes of text of each row, or None if the whole batch is small."""
        columns = [column for column in batch.columns if self._pa.types.is_dictionary(column.type)]
        lengths = [self._pc.binary_length(column.dictionary) for column in columns]
        longest = sum(self._pc.max(length).as_py() or 0 for length in lengths)
        if longest * batch.num_rows <= SLICE_BYTES and longest <= MAX_ROW_BYTES:
            return None
        sizes = [0] * batch.num_rows
        for column, length in zip(columns, lengths, strict=True):
            row_lengths: list[int | None] = length.take(column.indices).to_pylist()
            sizes = [size + (row_length or 0) for size, row_length in zip(sizes, row_lengths, strict=True)]
        return sizes

    def _lines(self, batch: Any, first_number: int) -> list[Line]:  # noqa: ANN401
        errors: dict[int, str] = {}
        if self._mapped:
            return self._mapped_lines(self._mapped, batch, first_number)
        columns = {
            name: self._column_values(self._names[index], name, batch.column(self._names[index]), errors)
            for index, name in self._columns.items()
        }
        row_format = self._row_format
        lines: list[Line] = []
        names = list(row_format.columns if row_format else columns)
        for row, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
            number = first_number + row
            if row in errors:
                lines.append(Line(number, error=errors[row]))
            elif row_format:
                lines.append(row_line(number, values, row_text(values), row_format))
            else:
                fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                lines.append(_event_line(number, fields))
        return lines

    def _mapped_lines(self, mapped: MappedText, batch: Any, first_number: int) -> list[Line]:  # noqa: ANN401
        """Return the lines of rows by a mapping: a row is a JSON object with a field for each column."""
        try:
            texts = [msgspec.json.encode(row, enc_hook=str) for row in batch.to_pylist()]
        except self._errors as exc:
            raise self._read_error(exc) from exc
        except Exception as exc:
            message = f"{self._path}: a column cannot be read: {exc}"
            raise InputFileError(message) from exc
        return [line for number, text in enumerate(texts, first_number) for line in mapped.parse(number, text)]

    def _column_values(self, column_name: str, name: str, column: Any, errors: dict[int, str]) -> list[Any]:  # noqa: ANN401
        """Return the values of a column: the cells of a format of rows, or the fields of events.

        Args:
            column_name: Name of the column in the file, for messages.
            name: Name of the column in the format.
            column: Values of some rows.
            errors: Receives the reason for each row whose value cannot be read.

        Raises:
            InputFileError: The column has a type that holds no such value.
        """
        column_type = column.type
        try:
            if self._pa.types.is_timestamp(column_type) or self._pa.types.is_date(column_type):
                times = self._microseconds(column)
                if self._row_format is None:
                    return [None if time is None else time // 1000 for time in times]
                text = _seconds_text if name == "timestamp" else time_text
                return ["" if time is None else text(time) for time in times]
            if self._pa.types.is_duration(column_type) or str(column_type) == "time64[ns]":
                message = "the type is no time of day and date, no number and no text"
                raise TypeError(message)  # noqa: TRY301 (one handler adds the name of the column)
            values: list[Any] = column.to_pylist()
            return [self._value(name, value, row, errors) for row, value in enumerate(values)]
        except self._errors as exc:
            raise self._read_error(exc) from exc
        except Exception as exc:
            message = f"{self._path}: the column {column_name} ({column_type}) cannot be read: {exc}"
            raise InputFileError(message) from exc

    def _value(self, name: str, value: Any, row: int, errors: dict[int, str]) -> Any:  # noqa: ANN401
        """Return a value as a cell of CSV text, or as a field of an event."""
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                errors[row] = f"the column {name} is not UTF-8"
                value = ""
        if isinstance(value, float | Decimal) and math.isnan(value):
            value = None
        if self._row_format:
            return _cell(name, value)
        if isinstance(value, float | Decimal):
            if not math.isfinite(value):
                return str(value)  # JSON has no such number: the text is refused, in words
            if name in _WHOLE_NUMBERS and value == int(value):
                return int(value)
            if name.endswith("_id"):
                return _number_text(value)
            return float(value)
        return str(value) if name.endswith("_id") and isinstance(value, int) else value

    def _microseconds(self, column: Any) -> list[int | None]:  # noqa: ANN401
        """Return a column of times in us since the epoch, UTC; finer times are cut to us."""
        if self._pa.types.is_date(column.type):
            days = column.cast(self._pa.date32()).cast(self._pa.int32()).to_pylist()
            return [None if day is None else day * 86_400_000_000 for day in days]
        per_second = _UNITS_PER_SECOND[column.type.unit]
        times: list[int | None] = column.cast(self._pa.int64()).to_pylist()
        return [None if time is None else time * 1_000_000 // per_second for time in times]

    def _read_error(self, exc: Exception) -> InputFileError:
        return InputFileError(f"{self._path} cannot be read: {str(exc) or 'it needs too much memory'}")


def _is_text(pa: Any, column_type: Any) -> bool:  # noqa: ANN401
    types = pa.types
    return bool(
        types.is_string(column_type)
        or types.is_large_string(column_type)
        or types.is_binary(column_type)
        or types.is_large_binary(column_type)
    )


def _event_line(number: int, fields: dict[str, object]) -> Line:
    try:
        return json_line(number, event_json(fields))
    except (TypeError, ValueError, RecursionError) as exc:
        return Line(number, error=f"the row has no JSON: {exc}")


def _cell(name: str, value: object) -> str:
    """Return a value as CSV text. A whole number of a column with nulls comes as 100.0 and is written 100."""
    if value is None:
        return ""
    if isinstance(value, float | Decimal) and name != "price":
        return _number_text(value)
    return str(value)


def _number_text(value: float | Decimal) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


@lru_cache(maxsize=CACHED_TIMES)
def time_text(microseconds: int) -> str:
    """Return a time as CSV text, with as many digits of a second as the time needs: none, 3 or 6.

    A time outside the years 1 to 9999 is returned as its number, which no format takes for a time.
    """
    try:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return str(microseconds)
    text = f"{time:%Y-%m-%d %H:%M:%S}"
    if time.microsecond:
        text += f".{time.microsecond // 1000:03}" if time.microsecond % 1000 == 0 else f".{time.microsecond:06}"
    return f"{text} UTC"


def _seconds_text(microseconds: int) -> str:
    """Return a time as seconds since the epoch, with digits behind the point only for a part of a second."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{seconds}.{rest:06}" if rest else str(seconds)
