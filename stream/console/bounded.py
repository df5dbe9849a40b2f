"""Bounded tables: a limited number of entries by name, made on demand."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar("Entry")


def bounded_entry(table: OrderedDict[str, Entry], name: str, make: Callable[[], Entry], max_entries: int) -> Entry:
    """Return the entry of a name; a new entry for a new name. The entry without use for the longest time goes.

    Args:
        table: Entries by name, the one without use for the longest time first.
        name: Name of the entry.
        make: Makes a new entry.
        max_entries: Most entries of the table.
    """
    entry = table.get(name)
    if entry is None:
        entry = table[name] = make()
        if len(table) > max_entries:
            table.popitem(last=False)
    else:
        table.move_to_end(name)
    return entry


def bounded_count(counts: dict[str, int], name: str, max_names: int) -> None:
    """Count a name. With twice as many names as allowed, the less frequent half is dropped.

    Args:
        counts: Counts by name. A plain dictionary: thousands of counters are made a second, and a Counter takes longer.
        name: Name to count.
        max_names: Number of names to keep.
    """
    counts[name] = counts.get(name, 0) + 1
    if len(counts) > 2 * max_names:
        retained = sorted(counts.items(), key=lambda pair: -pair[1])[:max_names]
        counts.clear()
        counts.update(retained)
