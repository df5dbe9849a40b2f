"""REES46: rows of the store logs of REES46; a header names the columns."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from clickscore.schemas.events import AnyEvent, Cart, Purchase, RemoveFromCart, View
from clickscore.stream.event_files.formats.rows import CACHED_TIMES, ItemEventClass, RowFormat, epoch_ms, parse_price

_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "purchase": Purchase,
}


def rees46_event(cells: Sequence[str], event_id: str) -> AnyEvent:
    """Return the event of a row. The category is the category's name, or the category's number if the name is empty.

    Raises:
        ValueError: The row is malformed; the message says how.
    """
    time, event_type, item, category_id, category, _, price, user, session = cells
    event_class = _CLASSES.get(event_type)
    if event_class is None:
        message = f"unknown event_type {event_type!r}"
        raise ValueError(message)
    return event_class(
        event_id=event_id,
        user_id=user,
        ts=_parse_time(time),
        session_id=session or None,
        item_id=item,
        price=parse_price(price),
        category=category or category_id or None,
    )


@lru_cache(maxsize=CACHED_TIMES)
def _parse_time(text: str) -> int:
    try:
        if not text.endswith(" UTC"):
            raise ValueError  # noqa: TRY301 (a missing zone and a wrong date are the same error)
        return epoch_ms(datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=UTC))
    except ValueError:
        message = "event_time is not like `2019-10-01 00:00:00 UTC`"
        raise ValueError(message) from None


REES46 = RowFormat(
    name="REES46",
    columns=(
        "event_time",
        "event_type",
        "product_id",
        "category_id",
        "category_code",
        "brand",
        "price",
        "user_id",
        "user_session",
    ),
    has_header=True,
    to_event=rees46_event,
)
