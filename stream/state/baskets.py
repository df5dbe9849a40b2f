"""Baskets: which items the users of a partition bought together, for shelves of complements.

The counts follow from the bought items of the users, so a restart needs no record of the counts, a replay has the same,
and an erased user leaves none. They are made when they are read for the first time: a shop without such a shelf pays
nothing.
"""

from collections.abc import Collection
from heapq import nsmallest
from math import sqrt

BASKET_SIZE = 8
"""Newest bought items of a user that count: a user adds 56 counts at most, however much the user buys."""

MIN_BUYERS = 2
"""Least number of users who bought two items, before they count as bought together: no single user shows."""


class Baskets:
    """Number of buyers of each item, and of each pair of items."""

    def __init__(self) -> None:
        self._baskets: dict[str, tuple[str, ...]] = {}
        self._buyers: dict[str, int] = {}
        self._pairs: dict[str, dict[str, int]] = {}

    def update(self, user_id: str, bought: list[str]) -> None:
        """Replace the basket of a user.

        Args:
            user_id: The user.
            bought: Bought items of the user, newest last; empty for a user who does not count.
        """
        basket, former = tuple(bought[-BASKET_SIZE:]), self._baskets.get(user_id, ())
        if basket == former:
            return
        self._add(former, -1)
        self._add(basket, 1)
        if basket:
            self._baskets[user_id] = basket
        else:
            del self._baskets[user_id]

    def _add(self, basket: tuple[str, ...], step: int) -> None:
        """Add a step to the counts of the items and pairs of a basket; a count of 0 is dropped."""
        for item in basket:
            _count(self._buyers, item, step)
            partners = self._pairs.setdefault(item, {})
            for other in basket:
                if other != item:
                    _count(partners, other, step)
            if not partners:
                del self._pairs[item]

    def companions(self, items: Collection[str], limit: int) -> list[str]:
        """Return the items that were bought together with some items, best first.

        The worth of a companion is the sum of its cosines with the items: the buyers of both, divided by the square
        root of the product of the buyers of each (Linden, Smith and York, Amazon.com recommendations, IEEE Internet
        Computing 7(1), 2003). So an item that everybody buys is no complement of everything.

        Args:
            items: The items; they are not among the result.
            limit: Largest number of companions.
        """
        worth: dict[str, float] = {}
        for item in dict.fromkeys(items):
            for companion, count in self._pairs.get(item, {}).items():
                if count >= MIN_BUYERS and companion not in items:
                    cosine = count / sqrt(self._buyers[item] * self._buyers[companion])
                    worth[companion] = worth.get(companion, 0.0) + cosine
        best = nsmallest(limit, ((-value, companion) for companion, value in worth.items()))
        return [companion for _, companion in best]


def _count(counts: dict[str, int], key: str, step: int) -> None:
    count = counts.get(key, 0) + step
    if count:
        counts[key] = count
    else:
        del counts[key]
