"""Recorded items: the items of recorded events as catalogue records, with the last price and category."""

from collections.abc import Iterable

from clickscore.schemas.catalogue import Item
from clickscore.schemas.events import ItemEvent, decode_record
from clickscore.stream.event_files.lines import Line


def collect_items(lines: Iterable[Line]) -> list[Item]:
    """Return the items of events, each with the last category and price, in the order of their first events.

    The last event is the last in time: a file need not be in order of time.
    """
    items: dict[str, Item] = {}
    category_times: dict[str, int] = {}
    price_times: dict[str, int] = {}
    for line in lines:
        event = _item_event(line.value)
        if event is None:
            continue
        last = items.get(event.item_id) or Item(item_id=event.item_id)
        category, price = last.category, last.price
        if event.category and event.ts >= category_times.get(event.item_id, 0):
            category, category_times[event.item_id] = event.category, event.ts
        if event.price is not None and event.ts >= price_times.get(event.item_id, 0):
            price, price_times[event.item_id] = event.price, event.ts
        items[event.item_id] = Item(item_id=event.item_id, category=category, price=price)
    return list(items.values())


def _item_event(value: bytes) -> ItemEvent | None:
    """Return the event of a line; absent for a search and for a broken line."""
    try:
        record = decode_record(value)
    except (ValueError, RecursionError):  # `clickscore events check` reports such lines
        return None
    return record if isinstance(record, ItemEvent) else None
