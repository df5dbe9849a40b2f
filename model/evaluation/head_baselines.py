"""Head baselines: what shares, counts, a regression and trees say of next action and purchase."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clickscore.model.calibration import Probabilities, to_probabilities
from clickscore.model.features import Longs
from clickscore.model.prefix_features import FullSessions, ItemAttributes, compute_features_after, make_event_batch
from clickscore.model.stack import Stack, fit_stack
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

MAX_LENGTH = 50
"""Events of a beginning that are read, the newest: as many as a worker remembers."""
CHAIN_ORDER, PARENT_WEIGHT = 3, 10.0
"""Of the Markov chain: actions that it looks at, and what the next shorter context counts in events."""
CLASSES = len(NEXT_ACTIONS)


class HeadPredictor(Protocol):
    """Says what follows beginnings of sessions."""

    name: str

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return what it says after these events, each from its session up to it."""
        ...


class BaseRate:
    """How often each came, whatever was before."""

    name = "base rate"

    def __init__(self, of: FullSessions, at: Longs) -> None:
        counts = np.bincount(of.next_action[at], minlength=CLASSES) + 1.0
        self._next_action = counts / counts.sum()
        self._purchase = (of.purchase[at].sum() + 1.0) / (len(at) + 2)

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return the shares."""
        del of
        return Probabilities(np.tile(self._next_action, (len(at), 1)), np.full(len(at), self._purchase))


class MarkovChain:
    """What came after the newest three actions, each context drawn towards the next shorter one."""

    name = "Markov"

    def __init__(self, of: FullSessions, at: Longs) -> None:
        contexts = self._contexts(of, at)  # (order + 1, n)
        size = len(ACTIONS) ** CHAIN_ORDER
        outcome = np.stack(
            [*(of.next_action[at] == code for code in range(CLASSES)), of.purchase[at] == 1], axis=1
        ).astype(np.float64)  # (n, 6)
        self._tables: list[np.ndarray] = []
        shorter = np.tile(outcome.mean(axis=0), (size, 1))
        for order in range(CHAIN_ORDER + 1):
            seen = np.bincount(contexts[order], minlength=size)[:, None]
            came = np.stack([np.bincount(contexts[order], column, minlength=size) for column in outcome.T], axis=1)
            parent = shorter if order == 0 else shorter[np.arange(size) % len(ACTIONS) ** max(order - 1, 0)]
            shorter = (came + PARENT_WEIGHT * parent) / (seen + PARENT_WEIGHT)
            self._tables.append(shorter)

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return the shares after the context of each."""
        found = self._tables[CHAIN_ORDER][self._contexts(of, at)[CHAIN_ORDER]]  # (n, 6)
        return Probabilities(found[:, :CLASSES], found[:, CLASSES])

    @staticmethod
    def _contexts(of: FullSessions, at: Longs) -> np.ndarray:
        """Return the newest 0 to 3 actions as a number, the newest in its lowest digit: (4, n)."""
        beginning = make_event_batch(of, at, CHAIN_ORDER)
        number = np.zeros(len(at), dtype=np.int64)
        contexts = [number]
        for back in range(CHAIN_ORDER):
            column = beginning.lengths - 1 - back
            action = np.where(column >= 0, beginning.actions[np.arange(len(at)), column.clip(min=0)], 0)
            number = number + action * len(ACTIONS) ** back
            contexts.append(number)
        return np.stack(contexts)


class RegressionHeads:
    """Logistic regression on the prefix features, the newest actions as one column a kind."""

    name = "logistic regression"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return what it says."""
        return to_probabilities(
            self._stack.regression.logits(compute_features_after(of, at, self._stack.item_features, MAX_LENGTH))
        )


class TreeHeads:
    """LightGBM on the prefix features."""

    name = "LightGBM"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def say(self, of: FullSessions, at: Longs) -> Probabilities:
        """Return what it says."""
        return to_probabilities(
            self._stack.trees.logits(compute_features_after(of, at, self._stack.item_features, MAX_LENGTH))
        )


def fit_head_baselines(of: FullSessions, at: Longs, facts: ItemAttributes, seed: int = 0) -> Sequence[HeadPredictor]:
    """Return all of them, fitted on training sessions.

    Args:
        of: Sessions, the oldest first.
        at: Events whose beginnings are learned, ascending.
        facts: Prices and categories of the rows.
        seed: Of draws.
    """
    stack = fit_stack(of, at, facts, MAX_LENGTH, seed)
    return BaseRate(of, at), MarkovChain(of, at), RegressionHeads(stack), TreeHeads(stack)
