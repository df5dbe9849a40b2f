"""Shop CSV: the rows of any shop; a header names the columns."""

from collections.abc import Sequence

from clickscore.schemas.events import AnyEvent, Cart, Favourite, Purchase, RemoveFromCart, View
from clickscore.stream.event_files.formats.rows import ItemEventClass, RowFormat, parse_iso_time, parse_price

_CLASSES: dict[str, ItemEventClass] = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "favourite": Favourite,
    "follow": Favourite,
    "purchase": Purchase,
}


def shop_csv_event(cells: Sequence[str], event_id: str) -> AnyEvent:
    """Return the event of a row. The cells of category, session and price may be empty.

    Raises:
        ValueError: The row is malformed; the message says how.
    """
    time, event_type, item, category, user, session, price = cells
    event_class = _CLASSES.get(event_type)
    if event_class is None:
        message = f"unknown event_type {event_type!r}"
        raise ValueError(message)
    return event_class(
        event_id=event_id,
        user_id=user,
        ts=parse_iso_time(time),
        session_id=session or None,
        item_id=item,
        price=parse_price(price),
        category=category or None,
    )


SHOP_CSV = RowFormat(
    name="csv",
    columns=("event_time", "event_type", "item", "category", "user", "session", "price"),
    has_header=True,
    to_event=shop_csv_event,
)
