"""Adapters: event files of several shapes, read as the lines that `clickstream-events` would hold.

* `clickscore`  JSON lines as the topic holds them; passed on byte for byte, even broken ones, as a topic would
* `taobao`      Taobao UserBehavior: user, item, category, behaviour, seconds; no header
* `rees46`      REES46 stores: a header names the columns
* `csv`         any shop's rows: a header names event_time, event_type, item, category, user, session, price

Files may be plain, gzip, Zstandard or Parquet: their first bytes say which. Where a source has no event ids, an id is
the hash of its row, so that an exact duplicate repeats it, in any process.
"""

import csv
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import msgspec
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

Format = Literal["clickscore", "taobao", "rees46", "csv"]

HeadedEvent = Callable[[list[str], str, tuple[int, ...]], AnyEvent]
"""Makes an event of a row, its id, and where the columns are."""

ItemEventClass = type[View] | type[Cart] | type[RemoveFromCart] | type[Favourite] | type[Purchase]

TAOBAO_CLASSES: dict[str, ItemEventClass] = {"pv": View, "cart": Cart, "fav": Favourite, "buy": Purchase}

TAOBAO_COLUMNS = ("user_id", "item_id", "category_id", "behavior", "timestamp")
"""As its authors name them, which a Parquet file must; the CSV names none."""

REES46_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "purchase": Purchase,
}

REES46_COLUMNS = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
)

CSV_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "favourite": Favourite,
    "follow": Favourite,
    "purchase": Purchase,
}

CSV_COLUMNS = ("event_time", "event_type", "item", "category", "user", "session", "price")
"""The time is ISO 8601, UTC unless it says otherwise; category, session and price may be empty."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a file: a record for the topic, or an error in words."""

    number: int
    """From 1, the header included."""
    value: bytes = b""
    """The record's value."""
    key: bytes | None = None
    """The user id; none where a broken line of a `clickscore` file does not say."""
    ts: int | None = None
    """Event time in ms, where the line says it."""
    error: str | None = None
    """Why there is no record."""

    @property
    def routing(self) -> bytes:
        """What chooses the partition: the key, or the value of a record without one, so that a rerun does the same."""
        return self.value if self.key is None else self.key


def event_id_of(row: bytes) -> str:
    """Return the id of an event whose source has none: equal rows, and only those, have equal ids."""
    return xxhash.xxh3_128_hexdigest(row)


def taobao_event(row: list[str], event_id: str) -> AnyEvent:
    """Return the event of a row: user_id, item_id, category_id, behaviour, seconds since the epoch.

    Raises:
        ValueError: The row is malformed, in words.
    """
    if len(row) != 5:
        message = f"{len(row)} columns instead of 5"
        raise ValueError(message)
    user, item, category, behaviour, seconds = row
    kind = TAOBAO_CLASSES.get(behaviour)
    if kind is None:
        message = f"unknown behaviour {behaviour!r}"
        raise ValueError(message)
    if not (seconds.isascii() and seconds.removeprefix("-").isdigit()):
        message = "the timestamp is no whole number of seconds"
        raise ValueError(message)
    return kind(event_id=event_id, user_id=user, ts=int(seconds) * 1000, item_id=item, category=category or None)


def rees46_event(row: list[str], event_id: str, columns: tuple[int, ...] = tuple(range(9))) -> AnyEvent:
    """Return the event of a row; `columns` says where each of `REES46_COLUMNS` stands in it.

    The category is its name where the shop has one, else its number.

    Raises:
        ValueError: The row is malformed, in words.
    """
    try:
        time, kind_name, item, category_id, category, _, price, user, session = [row[column] for column in columns]
    except IndexError:
        message = "fewer columns than the header has"
        raise ValueError(message) from None
    kind = REES46_CLASSES.get(kind_name)
    if kind is None:
        message = f"unknown event_type {kind_name!r}"
        raise ValueError(message)
    return kind(
        event_id=event_id,
        user_id=user,
        ts=_rees46_ts(time),
        session_id=session or None,
        item_id=item,
        price=_price(price),
        category=category or category_id or None,
    )


def csv_event(row: list[str], event_id: str, columns: tuple[int, ...] = tuple(range(7))) -> AnyEvent:
    """Return the event of a row; `columns` says where each of `CSV_COLUMNS` stands in it.

    Raises:
        ValueError: The row is malformed, in words.
    """
    try:
        time, kind_name, item, category, user, session, price = [row[column] for column in columns]
    except IndexError:
        message = "fewer columns than the header has"
        raise ValueError(message) from None
    kind = CSV_CLASSES.get(kind_name)
    if kind is None:
        message = f"unknown event_type {kind_name!r}"
        raise ValueError(message)
    return kind(
        event_id=event_id,
        user_id=user,
        ts=_iso_ts(time.removesuffix(" UTC")),
        session_id=session or None,
        item_id=item,
        price=_price(price),
        category=category or None,
    )


@lru_cache(maxsize=1024)  # neighbours in a file share their second
def _iso_ts(time: str) -> int:
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        message = "event_time is not like `2018-03-01 00:00:06`"
        raise ValueError(message) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


@lru_cache(maxsize=1024)  # neighbours in a file share their second
def _rees46_ts(time: str) -> int:
    try:
        if not time.endswith(" UTC"):
            raise ValueError  # noqa: TRY301 (no zone and a wrong date are the same fault)
        return int(datetime.fromisoformat(time.removesuffix(" UTC")).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        message = "event_time is not like `2019-10-01 00:00:00 UTC`"
        raise ValueError(message) from None


def _price(text: str) -> float | None:
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


class _Head(msgspec.Struct, gc=False):
    """What routing and pacing need of a line that is passed on as it is."""

    user_id: str | None = None
    ts: int | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


def clickscore_line(number: int, line: bytes) -> Line:
    """Return a line of events in our own JSON."""
    try:
        head = _decode_head(line)
    except ValueError:  # broken, or of other types: whoever decodes it whole will say so
        return Line(number, line)
    return Line(number, line, head.user_id.encode() if head.user_id else None, head.ts)


def row_line(number: int, line: bytes, to_event: Callable[[list[str], str], AnyEvent]) -> Line:
    """Return a line of a format of rows, made an event by `to_event`."""
    row = line.removesuffix(b"\r")
    try:
        event = to_event(_columns(row), event_id_of(row))
        value = encode_event(event)
        decode_record(value)  # the schema's bounds: a struct that is built is not checked
    except UnicodeDecodeError:
        return Line(number, error="the row is not UTF-8")
    except (ValueError, csv.Error) as exc:
        return Line(number, error=str(exc))
    return Line(number, value, event.user_id.encode(), event.ts)


def _columns(row: bytes) -> list[str]:
    text = row.decode()
    return next(csv.reader([text], strict=True)) if '"' in text else text.split(",")


def taobao_line(number: int, line: bytes) -> Line:
    """Return a line of a Taobao file."""
    return row_line(number, line, taobao_event)


def rees46_line(number: int, line: bytes) -> Line:
    """Return a line of a REES46 file."""
    """Return the line of a row whose columns stand in the order of `REES46_COLUMNS`."""
    return row_line(number, line, rees46_event)


def csv_row_line(number: int, line: bytes) -> Line:
    """Return a line of a file in our own CSV layout."""
    """Return the line of a row whose columns stand in the order of `CSV_COLUMNS`."""
    return row_line(number, line, csv_event)
