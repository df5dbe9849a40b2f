"""Neighbours: which items are met near which in sessions, and the nearest few of each. Pure numpy."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Longs
from clickscore.model.examples import Examples

WINDOW = 5
"""Events that count as near, in both directions."""
COUNT_UNIT = 60
"""What a meeting at distance 1 counts, distance d a d-th of it: whole numbers for each distance up to 5, so that sums
are exact and a part can be taken out of a whole again."""
NEWEST_WEIGHT = 16
"""What a meeting in the newest session counts, and one in an older session a share of, rounded up."""
ITEM_MASK = 2**32 - 1
"""Mask of a key's second item."""
_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class PairCounts:
    """How often items meet."""

    keys: Longs
    """Row of the first * 2**32 + row of the second, distinct and ascending: (pairs,)."""
    counts: Longs
    """In units of `COUNT_UNIT`, times what its session counts: (pairs,)."""


class Neighbours(NamedTuple):
    """The items that each item meets most, most first; 0 with a share of 0 where there are fewer."""

    rows: npt.NDArray[np.int32]
    """(V, K), row 0 of the table included."""
    shares: npt.NDArray[np.float32]
    """Of the kept neighbours' counts, 1 in total: (V, K)."""


def weigh_by_age(sessions: int, half: float) -> Longs:
    """Return what a meeting counts in each of so many sessions, the oldest first: (sessions,).

    Args:
        sessions: How many.
        half: Share of the sessions after which a meeting counts half.
    """
    age = np.arange(sessions - 1, -1, -1) / sessions
    return np.ceil(NEWEST_WEIGHT * 0.5 ** (age / half)).astype(np.int64)


def decay_counts(pairs: PairCounts, share: float, half: float) -> PairCounts:
    """Return counts as they are once newer sessions have come, in whole numbers; what is left of none goes.

    Args:
        pairs: Counts of sessions, the newest of which counts `NEWEST_WEIGHT`.
        share: Of all sessions, those that are newer than these.
        half: As `weigh_by_age` takes it.
    """
    counts = np.rint(pairs.counts * 0.5 ** (share / half)).astype(np.int64)
    return PairCounts(pairs.keys[counts > 0], counts[counts > 0])


def count_pairs(of: Examples, weights: Longs | None = None) -> PairCounts:
    """Return how often items meet in sessions, an item and itself aside.

    Args:
        of: The sessions.
        weights: What a meeting in each counts: (sessions,). 1 where there are none.
    """
    following = count_following(of, weights)
    first, second = following.keys >> 32, following.keys & ITEM_MASK
    keys, counts = following.keys[first != second], following.counts[first != second]
    other_way = (second << 32 | first)[first != second]
    return _summed(np.concatenate((keys, other_way)), np.concatenate((counts, counts)))


def count_following(of: Examples, weights: Longs | None = None) -> PairCounts:
    """Return how often items follow each other: `COUNT_UNIT` / distance a time, up to `WINDOW` events apart."""
    weight = np.ones(len(of), dtype=np.int64) if weights is None else weights
    session = np.repeat(np.arange(len(of)), of.lengths)  # (events,)
    items = of.items.astype(np.int64)
    keys: list[Longs] = []
    counts: list[Longs] = []
    for distance in range(1, WINDOW + 1):
        near = session[:-distance] == session[distance:]
        keys.append((items[:-distance] << 32 | items[distance:])[near])
        counts.append(COUNT_UNIT // distance * weight[session[distance:][near]])
    return _summed(np.concatenate(keys), np.concatenate(counts))


def add_counts(one: PairCounts, other: PairCounts) -> PairCounts:
    """Return the counts of two sets of sessions as one."""
    return _summed(np.concatenate((one.keys, other.keys)), np.concatenate((one.counts, other.counts)))


def subtract_counts(whole: PairCounts, part: PairCounts) -> PairCounts:
    """Return the counts of the sessions of `whole` that are not in its `part`."""
    counts = whole.counts.copy()
    counts[np.searchsorted(whole.keys, part.keys)] -= part.counts
    left = counts > 0
    return PairCounts(whole.keys[left], counts[left])


def select_neighbours(pairs: PairCounts, rows: int, most: int) -> Neighbours:
    """Return the neighbours of each row, at most so many; equal ones in order of row.

    Args:
        pairs: What met what.
        rows: Rows of the table, padding included.
        most: Neighbours of a row.
    """
    first = pairs.keys >> 32  # (pairs,)
    order = np.argsort((first << 31) | (_MOST - pairs.counts.clip(max=_MOST)), kind="stable")  # by row, most first
    first = first[order]
    place = np.arange(len(first)) - np.searchsorted(first, first)  # among those of its row
    kept = order[place < most]
    at = pairs.keys[kept] >> 32, place[place < most]
    neighbours = np.zeros((rows, most), dtype=np.int32)
    counts = np.zeros((rows, most), dtype=np.float64)
    neighbours[at] = pairs.keys[kept] & ITEM_MASK
    counts[at] = pairs.counts[kept]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    return Neighbours(neighbours, shares.astype(np.float32))


def _summed(keys: Longs, counts: Longs) -> PairCounts:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return PairCounts(keys[first], np.add.reduceat(counts, first) if len(first) else counts)
