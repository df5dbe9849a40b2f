"""Rows: columns, event ids, times and prices of a row, and the event of a row, for all formats of rows.

A source of rows has no event ids. The id of an event is the hash of the text of its row: an exact duplicate gets the
same id in any process, so that the worker can deduplicate events.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import xxhash

from clickscore.schemas.events import (
    AnyEvent,
    Cart,
    Favourite,
    Purchase,
    RemoveFromCart,
    View,
    decode_record,
    encode_event,
)
from clickscore.stream.event_files.lines import Line

ItemEventClass = type[View] | type[Cart] | type[RemoveFromCart] | type[Favourite] | type[Purchase]

CACHED_TIMES = 1024
"""Number of cached times. The rows of a file are sorted by time, so neighbours share their second."""

SEPARATORS = (",", ";", "\t", "|")
"""Characters between the cells of a row, the usual one first."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """A format of rows: the columns, and the function from a row to an event."""

    name: str
    """Name of the format, for messages."""
    columns: tuple[str, ...]
    """Names of the required columns, in the order of the cells of `to_event`."""
    has_header: bool
    """Whether the first line of a text file names the columns, in any order. A Parquet file always has column names."""
    to_event: Callable[[Sequence[str], str], AnyEvent]
    """Makes an event of the cells of a row and an event id; raises ValueError if the row is malformed."""


def row_event_id(row: bytes) -> str:
    """Return the event id of a row of text: equal rows, and only equal rows, have equal ids."""
    return xxhash.xxh3_128_hexdigest(row)


def row_line(number: int, cells: Sequence[str], row: bytes, row_format: RowFormat) -> Line:
    """Return the line of a row.

    Args:
        number: Number of the row in the file, from 1.
        cells: Values of the columns, in the order of `row_format.columns`.
        row: Text of the whole row, the source of the event id.
        row_format: Format of the row.
    """
    try:
        event = row_format.to_event(cells, row_event_id(row))
        value = encode_event(event)
        decode_record(value)  # checks the bounds of the schema: msgspec does not check a struct that is built
    except (ValueError, OverflowError) as exc:
        return Line(number, error=str(exc))
    return Line(number, value, event.user_id.encode(), event.ts)


def row_text(cells: Sequence[str]) -> bytes:
    """Return the cells of a row as a line of CSV, exactly as `csv.writer` does."""
    text = ",".join(cells)
    if text.count(",") == len(cells) - 1 and not ('"' in text or "\n" in text or "\r" in text):
        return text.encode(errors="replace")
    quoted = io.StringIO()
    csv.writer(quoted, lineterminator="").writerow(cells)
    return quoted.getvalue().encode(errors="replace")


def column_indices(names: Sequence[str], columns: Sequence[str]) -> tuple[int, ...]:
    """Return the index of each column in the names of a header, in any case; empty if the header lacks a column.

    Args:
        names: Names in the header, in order.
        columns: Names of the wanted columns, in lower case.
    """
    indices = {name.strip().casefold(): index for index, name in reversed(list(enumerate(names)))}
    return tuple(indices[name] for name in columns) if all(name in indices for name in columns) else ()


@lru_cache(maxsize=CACHED_TIMES)
def parse_iso_time(text: str) -> int:
    """Return an ISO 8601 time in ms since the epoch; a time without a zone is UTC.

    Raises:
        ValueError: The text is not a time.
    """
    try:
        time = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        message = "event_time is not like `2018-03-01 00:00:06`"
        raise ValueError(message) from None
    return epoch_ms(time if time.tzinfo else time.replace(tzinfo=UTC))


def epoch_ms(time: datetime) -> int:
    """Return a time with a zone in ms since the epoch; finer times are cut to ms. The result is exact."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def parse_price(text: str) -> float | None:
    """Return a price, or None if the cell is empty.

    Raises:
        ValueError: The text is not a finite number.
    """
    if not text:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        message = "price is no number"
        raise ValueError(message)
    return price
