"""Stack: gradient-boosted trees and a logistic regression, stacked beside the Transformer's heads (Wolpert 1992).

Both read the prefix features, so they see all events, also events on unknown items, with times, prices and categories.
They are fitted on the training sessions. Their common logit is

    z = share * z_trees + (1 - share) * z_regression,

with the share chosen on the newest training sessions. `model.calibration` then blends z with the Transformer's logits
on the validation sessions, and at the end both are fitted again on all sessions.
"""

# pyright: standard
# scikit-learn does not type all of its results.

import dataclasses
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clickscore.model.array_types import Float32Array, Floats, Ints, Longs
from clickscore.model.calibration import to_probabilities
from clickscore.model.errors import DataError
from clickscore.model.metrics import log_loss
from clickscore.model.prefix_features import (
    FEATURE_NAMES,
    LINEAR_FEATURE_NAMES,
    RECENT_EVENTS,
    FullSessions,
    ItemAttributes,
    ItemFeatures,
    assign_kinds,
    compute_features_after,
    make_item_features,
)
from clickscore.model.trees import LabelledRows, Trees, concatenate_rows, fit_trees, refit_trees
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

CALIBRATION_METHODS = ("scale and bias on validation", "Transformer, trees and regression, blended on validation")
"""Text in the calibration report: for the Transformer alone, and with a stack."""
MAX_ROWS = 100_000
"""Prefixes that are fitted, sampled at random from more: bounds time and memory of the trees. Copies of the sessions
with hidden items come on top."""
STOPPING_SHARE = 0.2
"""Share of the training sessions, the newest, for early stopping and the choice of the blend."""
TREE_SHARES = np.linspace(0, 1, 11)
"""Candidates for the share of the trees in the blend, in tenths."""
ENCODING_FOLDS = 5
"""Folds of sessions for cross-fitting the target encoding."""
ABSENT_LOGIT = -20.0
"""Logit of an action without any training event: a probability of about 2e-9, yet finite."""
INVERSE_REGULARISATION = 0.1
"""scikit-learn's C of the L2 penalty: ten times the default strength."""
REGRESSION_ITERATIONS = 300
"""Iterations of the regression's solver; scikit-learn's default of 100 can stop too early."""
ACTION_CODE_COLUMNS = tuple(FEATURE_NAMES.index(f"action_{back}_back") for back in range(RECENT_EVENTS))
"""Feature columns of action codes, replaced by `one_hot_actions`."""
ONE_HOT_WIDTH = len(LINEAR_FEATURE_NAMES) - RECENT_EVENTS + RECENT_EVENTS * len(ACTIONS)
"""Number of columns of `one_hot_actions`."""


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """The fitted regressions as a linear map to the logits of the next actions and of a purchase."""

    weights: Float32Array
    """Weights of the one-hot features: (ONE_HOT_WIDTH, 6)."""
    bias: Float32Array
    """Bias of each logit: (6,)."""

    def logits(self, features: Float32Array) -> Floats:
        """Return the logits of prefix features: (n, F) -> (n, 6)."""
        return one_hot_actions(features) @ self.weights + self.bias


@dataclasses.dataclass(frozen=True)
class Stack:
    """Trees and regression, blended."""

    item_features: ItemFeatures
    """Item features behind the prefix features."""
    trees: Trees
    regression: LinearModel
    tree_share: Floats
    """Share of the trees in each logit; the regression has the rest: (6,)."""

    def logits(self, features: Float32Array) -> Floats:
        """Return the blended logits of prefix features: (n, F) -> (n, 6)."""
        return self.tree_share * self.trees.logits(features) + (1 - self.tree_share) * self.regression.logits(features)

    def logits_after(self, sessions: FullSessions, ends: Longs, max_length: int) -> Floats:
        """Return the blended logits after the given events: (len(ends), 6).

        Args:
            sessions: Sessions with all events.
            ends: Index of the last event of each prefix: (prefixes,).
            max_length: Maximum number of events of a prefix, the newest.
        """
        return self.logits(compute_features_after(sessions, ends, self.item_features, max_length))

    def grow(self, items: int) -> "Stack":
        """Return a stack for a vocabulary of `items` items; the new rows have the features of an unknown item."""
        new = items + 1 - len(self.item_features.categories)
        defaults = np.repeat(self.item_features.values[:1], new, axis=0)  # (new, S)
        values = np.concatenate((self.item_features.values, defaults))
        categories, kinds = (
            np.pad(codes, (0, new)) for codes in (self.item_features.categories, self.item_features.kinds)
        )
        return dataclasses.replace(self, item_features=ItemFeatures(values, categories, kinds))


def fit_stack(
    copies: Sequence[FullSessions], ends: Longs, attributes: ItemAttributes, max_length: int, seed: int
) -> Stack:
    """Return trees and regression fitted on prefixes of training sessions.

    Args:
        copies: Training sessions, the oldest first, then copies of them with hidden items, if any.
        ends: Index of the last event of each prefix, ascending: (prefixes,).
        attributes: Prices and categories of the rows.
        max_length: Maximum number of events of a prefix, the newest.
        seed: Seed of the samples, the folds and the trees.

    Raises:
        DataError: The older or the newer sessions, which end the growth of the trees, have no prefix.
    """
    sessions, ends = copies[0], _sample(ends, seed)
    first_newer_session = round((1 - STOPPING_SHARE) * (len(sessions.starts) - 1))
    first_newer = int(np.searchsorted(ends, sessions.starts[first_newer_session]))
    if not 0 < first_newer < len(ends):
        prefixes = f"{len(ends)} prefixes in {len(sessions.starts) - 1} sessions"
        message = f"too few sessions to fit trees, {prefixes}: name further files of sessions"
        raise DataError(message)
    rows = _cross_fit_rows(copies, ends, attributes, max_length, seed)
    older = concatenate_rows([copy.select(slice(first_newer)) for copy in rows])
    newer = concatenate_rows([copy.select(slice(first_newer, None)) for copy in rows])
    stopped_trees, trees = fit_trees(older, newer, seed)
    tree_share = _choose_tree_shares(
        stopped_trees.logits(newer.features), fit_linear(older).logits(newer.features), newer
    )
    return Stack(make_item_features(sessions, attributes), trees, fit_linear(concatenate_rows(rows)), tree_share)


def refit_stack(
    stack: Stack, copies: Sequence[FullSessions], attributes: ItemAttributes, max_length: int, seed: int
) -> Stack:
    """Return a stack with the same settings and shares, fitted on all prefixes of the given sessions.

    Args:
        stack: Stack with the numbers of trees and leaves and the blend to keep.
        copies: Sessions to fit, the oldest first, then copies of them with hidden items, if any.
        attributes: Prices and categories of the rows.
        max_length: Maximum number of events of a prefix, the newest.
        seed: Seed of the samples and the folds.
    """
    ends = _sample(np.arange(len(copies[0].items)), seed)
    rows = concatenate_rows(_cross_fit_rows(copies, ends, attributes, max_length, seed))
    item_features = make_item_features(copies[0], attributes)
    return Stack(item_features, refit_trees(stack.trees, rows), fit_linear(rows), stack.tree_share)


def _choose_tree_shares(tree_logits: Floats, regression_logits: Floats, rows: LabelledRows) -> Floats:
    """Return the shares with the lowest log loss, separately for the action logits and the purchase logit: (6,)."""
    losses: list[tuple[float, float]] = []
    for share in TREE_SHARES:
        predicted = to_probabilities(share * tree_logits + (1 - share) * regression_logits)
        losses.append((log_loss(predicted.next_action, rows.next_action), log_loss(predicted.purchase, rows.purchase)))
    action_share, purchase_share = TREE_SHARES[np.argmin(losses, axis=0)]
    return np.array([action_share] * len(NEXT_ACTIONS) + [purchase_share])


def fit_linear(rows: LabelledRows) -> LinearModel:
    """Return the logistic regressions for the next action and for a purchase, as a linear map."""
    inputs = one_hot_actions(rows.features)
    action_weights, action_bias = _fit_regression(inputs, rows.next_action, len(NEXT_ACTIONS))
    purchase_weights, purchase_bias = _fit_regression(inputs, rows.purchase, 2)
    # logit of a purchase = logit of class 1 - logit of class 0
    weights = np.column_stack((action_weights, purchase_weights[:, 1] - purchase_weights[:, 0]))
    return LinearModel(weights.astype(np.float32), np.append(action_bias, np.diff(purchase_bias)).astype(np.float32))


def _fit_regression(inputs: Float32Array, labels: Ints, classes: int) -> tuple[Floats, Floats]:
    """Return weights (ONE_HOT_WIDTH, classes) and bias (classes,) of a multinomial logistic regression.

    The inputs are standardised for the fit, z = w (x - mean) / scale + b; the returned map takes x itself:
    weights w / scale and bias b - w mean / scale.
    """
    occurring = np.unique(labels)
    weights, bias = np.zeros((ONE_HOT_WIDTH, classes)), np.full(classes, ABSENT_LOGIT)
    bias[occurring] = 0.0
    if len(occurring) < 2:
        return weights, bias
    scaler, model = StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=REGRESSION_ITERATIONS)
    model.fit(scaler.fit_transform(inputs), labels)
    coefficients = model.coef_ / scaler.scale_
    fitted = occurring[-len(coefficients) :]  # with two classes only the second has coefficients
    weights[:, fitted] = coefficients.T
    bias[fitted] = model.intercept_ - coefficients @ scaler.mean_
    return weights, bias


def one_hot_actions(features: Float32Array) -> Float32Array:
    """Return the regression's features, each recent action one-hot encoded: (n, F) -> (n, ONE_HOT_WIDTH)."""
    features = features[:, : len(LINEAR_FEATURE_NAMES)]
    identity = np.eye(len(ACTIONS), dtype=np.float32)
    one_hot = [identity[features[:, code].astype(np.int64)] for code in ACTION_CODE_COLUMNS]  # (n, actions) each
    return np.concatenate((np.delete(features, ACTION_CODE_COLUMNS, axis=1), *one_hot), axis=1)


def forward_fill(logits: Floats, model_events: Longs, sessions: FullSessions, prior_logits: Floats) -> Floats:
    """Return the Transformer's logits after every event, carried forward from the last event on a known item.

    Args:
        logits: Logits after each event on a known item: (n, 6).
        model_events: Indices of these events, ascending: (n,).
        sessions: The sessions with all their events.
        prior_logits: Logits before a session's first known item: (6,).

    Returns:
        Logits after each event: (events, 6).
    """
    row = np.full(len(sessions.items), -1)  # (events,): row of `logits`, -1 without one
    row[model_events] = np.arange(len(model_events))
    last_row = np.maximum.accumulate(row)  # (events,): forward fill, over sessions' borders
    first_event = np.repeat(sessions.starts[:-1], np.diff(sessions.starts))  # (events,)
    first_row = np.searchsorted(model_events, first_event)  # (events,): first row of the event's own session
    is_filled = last_row >= first_row
    return np.concatenate((prior_logits[None], logits))[np.where(is_filled, last_row + 1, 0)]


def _sample(ends: Longs, seed: int) -> Longs:
    """Return at most `MAX_ROWS` of the events, ascending."""
    if len(ends) <= MAX_ROWS:
        return ends
    return np.sort(np.random.default_rng(seed).choice(ends, MAX_ROWS, replace=False))


def _cross_fit_rows(
    copies: Sequence[FullSessions], ends: Longs, attributes: ItemAttributes, max_length: int, seed: int
) -> list[LabelledRows]:
    """Return each copy's prefixes with features and labels, the target encoding cross-fitted over folds of sessions.

    Cross-fitting (Chernozhukov et al., Econometrics Journal 2018): the item features of a fold's prefixes come from the
    sessions of the other folds, so no prefix sees its own label.
    """
    sessions = copies[0]
    fold_of = np.random.default_rng(seed).integers(ENCODING_FOLDS, size=len(sessions.starts) - 1)  # (sessions,)
    session = np.searchsorted(sessions.starts, ends, side="right") - 1  # (prefixes,)
    features = [np.zeros((len(ends), len(FEATURE_NAMES)), dtype=np.float32) for _ in copies]
    kinds = assign_kinds(sessions, attributes)  # the same in all folds; kinds say nothing about labels
    for fold in range(ENCODING_FOLDS):
        inside = fold_of[session] == fold
        item_features = make_item_features(_drop_items(sessions, fold_of == fold), attributes, kinds)
        for copy, columns in zip(copies, features, strict=True):
            columns[inside] = compute_features_after(copy, ends[inside], item_features, max_length)
    return [LabelledRows(columns, sessions.next_action[ends], sessions.purchase[ends]) for columns in features]


def _drop_items(sessions: FullSessions, is_dropped: Ints) -> FullSessions:
    """Return the sessions without the items of the dropped ones, which removes these from the item features."""
    dropped_events = np.repeat(is_dropped, np.diff(sessions.starts))  # (events,)
    return dataclasses.replace(sessions, items=np.where(dropped_events, 0, sessions.items))
