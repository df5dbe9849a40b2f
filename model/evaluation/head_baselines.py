"""Head baselines: base rate, Markov chain, logistic regression and LightGBM for the next action and a purchase."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clickscore.model.array_types import Longs
from clickscore.model.calibration import Probabilities, to_probabilities
from clickscore.model.prefix_features import FullSessions, ItemAttributes, compute_features_after, make_event_batch
from clickscore.model.stack import Stack, fit_stack
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

MAX_LENGTH = 50
"""Newest events for the baselines, as many as a worker keeps."""
CHAIN_ORDER = 3
"""Number of actions in the longest context of the Markov chain."""
PARENT_WEIGHT = 10.0
"""Weight of the next shorter context, in events, when a context's frequencies are smoothed."""
CLASSES = len(NEXT_ACTIONS)


class HeadPredictor(Protocol):
    """Predicts the next action and a purchase after prefixes of sessions."""

    name: str

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the probabilities after the given events, each from its own prefix alone."""
        ...


class BaseRate:
    """Predicts the training frequencies after every prefix."""

    def __init__(self, sessions: FullSessions, ends: Longs, name: str = "base rate") -> None:
        """Count the frequencies after the given events; they are those of Laplace's rule."""
        self.name = name
        counts = np.bincount(sessions.next_action[ends], minlength=CLASSES) + 1.0  # Laplace's rule: no class is 0
        self._next_action = counts / counts.sum()
        self._purchase = (sessions.purchase[ends].sum() + 1.0) / (len(ends) + 2)

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the frequencies for each event."""
        del sessions
        return Probabilities(np.tile(self._next_action, (len(ends), 1)), np.full(len(ends), self._purchase))


class MarkovChain:
    """Predicts from the newest actions; frequencies of each context are smoothed towards the next shorter context.

    p(class | k actions) = (count + w p(class | k - 1 actions)) / (events + w), with w = `PARENT_WEIGHT`.
    """

    name = "Markov"

    def __init__(self, sessions: FullSessions, ends: Longs) -> None:
        contexts = self._encode_contexts(sessions, ends)  # (CHAIN_ORDER + 1, n)
        size = len(ACTIONS) ** CHAIN_ORDER
        next_action, purchase = sessions.next_action[ends], sessions.purchase[ends]
        labels = np.stack([*(next_action == code for code in range(CLASSES)), purchase == 1], axis=1).astype(
            np.float64
        )  # (n, 6), one column for each probability
        self._tables: list[np.ndarray] = []
        table = np.tile(labels.mean(axis=0), (size, 1))  # (contexts, 6)
        for order in range(CHAIN_ORDER + 1):
            events = np.bincount(contexts[order], minlength=size)[:, None]  # (contexts, 1)
            counts = np.stack([np.bincount(contexts[order], column, minlength=size) for column in labels.T], axis=1)
            parent = table if order == 0 else table[np.arange(size) % len(ACTIONS) ** max(order - 1, 0)]
            table = (counts + PARENT_WEIGHT * parent) / (events + PARENT_WEIGHT)
            self._tables.append(table)

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the smoothed frequencies of each event's context."""
        shares = self._tables[CHAIN_ORDER][self._encode_contexts(sessions, ends)[CHAIN_ORDER]]  # (n, 6)
        return Probabilities(shares[:, :CLASSES], shares[:, CLASSES])

    @staticmethod
    def _encode_contexts(sessions: FullSessions, ends: Longs) -> np.ndarray:
        """Return the newest 0 to 3 actions as a number in base 8, the newest in its lowest digit: (4, n)."""
        prefixes = make_event_batch(sessions, ends, CHAIN_ORDER)
        number = np.zeros(len(ends), dtype=np.int64)
        contexts = [number]
        for back in range(CHAIN_ORDER):
            column = prefixes.lengths - 1 - back
            action = np.where(column >= 0, prefixes.actions[np.arange(len(ends)), column.clip(min=0)], 0)
            number = number + action * len(ACTIONS) ** back
            contexts.append(number)
        return np.stack(contexts)


class RegressionHeads:
    """Predicts by logistic regression on the prefix features, with one-hot encoded recent actions."""

    name = "logistic regression"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the regression's probabilities."""
        features = compute_features_after(sessions, ends, self._stack.item_features, MAX_LENGTH)
        return to_probabilities(self._stack.regression.logits(features))


class TreeHeads:
    """Predicts by LightGBM on the prefix features."""

    def __init__(self, stack: Stack, name: str = "LightGBM") -> None:
        self._stack = stack
        self.name = name

    def predict(self, sessions: FullSessions, ends: Longs) -> Probabilities:
        """Return the trees' probabilities."""
        features = compute_features_after(sessions, ends, self._stack.item_features, MAX_LENGTH)
        return to_probabilities(self._stack.trees.logits(features))


def fit_head_baselines(
    sessions: FullSessions, ends: Longs, attributes: ItemAttributes, seed: int = 0
) -> Sequence[HeadPredictor]:
    """Return all head baselines, fitted on training sessions.

    Args:
        sessions: Training sessions, the oldest first.
        ends: Index of the last event of each training prefix, ascending: (prefixes,).
        attributes: Prices and categories of the rows.
        seed: Seed of the samples, the folds and the trees.
    """
    stack = fit_stack([sessions], ends, attributes, MAX_LENGTH, seed)
    return BaseRate(sessions, ends), MarkovChain(sessions, ends), RegressionHeads(stack), TreeHeads(stack)
