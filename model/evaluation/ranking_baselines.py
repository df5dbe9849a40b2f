"""Ranking baselines: popularity, co-occurrence and session nearest neighbours, counted on training sessions."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clickscore.model.array_types import Floats, Ints, Longs
from clickscore.model.examples import Examples
from clickscore.model.neighbours import ITEM_MASK, count_following

COOCCURRENCE_EVENTS = 5
"""Newest events of a prefix for the co-occurrence baseline."""
MAX_SESSIONS = 500
"""Newest sessions with an item for VMIS-kNN: m of Kersbergen, Sprangers and Schelter (SIGMOD 2022)."""
MAX_NEIGHBOUR_SESSIONS = 100
"""Most similar sessions for VMIS-kNN: k of the same paper."""
DECAY_EVENTS = 10
"""Events over which VMIS-kNN's linear decay falls to 0: the weight of a match is 1 - (events after it) / 10."""


class RankingBaseline(Protocol):
    """Scores every item after a prefix of a session."""

    name: str

    def scores(self, prefix: Ints) -> Floats:
        """Return a score for each row of the item table; row 0 is padding and never ranked: (V,)."""
        ...


class PopularityBaseline:
    """Scores an item by the number of events in the training sessions."""

    name = "popularity"

    def __init__(self, sessions: Examples, rows: int) -> None:
        self._counts = np.bincount(sessions.items, minlength=rows).astype(np.float64)

    def scores(self, prefix: Ints) -> Floats:
        """Return the counts: (V,)."""
        return self._counts


class CooccurrenceBaseline:
    """Scores an item as a successor of the newest items of the prefix."""

    name = "co-occurrence"

    def __init__(self, sessions: Examples, rows: int) -> None:
        pairs = count_following(sessions)
        first = pairs.keys >> 32  # a key holds the first item above 32 bits, the second below
        self._rows = pairs.keys & ITEM_MASK
        self._shares = pairs.counts / np.bincount(first, weights=pairs.counts, minlength=rows)[first]
        self._starts = np.searchsorted(first, np.arange(rows + 1))

    def scores(self, prefix: Ints) -> Floats:
        """Return the sum over the newest events of share / (1 + distance from the end): (V,)."""
        scores = np.zeros(len(self._starts) - 1)
        for distance, row in enumerate(prefix[: -COOCCURRENCE_EVENTS - 1 : -1].tolist()):
            followers = slice(self._starts[row], self._starts[row + 1])
            scores[self._rows[followers]] += self._shares[followers] / (1 + distance)
        return scores


class SessionNeighbours:
    """VMIS-kNN: scores the items of the most similar training sessions."""

    name = "VMIS-kNN"

    def __init__(self, sessions: Examples, rows: int) -> None:
        self._examples = sessions
        session = np.repeat(np.arange(len(sessions)), sessions.lengths)  # (events,)
        distinct = np.unique((sessions.items.astype(np.int64) << 32) | session)  # item above 32 bits, session below
        self._sessions: Longs = distinct & ITEM_MASK  # sessions with each row, the oldest first
        self._starts = np.searchsorted(distinct, np.arange(rows + 1) << 32)
        session_counts = np.diff(self._starts)  # (V,)
        # Inverse document frequency: log(sessions / sessions with the item)
        self._rarity: Floats = np.log(max(1, len(sessions)) / np.maximum(session_counts, 1))  # (V,)

    def scores(self, prefix: Ints) -> Floats:
        """Return, summed over the neighbour sessions, similarity * decay of the newest match * rarity: (V,).

        The similarity of a session is the sum over common items of 1 - (prefix events after the item) / length.
        """
        scores = np.zeros(len(self._rarity))
        matches, ages = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        rows, newest = np.unique(prefix[::-1], return_index=True)  # distinct items, prefix events after each
        for row, age in zip(rows.tolist(), newest.tolist(), strict=True):
            sessions = self._sessions[self._starts[row] : self._starts[row + 1]][-MAX_SESSIONS:]
            matches.append(sessions)
            ages.append(np.full(len(sessions), age))
        sessions, index = np.unique(np.concatenate(matches), return_inverse=True)
        sessions, index = sessions[-MAX_SESSIONS:], index - max(0, len(sessions) - MAX_SESSIONS)
        age = np.concatenate(ages)[index >= 0]  # (matches,)
        index = index[index >= 0]  # (matches,): index of `sessions`
        similarity = np.bincount(index, weights=1 - age / len(prefix), minlength=len(sessions))  # (sessions,)
        newest_match = np.full(len(sessions), len(prefix))
        np.minimum.at(newest_match, index, age)
        neighbours = np.argsort(-similarity, kind="stable")[:MAX_NEIGHBOUR_SESSIONS]
        weights = similarity * np.clip(1 - newest_match / DECAY_EVENTS, 0, None)  # (sessions,)
        starts = self._examples.starts
        for neighbour in neighbours.tolist():
            session = sessions[neighbour]
            scores[np.unique(self._examples.items[starts[session] : starts[session + 1]])] += weights[neighbour]
        return scores * self._rarity


def fit_ranking_baselines(sessions: Examples, rows: int) -> Sequence[RankingBaseline]:
    """Return all ranking baselines, counted on training sessions, for a table of `rows` rows."""
    return PopularityBaseline(sessions, rows), CooccurrenceBaseline(sessions, rows), SessionNeighbours(sessions, rows)
