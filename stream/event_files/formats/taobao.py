"""Taobao UserBehavior: rows of user, item, category, behaviour and seconds since the epoch, without a header."""

from collections.abc import Sequence

from clickscore.schemas.events import AnyEvent, Cart, Favourite, Purchase, View
from clickscore.stream.event_files.formats.rows import ItemEventClass, RowFormat

_CLASSES: dict[str, ItemEventClass] = {"pv": View, "cart": Cart, "fav": Favourite, "buy": Purchase}


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
    if not (seconds.isascii() and seconds.removeprefix("-").isdigit()):
        message = "the timestamp is no whole number of seconds"
        raise ValueError(message)
    return event_class(event_id=event_id, user_id=user, ts=int(seconds) * 1000, item_id=item, category=category or None)


TAOBAO = RowFormat(
    name="Taobao",
    columns=("user_id", "item_id", "category_id", "behavior", "timestamp"),  # the names that its authors use
    has_header=False,
    to_event=taobao_event,
)
