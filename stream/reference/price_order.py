"""Price order: items of the same category and brand, in order of price, for the nearest prices to an item's price."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple


class Kind(NamedTuple):
    """Items that a shopper compares by price."""

    category: str
    brand: str


PricedItem = tuple[float, str]
"""Price and id of an item; the price 0 stands for an unknown price."""


class PriceOrder:
    """Items by kind and price. A kind is sorted when it is read for the first time, so a bulk load costs no sort."""

    def __init__(self) -> None:
        self._unsorted: dict[Kind, set[PricedItem]] = {}
        self._sorted: dict[Kind, list[PricedItem]] = {}

    def add(self, kind: Kind, item: PricedItem) -> None:
        """Add an item that the kind does not have."""
        ordered = self._sorted.get(kind)
        if ordered is None:
            self._unsorted.setdefault(kind, set()).add(item)
        else:
            insort(ordered, item)

    def remove(self, kind: Kind, item: PricedItem) -> None:
        """Remove an item that the kind has."""
        ordered = self._sorted.get(kind)
        if ordered is None:
            items = self._unsorted[kind]
            items.remove(item)
            if not items:
                del self._unsorted[kind]
        else:
            del ordered[bisect_left(ordered, item)]
            if not ordered:
                del self._sorted[kind]

    def nearest(self, kind: Kind, price: float) -> Iterator[PricedItem]:
        """Yield the items of a kind, the nearest price first by ratio; the cheaper item first where two are as near.

        Args:
            kind: Category and brand.
            price: Price to compare with.
        """
        ordered = self._in_order(kind)
        after = bisect_left(ordered, (price, ""))
        before = after - 1
        while before >= 0 or after < len(ordered):
            if after == len(ordered) or (before >= 0 and not is_nearer(ordered[after], ordered[before], price)):
                yield ordered[before]
                before -= 1
            else:
                yield ordered[after]
                after += 1

    def below(self, kind: Kind, price: float) -> Iterator[PricedItem]:
        """Yield the items of a kind below a price, from high to low.

        Args:
            kind: Category and brand.
            price: Price to compare with.
        """
        ordered = self._in_order(kind)
        for index in range(bisect_left(ordered, (price, "")) - 1, -1, -1):
            yield ordered[index]

    def _in_order(self, kind: Kind) -> list[PricedItem]:
        unsorted = self._unsorted.pop(kind, None)
        if unsorted is not None:
            self._sorted[kind] = sorted(unsorted)
        return self._sorted.get(kind, [])


def merge_nearest(items: Iterator[PricedItem], others: Iterator[PricedItem], price: float) -> Iterator[PricedItem]:
    """Yield the items of two orders, as `nearest` would yield them from a single order.

    Args:
        items: Items, the nearest price first.
        others: Other items, the nearest price first.
        price: Price to compare with.
    """
    item, other = next(items, None), next(others, None)
    while item is not None and other is not None:
        if comes_before(item, other, price):
            yield item
            item = next(items, None)
        else:
            yield other
            other = next(others, None)
    for remaining, rest in ((item, items), (other, others)):
        if remaining is not None:
            yield remaining
            yield from rest


def comes_before(item: PricedItem, other: PricedItem, price: float) -> bool:
    """Return whether `nearest` yields an item before another one.

    Args:
        item: Item with a price.
        other: Other item.
        price: Price to compare with.
    """
    if is_nearer(item, other, price) or is_nearer(other, item, price):
        return is_nearer(item, other, price)
    # As near: those below the price come first, from high to low; then those above, from low to high
    below = item < (price, ""), other < (price, "")
    if below[0] != below[1]:
        return below[0]
    return (item > other) if below[0] else (item < other)


def is_nearer(item: PricedItem, other: PricedItem, price: float) -> bool:
    """Return whether the price of an item is nearer than that of another by ratio, as |log a - log b| is.

    Products instead of logarithms, because they are the same on every machine.

    Args:
        item: Item with a price.
        other: Other item, with a lower or equal price if it is below `price`.
        price: Price to compare with.
    """
    (first, _), (second, _) = item, other
    first_ratio, first_base = max(first, price), min(first, price)
    second_ratio, second_base = max(second, price), min(second, price)
    return first_ratio * second_base < second_ratio * first_base
