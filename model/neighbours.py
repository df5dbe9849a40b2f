"""Neighbours: which items follow which in sessions, and for each the few that are met most. Pure numpy."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig
from model.features import Examples, Longs

WINDOW = 5
"""Events that count as near, in both directions."""
UNIT = 60
"""What a meeting at distance 1 counts, distance d a d-th of it: whole numbers for each distance up to 5, so that sums
are exact and a part can be taken out of a whole again."""
DOUBT = 2 * UNIT
"""What is added to all that follows an item: a share of few counts is believed less."""
LOW = 2**32 - 1
"""Mask of a key's later item."""
_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Pairs:
    """How often an item comes soon after another."""

    keys: Longs
    """Row of the earlier * 2**32 + row of the later, distinct and ascending: (pairs,)."""
    counts: Longs
    """In units of `UNIT`: (pairs,)."""


class Near(NamedTuple):
    """Some items for each item, the most counted first; 0 with a share of 0 where there are fewer."""

    rows: npt.NDArray[np.int32]
    """(V, K), row 0 of the table included."""
    shares: npt.NDArray[np.float32]
    """(V, K)."""


def count_pairs(of: Examples, *, repeats: bool = False) -> Pairs:
    """Return how often items follow each other in sessions: `UNIT` / distance a time, up to `WINDOW` events apart.

    Args:
        of: The sessions.
        repeats: Whether an item that follows itself counts, too.
    """
    session = np.repeat(np.arange(len(of)), of.lengths)  # (events,)
    items = of.items.astype(np.int64)
    keys: list[Longs] = []
    weights: list[Longs] = []
    for distance in range(1, WINDOW + 1):
        first, second = items[:-distance], items[distance:]
        near = (session[:-distance] == session[distance:]) & (repeats | (first != second))
        keys.append((first[near] << 32) | second[near])
        weights.append(np.full(len(keys[-1]), UNIT // distance))
    return _summed(np.concatenate(keys), np.concatenate(weights))


def together(one: Pairs, other: Pairs) -> Pairs:
    """Return the counts of two sets of sessions as one."""
    return _summed(np.concatenate((one.keys, other.keys)), np.concatenate((one.counts, other.counts)))


def without(whole: Pairs, part: Pairs) -> Pairs:
    """Return the counts of the sessions of `whole` that are not in its `part`."""
    counts = whole.counts.copy()
    counts[np.searchsorted(whole.keys, part.keys)] -= part.counts
    left = counts > 0
    return Pairs(whole.keys[left], counts[left])


def nearest(pairs: Pairs, rows: int, most: int) -> Near:
    """Return the items that each item is met with most, in either order; shares are of those that are kept.

    Args:
        pairs: What follows what.
        rows: Rows of the table, padding included.
        most: Neighbours of a row.
    """
    other_way = ((pairs.keys & LOW) << 32) | (pairs.keys >> 32)
    found, counts = _largest(together(pairs, Pairs(other_way, pairs.counts)), rows, most)
    return Near(found, (counts / counts.sum(axis=1, keepdims=True).clip(min=1)).astype(np.float32))


def followers(pairs: Pairs, rows: int, most: int) -> Near:
    """Return the items that follow each item most; shares are of all that follow it and `DOUBT` more.

    Args:
        pairs: What follows what.
        rows: Rows of the table, padding included.
        most: Followers of a row.
    """
    found, counts = _largest(pairs, rows, most)
    total = np.bincount(pairs.keys >> 32, weights=pairs.counts, minlength=rows)[:, None]  # (V, 1)
    return Near(found, (counts / (total + DOUBT)).astype(np.float32))


class Counts(NamedTuple):
    """What a model knows by counting: which items are near each other, and which follow which."""

    neighbours: Near
    followers: Near


def counts(pairs: Pairs, rows: int, config: ModelConfig) -> Counts:
    """Return what a model of that shape, with so many rows, knows of pairs."""
    return Counts(nearest(pairs, rows, config.neighbours), followers(pairs, rows, config.followers))


def _largest(pairs: Pairs, rows: int, most: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the items that are counted most with each first item, equal ones in order of row: (V, K) each."""
    first = pairs.keys >> 32  # (pairs,)
    order = np.argsort((first << 31) | (_MOST - pairs.counts.clip(max=_MOST)), kind="stable")  # by row, most first
    first = first[order]
    place = np.arange(len(first)) - np.searchsorted(first, first)  # among those of its row
    kept = order[place < most]
    at = pairs.keys[kept] >> 32, place[place < most]
    found = np.zeros((rows, most), dtype=np.int32)
    counts = np.zeros((rows, most), dtype=np.float64)
    found[at] = pairs.keys[kept] & LOW
    counts[at] = pairs.counts[kept]
    return found, counts


def _summed(keys: Longs, counts: Longs) -> Pairs:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return Pairs(keys[first], np.add.reduceat(counts, first) if len(first) else counts)
