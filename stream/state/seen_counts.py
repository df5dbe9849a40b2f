"""Seen counts: how often each item was shown to a user in the open session since the last event with the item.

An impression counts at its own record in the log. All records of a user are in a single partition, so the counts are
exact, and a replay finds equal counts. The counts end with the session: the next visit may have another purpose, and no
data outlives the session.
"""

from clickscore.schemas.seen_items import MAX_IMPRESSIONS, join_seen, short_hash, split_seen


def add_impression(seen: bytes, item_id: str, event_id: str, max_items: int) -> bytes | None:
    """Return the counts with another impression; None where the event repeats the item's newest impression.

    Args:
        seen: The counts so far.
        item_id: The shown item.
        event_id: Id of the event.
        max_items: Largest number of items; the items without an impression for the longest time are forgotten first.
    """
    items, item, event = split_seen(seen), short_hash(item_id), short_hash(event_id)
    newest, count = items.pop(item, (b"", 0))
    if newest == event:
        return None
    items[item] = event, min(count + 1, MAX_IMPRESSIONS)
    return join_seen(items, max_items)


def forget_item(seen: bytes, item_id: str) -> bytes | None:
    """Return the counts without an opened item; None where no count remains."""
    items = split_seen(seen)
    items.pop(short_hash(item_id), None)
    return join_seen(items, len(items)) or None


def merge_counts(seen: bytes | None, handed: bytes, max_items: int) -> bytes | None:
    """Return the counts of a user together with those of an anonymous id; None where nothing is counted.

    Args:
        seen: Counts of the user; None without counts.
        handed: Counts of the anonymous id, which count as older.
        max_items: Largest number of items; the oldest are forgotten first.
    """
    handed_items, items = split_seen(handed), split_seen(seen or b"")
    for item, (event, count) in items.items():
        handed_event, handed_count = handed_items.pop(item, (b"", 0))
        total = count + handed_count - (handed_event == event)  # an impression that both halves have counts once
        items[item] = event, min(total, MAX_IMPRESSIONS)
    return join_seen(handed_items | items, max_items) or None
