"""Bounded tables: a limited number of entries by name, made on demand."""

from collections import Counter, OrderedDict
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


def bounded_count(counter: Counter[str], name: str, max_names: int) -> None:
    """Count a name. With twice as many names as allowed, the less frequent half is dropped.

    Args:
        counter: Counts by name.
        name: Name to count.
        max_names: Names that are kept.
    """
    counter[name] += 1
    if len(counter) > 2 * max_names:
        retained = counter.most_common(max_names)
        counter.clear()
        counter.update(dict(retained))
