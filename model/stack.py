"""Stack: trees and a regression over the beginning of a session, which answer beside the Transformer's heads.

They read every event, those on unknown items and on none included, and with them times, prices and categories. Fitted
on the training sessions and blended on the newest of them, with the Transformer on validation (`model.calibration`);
then fitted again on all.
"""

# pyright: standard
# scikit-learn leaves parts of what it returns untyped.

import dataclasses

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clickscore.model.calibration import to_probabilities
from clickscore.model.features import Float32Array, Ints, Longs
from clickscore.model.metrics import Floats, log_loss
from clickscore.model.prefix_features import (
    FEATURE_NAMES,
    RECENT_EVENTS,
    FullSessions,
    ItemAttributes,
    ItemFeatures,
    compute_features_after,
    make_item_features,
)
from clickscore.model.trees import LabelledRows, Trees, fit_trees, refit_trees
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

CALIBRATION_METHODS = ("scale and bias on validation", "Transformer, trees and regression, blended on validation")
"""Of calibration: the Transformer alone, and with a stack."""
MAX_ROWS = 200_000
"""Beginnings that are learned from, drawn at random where there are more."""
STOPPING_SHARE = 0.2
"""Share of the sessions, the newest, by which trees are stopped, and blended with the regression."""
TREE_SHARES = np.linspace(0, 1, 11)
"""Of the trees in the blend: what is tried."""
FOLDS = 5
"""Parts of the sessions: what is told of an item is counted in others than the one that is learned."""
ABSENT_LOGIT = -20.0
"""Logit of an action that never came."""
ACTION_CODE_COLUMNS = tuple(FEATURE_NAMES.index(f"action_{back}_back") for back in range(RECENT_EVENTS))
ONE_HOT_WIDTH = len(FEATURE_NAMES) - RECENT_EVENTS + RECENT_EVENTS * len(ACTIONS)
"""Columns of `widened`."""


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """Logits as sums: of each next action, then of a purchase."""

    weights: Float32Array
    """(WIDE, 6)."""
    bias: Float32Array
    """(6,)."""

    def logits(self, features: Float32Array) -> Floats:
        """Return (n, 6)."""
        return one_hot_actions(features) @ self.weights + self.bias


@dataclasses.dataclass(frozen=True)
class Stack:
    """The member beside the Transformer."""

    item_features: ItemFeatures
    trees: Trees
    regression: LinearModel
    tree_share: Floats
    """Of the trees in each logit; the rest is the regression's: (6,)."""

    def logits(self, of: FullSessions, at: Longs, max_length: int) -> Floats:
        """Return what both together say after these events: (len(at), 6)."""
        return self.answers(compute_features_after(of, at, self.item_features, max_length))

    def answers(self, features: Float32Array) -> Floats:
        """Return what both together say: (n, 6)."""
        return self.tree_share * self.trees.logits(features) + (1 - self.tree_share) * self.regression.logits(features)

    def grown(self, items: int) -> "Stack":
        """Return the same with new items after its own, of which nothing is known."""
        new = items + 1 - len(self.item_features.categories)
        numbers = np.concatenate((self.item_features.values, np.repeat(self.item_features.values[:1], new, axis=0)))
        grown = ItemFeatures(numbers, np.pad(self.item_features.categories, (0, new)))
        return dataclasses.replace(self, item_features=grown)


def fit_stack(of: FullSessions, at: Longs, facts: ItemAttributes, max_length: int, seed: int) -> Stack:
    """Return trees and regression that learned from the beginnings of sessions.

    Args:
        of: Sessions, the oldest first.
        at: Events that the beginnings end with, ascending.
        facts: Prices and categories of the rows.
        max_length: Events of a beginning that are read, the newest.
        seed: Of draws.
    """
    at = _drawn(at, seed)
    learned = _rows(of, at, facts, max_length, seed)
    first_newer = int(np.searchsorted(at, of.starts[round((1 - STOPPING_SHARE) * (len(of.starts) - 1))]))
    older, newer = learned.only(slice(first_newer)), learned.only(slice(first_newer, None))
    tried, trees = fit_trees(older, newer, seed)
    share = _choose_tree_shares(tried.logits(newer.features), fit_linear(older).logits(newer.features), newer)
    return Stack(make_item_features(of, facts), trees, fit_linear(learned), share)


def refit_stack(stack: Stack, of: FullSessions, facts: ItemAttributes, max_length: int, seed: int) -> Stack:
    """Return a stack of the same shape that learned from all beginnings of these sessions."""
    learned = _rows(of, _drawn(np.arange(len(of.items)), seed), facts, max_length, seed)
    return Stack(
        make_item_features(of, facts), refit_trees(stack.trees, learned), fit_linear(learned), stack.tree_share
    )


def _choose_tree_shares(of_trees: Floats, of_regression: Floats, rows: LabelledRows) -> Floats:
    """Return the share of the trees that would have lost least: one for the actions' logits, one for a purchase's."""
    losses: list[tuple[float, float]] = []
    for share in TREE_SHARES:
        said = to_probabilities(share * of_trees + (1 - share) * of_regression)
        losses.append((log_loss(said.next_action, rows.next_action), log_loss(said.purchase, rows.purchase)))
    of_action, of_purchase = TREE_SHARES[np.argmin(losses, axis=0)]
    return np.array([of_action] * len(NEXT_ACTIONS) + [of_purchase])


def fit_linear(rows: LabelledRows) -> LinearModel:
    """Return the regressions as one table."""
    wide = one_hot_actions(rows.features)
    of_action, of_purchase = (
        _regression(wide, outcome, classes)
        for outcome, classes in ((rows.next_action, len(NEXT_ACTIONS)), (rows.purchase, 2))
    )
    weights = np.column_stack((of_action[0], of_purchase[0][:, 1] - of_purchase[0][:, 0]))
    return LinearModel(weights.astype(np.float32), np.append(of_action[1], np.diff(of_purchase[1])).astype(np.float32))


def _regression(wide: Float32Array, outcome: Ints, classes: int) -> tuple[Floats, Floats]:
    """Return weights (WIDE, classes) and bias (classes,) of the logits of each class."""
    came = np.unique(outcome)
    weights, bias = np.zeros((ONE_HOT_WIDTH, classes)), np.full(classes, ABSENT_LOGIT)
    bias[came] = 0.0
    if len(came) < 2:
        return weights, bias
    scaler, model = StandardScaler(), LogisticRegression(C=0.1, max_iter=300)
    model.fit(scaler.fit_transform(wide), outcome)
    coefficients = model.coef_ / scaler.scale_
    told = came[-len(coefficients) :]  # of two classes the second alone has coefficients
    weights[:, told] = coefficients.T
    bias[told] = model.intercept_ - coefficients @ scaler.mean_
    return weights, bias


def one_hot_actions(features: Float32Array) -> Float32Array:
    """Return features with each of the newest actions as one column a kind: (n, WIDE)."""
    kinds = np.eye(len(ACTIONS), dtype=np.float32)
    newest = [kinds[features[:, code].astype(np.int64)] for code in ACTION_CODE_COLUMNS]
    return np.concatenate((np.delete(features, ACTION_CODE_COLUMNS, axis=1), *newest), axis=1)


def forward_fill(logits: Floats, kept: Longs, of: FullSessions, silent: Floats) -> Floats:
    """Return what the Transformer says after every event: what it said after the last one on a known item.

    Args:
        logits: After each of the events on known items: (n, 6).
        kept: Which events these are: (n,).
        of: The sessions.
        silent: What it counts as saying before any: (6,).
    """
    known = np.full(len(of.items), -1)
    known[kept] = np.arange(len(kept))
    last = np.maximum.accumulate(known)
    first_of_session = np.searchsorted(kept, np.repeat(of.starts[:-1], np.diff(of.starts)))  # of the kept
    found = last >= first_of_session
    return np.where(found[:, None], logits[np.where(found, last, 0)], silent)


def _drawn(at: Longs, seed: int) -> Longs:
    if len(at) <= MAX_ROWS:
        return at
    return np.sort(np.random.default_rng(seed).choice(at, MAX_ROWS, replace=False))


def _rows(of: FullSessions, at: Longs, facts: ItemAttributes, max_length: int, seed: int) -> LabelledRows:
    """Return beginnings, each with what the sessions of other folds tell of items, so that none meets its own end."""
    fold_of = np.random.default_rng(seed).integers(FOLDS, size=len(of.starts) - 1)
    session = np.searchsorted(of.starts, at, side="right") - 1
    features = np.zeros((len(at), len(FEATURE_NAMES)), dtype=np.float32)
    for fold in range(FOLDS):
        inside = fold_of[session] == fold
        features[inside] = compute_features_after(
            of, at[inside], make_item_features(_without(of, fold_of == fold), facts), max_length
        )
    return LabelledRows(features, of.next_action[at], of.purchase[at])


def _without(of: FullSessions, sessions: Ints) -> FullSessions:
    """Return sessions with the items of some made unknown, so that nothing is counted for them."""
    hidden = np.repeat(sessions, np.diff(of.starts))
    return dataclasses.replace(of, items=np.where(hidden, 0, of.items))
