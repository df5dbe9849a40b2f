"""Stock: pieces of each item in the synthetic shop. A sold-out item is delivered again later."""

import heapq
from collections.abc import Sequence

import msgspec
import numpy as np

from clickscore.schemas.catalogue import Item

_RESTOCK_MS = (20_000, 60_000)  # time from sold out to the next delivery
_RESTOCK_TO = 25


class Stock:
    """Remaining pieces of each item, by row."""

    def __init__(self, items: Sequence[Item], rng: np.random.Generator) -> None:
        self._items = items
        self._rng = rng
        self._left = [item.stock or 0 for item in items]
        self._deliveries: list[tuple[int, int]] = []
        self._changed: dict[int, None] = {}

    def take(self, row: int, now: int) -> bool:
        """Sell one piece. Return whether a piece was available."""
        if not self._left[row]:
            return False
        self._left[row] -= 1
        self._changed[row] = None
        if not self._left[row]:
            heapq.heappush(self._deliveries, (now + int(self._rng.integers(*_RESTOCK_MS)), row))
        return True

    def collect(self, now: int) -> list[Item]:
        """Return the items whose stock has changed since the last call, with all deliveries due by `now`."""
        while self._deliveries and self._deliveries[0][0] <= now:
            _, row = heapq.heappop(self._deliveries)
            self._left[row] = _RESTOCK_TO
            self._changed[row] = None
        changed, self._changed = self._changed, {}
        return [msgspec.structs.replace(self._items[row], stock=self._left[row]) for row in changed]
