"""Taobao UserBehavior: rows of user, item, category, behaviour and seconds since the epoch, without a header."""

from collections.abc import Sequence

from clickscore.schemas.events import (
    NANOSECONDS_FROM,
    YEAR_2000_MS,
    YEAR_9999_MS,
    AnyEvent,
    Cart,
    Favourite,
    Purchase,
    View,
)
from clickscore.stream.event_files.formats.rows import ItemEventClass, RowFormat

_CLASSES: dict[str, ItemEventClass] = {"pv": View, "cart": Cart, "fav": Favourite, "buy": Purchase}

MAX_DIGITS = 20
"""Digits of a time that are read: nanoseconds have 19, and Python converts no number of thousands of digits."""


def taobao_event(cells: Sequence[str], event_id: str) -> AnyEvent:
    """Return the event of a row.

    Raises:
        ValueError: The row is malformed; the message says how.
    """
    if len(cells) != 5:
        message = f"{len(cells)} columns instead of 5"
        raise ValueError(message)
    user, item, category, behaviour, seconds = cells
    event_class = _CLASSES.get(behaviour)
    if event_class is None:
        message = f"unknown behaviour {behaviour!r}"
        raise ValueError(message)
    ts = _milliseconds(seconds)
    return event_class(event_id=event_id, user_id=user, ts=ts, item_id=item, category=category or None)


def _milliseconds(seconds: str) -> int:
    """Return a time in seconds since 1970 in ms.

    Raises:
        ValueError: The text is no whole number, or the number has another unit; the message names the unit.
    """
    if not (seconds.isascii() and seconds.removeprefix("-").isdigit()):
        message = "the timestamp is no whole number of seconds"
        raise ValueError(message)
    number = int(seconds[:MAX_DIGITS])
    if YEAR_2000_MS <= number * 1000 <= YEAR_9999_MS:
        return number * 1000
    if number < 0:
        unit = "a time before 1970"
    elif number * 1000 < YEAR_2000_MS:
        unit = "a time before the year 2000"
    elif number < YEAR_2000_MS:
        unit = "a time after the year 9999"
    elif number <= YEAR_9999_MS:
        unit = "milliseconds"
    else:
        unit = "microseconds" if number < NANOSECONDS_FROM else "nanoseconds"
    message = f"the timestamp looks like {unit}: it must be seconds since 1970, UTC, from the year 2000 to 9999"
    raise ValueError(message)


TAOBAO = RowFormat(
    name="Taobao",
    columns=("user_id", "item_id", "category_id", "behavior", "timestamp"),  # the names that its authors use
    has_header=False,
    to_event=taobao_event,
)
