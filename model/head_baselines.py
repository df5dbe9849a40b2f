"""Head baselines: what shares, counts, a regression and trees say of next action and purchase."""

# pyright: standard
# scikit-learn and LightGBM leave parts of what they return untyped.

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model.calibration import Probabilities
from model.features import Longs
from model.prefix_features import NAMES, NEWEST, ItemFacts, Side, Singles, Whole, features_of, side, told
from model.trees import Rows, Trees, fit_trees
from schemas.events import ACTIONS
from schemas.manifest import NEXT_ACTIONS

MAX_LENGTH = 50
"""Events of a beginning that are read, the newest: as many as a worker remembers."""
MOST_ROWS = 300_000
"""Beginnings that are learned from, drawn at random where there are more."""
NEWER_SHARE = 0.2
"""Share of the sessions, the newest, by which trees are stopped."""
ORDER, WEIGHT = 3, 10.0
"""Of the Markov chain: actions that it looks at, and what the next shorter context counts in events."""
CLASSES = len(NEXT_ACTIONS)


class HeadModel(Protocol):
    """Says what follows beginnings of sessions."""

    name: str

    def say(self, of: Whole, at: Longs) -> Probabilities:
        """Return what it says after these events, each from its session up to it."""
        ...


class Shares:
    """How often each came, whatever was before."""

    name = "base rate"

    def __init__(self, of: Whole, at: Longs) -> None:
        counts = np.bincount(of.next_action[at], minlength=CLASSES) + 1.0
        self._next_action = counts / counts.sum()
        self._purchase = (of.purchase[at].sum() + 1.0) / (len(at) + 2)

    def say(self, of: Whole, at: Longs) -> Probabilities:
        """Return the shares."""
        del of
        return Probabilities(np.tile(self._next_action, (len(at), 1)), np.full(len(at), self._purchase))


class Markov:
    """What came after the newest three actions, each context drawn towards the next shorter one."""

    name = "Markov"

    def __init__(self, of: Whole, at: Longs) -> None:
        contexts = self._contexts(of, at)  # (order + 1, n)
        size = len(ACTIONS) ** ORDER
        outcome = np.stack(
            [*(of.next_action[at] == code for code in range(CLASSES)), of.purchase[at] == 1], axis=1
        ).astype(np.float64)  # (n, 6)
        self._tables: list[np.ndarray] = []
        shorter = np.tile(outcome.mean(axis=0), (size, 1))
        for order in range(ORDER + 1):
            seen = np.bincount(contexts[order], minlength=size)[:, None]
            came = np.stack([np.bincount(contexts[order], column, minlength=size) for column in outcome.T], axis=1)
            parent = shorter if order == 0 else shorter[np.arange(size) % len(ACTIONS) ** max(order - 1, 0)]
            shorter = (came + WEIGHT * parent) / (seen + WEIGHT)
            self._tables.append(shorter)

    def say(self, of: Whole, at: Longs) -> Probabilities:
        """Return the shares after the context of each."""
        found = self._tables[ORDER][self._contexts(of, at)[ORDER]]  # (n, 6)
        return Probabilities(found[:, :CLASSES], found[:, CLASSES])

    @staticmethod
    def _contexts(of: Whole, at: Longs) -> np.ndarray:
        """Return the newest 0 to 3 actions as a number, the newest in its lowest digit: (4, n)."""
        beginning = told(of, at, ORDER)
        number = np.zeros(len(at), dtype=np.int64)
        contexts = [number]
        for back in range(ORDER):
            column = beginning.lengths - 1 - back
            action = np.where(column >= 0, beginning.actions[np.arange(len(at)), column.clip(min=0)], 0)
            number = number + action * len(ACTIONS) ** back
            contexts.append(number)
        return np.stack(contexts)


class Regression:
    """Logistic regression on the prefix features, the newest actions as one column a kind."""

    name = "logistic regression"

    def __init__(self, rows: Rows, by: Side) -> None:
        self._by = by
        self._next_action = _regression().fit(_widened(rows.features), rows.next_action)
        self._purchase = _regression().fit(_widened(rows.features), rows.purchase)

    def say(self, of: Whole, at: Longs) -> Probabilities:
        """Return what it says."""
        wide = _widened(features_of(of, at, self._by, MAX_LENGTH))
        next_action = np.zeros((len(at), CLASSES))
        next_action[:, self._next_action.classes_] = self._next_action.predict_proba(wide)
        return Probabilities(next_action, self._purchase.predict_proba(wide)[:, 1])


class Forest:
    """LightGBM on the prefix features."""

    name = "LightGBM"

    def __init__(self, trees: Trees, by: Side) -> None:
        self._trees, self._by = trees, by

    def say(self, of: Whole, at: Longs) -> Probabilities:
        """Return what it says."""
        return self._trees.probabilities(features_of(of, at, self._by, MAX_LENGTH))


def head_baselines(of: Whole, at: Longs, facts: ItemFacts, seed: int = 0) -> Sequence[HeadModel]:
    """Return all of them, fitted on training sessions.

    Args:
        of: Sessions, the oldest first.
        at: Events whose beginnings are learned.
        facts: Prices and categories of the rows.
        seed: Of draws.
    """
    if len(at) > MOST_ROWS:
        at = np.sort(np.random.default_rng(seed).choice(at, MOST_ROWS, replace=False))
    learned = rows_of(of, at, cross_fitted(of, at, facts, MAX_LENGTH, seed))
    first_newer = int(np.searchsorted(at, of.starts[round((1 - NEWER_SHARE) * (len(of.starts) - 1))]))
    older, newer = learned.only(slice(first_newer)), learned.only(slice(first_newer, None))
    by = side(of, facts)
    return (
        Shares(of, at),
        Markov(of, at),
        Regression(learned, by),
        Forest(fit_trees(older, newer, seed), by),
    )


def rows_of(of: Whole, at: Longs, features: Singles) -> Rows:
    """Return beginnings with what followed."""
    return Rows(features, of.next_action[at], of.purchase[at])


def cross_fitted(of: Whole, at: Longs, facts: ItemFacts, max_length: int, seed: int) -> Singles:
    """Return features of beginnings by what sessions of other folds tell of items, so that none meets its own end."""
    fold_of = np.random.default_rng(seed).integers(FOLDS, size=len(of.starts) - 1)
    session = np.searchsorted(of.starts, at, side="right") - 1
    found = np.zeros((len(at), len(NAMES)), dtype=np.float32)
    for fold in range(FOLDS):
        inside = fold_of[session] == fold
        others = side(_without(of, fold_of == fold), facts)
        found[inside] = features_of(of, at[inside], others, max_length)
    return found


FOLDS = 5


def _without(of: Whole, sessions: np.ndarray) -> Whole:
    """Return sessions with the items of some made unknown, so that nothing is counted for them."""
    hidden = np.repeat(sessions, np.diff(of.starts))
    return Whole(np.where(hidden, 0, of.items), of.actions, of.ages, of.next_action, of.purchase, of.starts)


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))


def _widened(features: np.ndarray) -> np.ndarray:
    """Return features with the newest actions as one column a kind."""
    codes = [NAMES.index(f"action_{back}_back") for back in range(NEWEST)]
    return np.concatenate(
        (np.delete(features, codes, axis=1), *(np.eye(len(ACTIONS))[features[:, code].astype(int)] for code in codes)),
        axis=1,
    )
