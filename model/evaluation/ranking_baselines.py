"""Baselines: what counting reaches on the same rows: popularity, co-occurrence, session nearest neighbours."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clickscore.model.features import Examples, Ints, Longs
from clickscore.model.neighbours import ITEM_MASK, count_following

RECENT_EVENTS = 5
"""Events of a prefix that co-occurrence looks at, the newest."""
MAX_SESSIONS = 500
"""Newest sessions with an item that are looked at (VMIS-kNN's m: Kersbergen, Sprangers and Schelter, SIGMOD 2022)."""
MAX_NEIGHBOUR_SESSIONS = 100
"""Of those, the most similar (VMIS-kNN's k)."""
DECAY_EVENTS = 10
"""A matched event counts a tenth less for each event after it, and nothing from the tenth on."""

Floats = npt.NDArray[np.float64]


class RankingBaseline(Protocol):
    """Scores every item after a prefix."""

    name: str

    def scores(self, prefix: Ints) -> Floats:
        """Return a score for each row from 0, the padding, which is never ranked: (V,)."""
        ...


class Popularity:
    """How often an item occurs in the training sessions."""

    name = "popularity"

    def __init__(self, of: Examples, rows: int) -> None:
        self._counts = np.bincount(of.items, minlength=rows).astype(np.float64)

    def scores(self, prefix: Ints) -> Floats:
        """Return the counts: (V,)."""
        return self._counts


class Cooccurrence:
    """How often an item follows those of the prefix, as a share, weighted by how long ago these were."""

    name = "co-occurrence"

    def __init__(self, of: Examples, rows: int) -> None:
        pairs = count_following(of)
        first = pairs.keys >> 32
        self._rows = pairs.keys & ITEM_MASK
        self._shares = pairs.counts / np.bincount(first, weights=pairs.counts, minlength=rows)[first]
        self._starts = np.searchsorted(first, np.arange(rows + 1))

    def scores(self, prefix: Ints) -> Floats:
        """Return shares / (1 + distance), summed over the newest events: (V,)."""
        scores = np.zeros(len(self._starts) - 1)
        for distance, row in enumerate(prefix[: -RECENT_EVENTS - 1 : -1].tolist()):
            near = slice(self._starts[row], self._starts[row + 1])
            scores[self._rows[near]] += self._shares[near] / (1 + distance)
        return scores


class SessionNeighbours:
    """VMIS-kNN: what came in the sessions that are most like the prefix."""

    name = "VMIS-kNN"

    def __init__(self, of: Examples, rows: int) -> None:
        self._of = of
        session = np.repeat(np.arange(len(of)), of.lengths)
        distinct = np.unique((of.items.astype(np.int64) << 32) | session)
        self._sessions: Longs = distinct & ITEM_MASK  # of each row, the oldest first
        self._starts = np.searchsorted(distinct, np.arange(rows + 1) << 32)
        with_item = np.diff(self._starts)
        self._rarity: Floats = np.log(max(1, len(of)) / np.maximum(with_item, 1))  # (V,)

    def scores(self, prefix: Ints) -> Floats:
        """Return, over the closest sessions, similarity * decay of the newest event in both * rarity: (V,)."""
        scores = np.zeros(len(self._rarity))
        sessions, matched = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        rows, newest = np.unique(prefix[::-1], return_index=True)  # events after each, in the prefix
        for row, after in zip(rows.tolist(), newest.tolist(), strict=True):
            with_row = self._sessions[self._starts[row] : self._starts[row + 1]][-MAX_SESSIONS:]
            sessions.append(with_row)
            matched.append(np.full(len(with_row), after))
        every, of_every = np.unique(np.concatenate(sessions), return_inverse=True)
        every, of_every = every[-MAX_SESSIONS:], of_every - max(0, len(every) - MAX_SESSIONS)
        after = np.concatenate(matched)[of_every >= 0]
        of_every = of_every[of_every >= 0]
        similarity = np.bincount(of_every, weights=1 - after / len(prefix), minlength=len(every))  # (sessions,)
        first_match = np.full(len(every), len(prefix))
        np.minimum.at(first_match, of_every, after)
        closest = np.argsort(-similarity, kind="stable")[:MAX_NEIGHBOUR_SESSIONS]
        weights = similarity * np.clip(1 - first_match / DECAY_EVENTS, 0, None)
        for session in closest.tolist():
            items = np.unique(self._of.items[self._of.starts[every[session]] : self._of.starts[every[session] + 1]])
            scores[items] += weights[session]
        return scores * self._rarity


def fit_ranking_baselines(of: Examples, rows: int) -> Sequence[RankingBaseline]:
    """Return all of them, counted on training sessions, for a table of so many rows."""
    return Popularity(of, rows), Cooccurrence(of, rows), SessionNeighbours(of, rows)
