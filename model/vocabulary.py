"""Vocabulary: which row of the model's tables stands for which item; row 0 is padding, row 1 the most popular."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN = 0
POPULAR = 200
"""Items in a list of popular ones, at most."""


class Vocabulary:
    """Item ids by row, in order of popularity."""

    def __init__(self, items: Sequence[str]) -> None:
        """Number items from row 1."""
        self.items = tuple(items)
        self._row_of = {item: row for row, item in enumerate(self.items, start=1)}

    def __len__(self) -> int:
        """Return how many items it knows, padding not counted."""
        return len(self.items)

    def row(self, item_id: str) -> int:
        """Return an item's row, 0 where it is unknown."""
        return self._row_of.get(item_id, UNKNOWN)

    def item(self, row: int) -> str:
        """Return the item of a row, at least 1."""
        return self.items[row - 1]

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the row of each item, 0 where it is unknown: (len(item_ids),)."""
        return np.fromiter((self.row(item) for item in item_ids), dtype=np.int32, count=len(item_ids))

    def extend(self, item_ids: Sequence[str]) -> "Vocabulary":
        """Return this vocabulary with the items that it does not know after its own."""
        return Vocabulary([*self.items, *(item for item in item_ids if self.row(item) == UNKNOWN)])

    def to_bytes(self) -> bytes:
        """Return the text of `items.txt`: line n, from 0, is the item of row n + 1."""
        return "".join(f"{item}\n" for item in self.items).encode()


def count_items(item_ids: Sequence[str], seen: npt.NDArray[np.signedinteger[Any]], min_count: int) -> Vocabulary:
    """Return the vocabulary of what was seen often enough: most seen first, equal ones by id.

    Args:
        item_ids: Names of items.
        seen: Indices of `item_ids`, one for each time: (times,).
        min_count: Times that an item must have been seen.
    """
    counts = np.bincount(seen, minlength=len(item_ids))  # (len(item_ids),)
    often = [index for index in np.flatnonzero(counts >= min_count).tolist() if fits_on_line(item_ids[index])]
    often.sort(key=lambda index: (-int(counts[index]), item_ids[index]))
    return Vocabulary([item_ids[index] for index in often])


def fits_on_line(item_id: str) -> bool:
    """Return whether an id fits on a line of `items.txt`, whatever its reader takes for the end of one."""
    return item_id.splitlines() == [item_id]


def read_vocabulary(path: Path) -> Vocabulary:
    """Return what `to_bytes` wrote."""
    return Vocabulary(path.read_text(encoding="utf-8").splitlines())
