"""Recorded items: the items of recorded events as catalogue records, with the last price and category."""

from collections.abc import Iterable

from clickscore.schemas.catalogue import Item
from clickscore.schemas.events import ItemEvent, decode_record
from clickscore.stream.event_files.lines import Line


def collect_items(lines: Iterable[Line]) -> list[Item]:
    """Return the items of events, each with the last category and price, in the order of their first events."""
    items: dict[str, Item] = {}
    for line in lines:
        event = _item_event(line.value)
        if event is None:
            continue
        last = items.get(event.item_id) or Item(item_id=event.item_id)
        items[event.item_id] = Item(
            item_id=event.item_id,
            category=event.category or last.category,
            price=event.price if event.price is not None else last.price,
        )
    return list(items.values())


def _item_event(value: bytes) -> ItemEvent | None:
    """Return the event of a line; absent for a search and for a broken line."""
    try:
        record = decode_record(value)
    except ValueError:  # `clickscore events check` reports such lines
        return None
    return record if isinstance(record, ItemEvent) else None
