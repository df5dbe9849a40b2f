"""Seen items: how the impressions of items in a session are written down, for the rule `seen` of a policy."""

import xxhash

MAX_SEEN = 256
"""Largest number of items of a session whose impressions are counted: 4 KB of a user's state."""

SEEN_BYTES = 17
"""Bytes of an item: hashes (xxh3, 64 bits) of the item id and of its newest impression's event id, and the count."""

MAX_IMPRESSIONS = 255
"""Largest count of an item: one byte."""

_HASH_BYTES = 8


def short_hash(text: str) -> bytes:
    """Return the hash of an item id or event id, 8 bytes."""
    return xxhash.xxh3_64_digest(text.encode())


def split_seen(seen: bytes) -> dict[bytes, tuple[bytes, int]]:
    """Return the hash of the newest impression and the count, by the hash of the item; the newest item is last."""
    entries = (seen[start : start + SEEN_BYTES] for start in range(0, len(seen), SEEN_BYTES))
    return {entry[:_HASH_BYTES]: (entry[_HASH_BYTES:-1], entry[-1]) for entry in entries}


def join_seen(items: dict[bytes, tuple[bytes, int]], max_items: int) -> bytes:
    """Return seen items as bytes.

    Args:
        items: As `split_seen` returns them.
        max_items: Largest number of items; the oldest are left out.
    """
    entries = [item + event + bytes((count,)) for item, (event, count) in items.items()]
    return b"".join(entries[max(0, len(entries) - max_items) :])


def hashes_seen_often(seen: bytes, impressions: int) -> frozenset[bytes]:
    """Return the hashes of the items with a number of impressions or more.

    Args:
        seen: Seen items of a session.
        impressions: Smallest number of impressions.
    """
    counts = range(SEEN_BYTES - 1, len(seen), SEEN_BYTES)
    return frozenset(
        seen[end + 1 - SEEN_BYTES : end + 1 - SEEN_BYTES + _HASH_BYTES] for end in counts if seen[end] >= impressions
    )
