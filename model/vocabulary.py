"""Vocabulary: the row of each item in the model's tables; row 0 is padding, row 1 the most popular item."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Ints

UNKNOWN = 0
"""Row of an unknown item: the row of padding."""
POPULAR_ITEMS = 200
"""Items in the list of popular ones, at most: a worker shows them where the model has no answer (cold start)."""


class Vocabulary:
    """Item ids by row, in order of popularity."""

    def __init__(self, items: Sequence[str]) -> None:
        """Number the items from row 1."""
        self.items = tuple(items)
        self._rows = {item: row for row, item in enumerate(self.items, start=1)}

    def __len__(self) -> int:
        """Return the number of items, without the padding row."""
        return len(self.items)

    def row(self, item_id: str) -> int:
        """Return an item's row, 0 if it is unknown."""
        return self._rows.get(item_id, UNKNOWN)

    def item(self, row: int) -> str:
        """Return the item of a row, at least 1."""
        return self.items[row - 1]

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the row of each item, 0 if it is unknown: (len(item_ids),)."""
        return np.fromiter((self.row(item) for item in item_ids), dtype=np.int32, count=len(item_ids))

    def extend(self, item_ids: Sequence[str]) -> "Vocabulary":
        """Return a vocabulary with the unknown items of `item_ids` after these items, whose rows stay."""
        return Vocabulary([*self.items, *(item for item in item_ids if self.row(item) == UNKNOWN)])

    def to_bytes(self) -> bytes:
        """Return the content of `items.txt`: line n, from 0, is the item of row n + 1."""
        return "".join(f"{item}\n" for item in self.items).encode()


def count_items(item_ids: Sequence[str], seen: Ints, min_count: int) -> Vocabulary:
    """Return the vocabulary of the items that were seen often enough, by falling count, ties by id.

    Args:
        item_ids: Distinct item ids.
        seen: Index into `item_ids` of each event: (events,).
        min_count: Events of an item, at least.
    """
    counts = np.bincount(seen, minlength=len(item_ids))  # (item_ids,)
    frequent = [index for index in np.flatnonzero(counts >= min_count).tolist() if fits_on_line(item_ids[index])]
    frequent.sort(key=lambda index: (-int(counts[index]), item_ids[index]))
    return Vocabulary([item_ids[index] for index in frequent])


def fits_on_line(item_id: str) -> bool:
    """Return whether an id is a single line of `items.txt`, for every kind of line end that `splitlines` knows."""
    return item_id.splitlines() == [item_id]


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary of an `items.txt`."""
    return Vocabulary(path.read_text(encoding="utf-8").splitlines())
