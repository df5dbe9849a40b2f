"""Neighbours: count item co-occurrence in sessions, weighted by distance and age; select the top neighbours.

Counts are whole numbers, so sums are exact: the counts of a fold can be subtracted from the total again.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Longs
from clickscore.model.examples import Examples

WINDOW = 5
"""Largest distance, in events and in both directions, at which two items co-occur."""
COUNT_UNIT = 60
"""Count of a co-occurrence at distance 1; distance d counts 60 / d. 60 is divisible by each distance up to 5."""
NEWEST_WEIGHT = 16
"""Weight of the newest session; older sessions have less, down to 4 if the half-life is half of the sessions."""
ITEM_MASK = 2**32 - 1
"""Mask of the second item in a key."""
_MAX_COUNT = 2**31 - 1  # sort keys hold a row and a count in 63 bits


@dataclasses.dataclass(frozen=True)
class PairCounts:
    """Co-occurrence counts of item pairs. The field names are those of the arrays in `pairs.npz`."""

    keys: Longs
    """Row of the first item * 2**32 + row of the second; distinct and ascending: (pairs,)."""
    counts: Longs
    """Sum over co-occurrences of (`COUNT_UNIT` / distance) * session weight: (pairs,)."""


class Neighbours(NamedTuple):
    """Top K co-occurring items of each item, the largest count first. The field names are stored in checkpoints."""

    rows: npt.NDArray[np.int32]
    """Row of each neighbour, 0 if an item has fewer than K: (V, K)."""
    shares: npt.NDArray[np.float32]
    """Share of each neighbour in the counts of the K neighbours; a row's sum is 1, or 0 without any: (V, K)."""


def weigh_by_age(sessions: int, half: float) -> Longs:
    """Return the weight of each session's co-occurrences by age, the oldest session first: (sessions,).

    weight = ceil(16 * 0.5 ** (age / half)), where age is the share of all sessions that are newer.

    Args:
        sessions: Number of sessions.
        half: Half-life, as a share of the sessions.
    """
    age = np.arange(sessions - 1, -1, -1) / sessions
    return np.ceil(NEWEST_WEIGHT * 0.5 ** (age / half)).astype(np.int64)


def decay_counts(pairs: PairCounts, share: float, half: float) -> PairCounts:
    """Return old counts after newer sessions have come, counts * 0.5 ** (share / half); pairs that round to 0 go.

    Args:
        pairs: Counts of the old sessions, whose newest has weight `NEWEST_WEIGHT`.
        share: Share of the newer sessions in all sessions.
        half: Half-life, as a share of the sessions.
    """
    counts = np.rint(pairs.counts * 0.5 ** (share / half)).astype(np.int64)
    return PairCounts(pairs.keys[counts > 0], counts[counts > 0])


def count_pairs(examples: Examples, weights: Longs | None = None) -> PairCounts:
    """Return how often items co-occur in sessions, in both directions, without pairs of an item and itself.

    Args:
        examples: Sessions.
        weights: Weight of each session: (sessions,); 1 without weights.
    """
    following = count_following(examples, weights)
    first, second = following.keys >> 32, following.keys & ITEM_MASK
    keys, counts = following.keys[first != second], following.counts[first != second]
    reversed_keys = (second << 32 | first)[first != second]
    return _sum_by_key(np.concatenate((keys, reversed_keys)), np.concatenate((counts, counts)))


def count_following(examples: Examples, weights: Longs | None = None) -> PairCounts:
    """Return how often the second item of a pair follows the first, up to `WINDOW` events later.

    count(i, j) = sum over sessions and distances d of weight * `COUNT_UNIT` / d.

    Args:
        examples: Sessions.
        weights: Weight of each session: (sessions,); 1 without weights.
    """
    weights = np.ones(len(examples), dtype=np.int64) if weights is None else weights
    session = np.repeat(np.arange(len(examples)), examples.lengths)  # (events,)
    items = examples.items.astype(np.int64)  # (events,)
    keys: list[Longs] = []
    counts: list[Longs] = []
    for distance in range(1, WINDOW + 1):
        same_session = session[:-distance] == session[distance:]  # (events - distance,)
        keys.append((items[:-distance] << 32 | items[distance:])[same_session])
        counts.append(COUNT_UNIT // distance * weights[session[distance:][same_session]])
    return _sum_by_key(np.concatenate(keys), np.concatenate(counts))


def add_counts(first: PairCounts, second: PairCounts) -> PairCounts:
    """Return the sum of the counts of two sets of sessions."""
    return _sum_by_key(np.concatenate((first.keys, second.keys)), np.concatenate((first.counts, second.counts)))


def subtract_counts(total: PairCounts, part: PairCounts) -> PairCounts:
    """Return the counts without those of a part of the sessions; the part's keys are keys of the total."""
    counts = total.counts.copy()
    counts[np.searchsorted(total.keys, part.keys)] -= part.counts
    is_positive = counts > 0
    return PairCounts(total.keys[is_positive], counts[is_positive])


def select_neighbours(pairs: PairCounts, rows: int, limit: int) -> Neighbours:
    """Return the top neighbours of each row by count; ties in order of row.

    Args:
        pairs: Co-occurrence counts.
        rows: Rows V of the table, the padding row included.
        limit: Neighbours K of a row, at most.
    """
    first = pairs.keys >> 32  # (pairs,)
    # Sort by row, then by falling count: one stable sort of a packed key
    order = np.argsort((first << 31) | (_MAX_COUNT - pairs.counts.clip(max=_MAX_COUNT)), kind="stable")
    first = first[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)  # (pairs,): rank among the pairs of its row, from 0
    top = order[rank < limit]
    cells = pairs.keys[top] >> 32, rank[rank < limit]  # row and column in the tables
    neighbours = np.zeros((rows, limit), dtype=np.int32)
    counts = np.zeros((rows, limit), dtype=np.float64)
    neighbours[cells] = pairs.keys[top] & ITEM_MASK
    counts[cells] = pairs.counts[top]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)  # (V, K); 0 / 1 for a row without neighbours
    return Neighbours(neighbours, shares.astype(np.float32))


def _sum_by_key(keys: Longs, counts: Longs) -> PairCounts:
    """Return the distinct keys, ascending, with the sum of the counts of each."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return PairCounts(keys[first], np.add.reduceat(counts, first) if len(first) else counts)
