"""Refit: fit trees and a regression on recent sessions, and let them replace the heads of a bundle that they beat.

A corrected level (`model.level`) helps where rates have moved. Where the habits are others, as in another shop, the
order of a head's probabilities is wrong, too, and no shift corrects an order. Each head is replaced only if this proves
useful: trees and regression must have a lower log loss than the bundle with a corrected level, by more than two
standard errors over sessions, in a cross-validation in which both are fitted on the same sessions.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from clickscore.model.array_types import Bools, Floats, Ints
from clickscore.model.bundle_heads import run_heads
from clickscore.model.calibration import (
    MIN_CALIBRATION_SESSIONS,
    Probabilities,
    is_significant,
    limit_actions,
    measure_heads,
    to_probabilities,
)
from clickscore.model.head_training import make_copies
from clickscore.model.level import correct_level, count_judged_sessions, fit_level, round_metrics
from clickscore.model.metrics import MIN_PROBABILITY
from clickscore.model.prefix_features import ItemAttributes, make_full_sessions, mark_purchased
from clickscore.model.session_arrays import Sessions
from clickscore.model.stack import Stack, fit_stack
from clickscore.schemas.manifest import HEADS, Manifest, RefitReport

FOLDS = 3
"""Folds of sessions for the comparison: each costs a fit of the trees."""
MIN_REFIT_SESSIONS = FOLDS * MIN_CALIBRATION_SESSIONS
"""Minimum number of judged sessions for a refit."""
SEED = 0
"""Seed of the samples, the folds and the trees."""
ACTION_HEAD, PURCHASE_HEAD = HEADS


@dataclasses.dataclass(frozen=True)
class Refit:
    """Trees and regression of the recent sessions, and the heads that they replace."""

    stack: Stack
    report: RefitReport

    def replace(self, predicted: Probabilities, stack_logits: Floats) -> Probabilities:
        """Return a bundle's probabilities with the replaced heads.

        Args:
            predicted: Probabilities of the bundle.
            stack_logits: Logits of the stack after the same events: (events, 6).
        """
        replacement = limit_actions(to_probabilities(stack_logits))
        return Probabilities(
            replacement.next_action if ACTION_HEAD in self.report.heads else predicted.next_action,
            replacement.purchase if PURCHASE_HEAD in self.report.heads else predicted.purchase,
        )


class _Comparison(NamedTuple):
    """A fold of sessions, judged by heads that were fitted on the other folds."""

    level_predictions: Probabilities
    """Probabilities of the bundle with a corrected level."""
    stack_predictions: Probabilities
    """Probabilities of trees and regression."""
    next_action: Ints
    """Label: class of the next action: (events,)."""
    purchase: Ints
    """Label: 1 if a purchase follows, else 0: (events,)."""
    session: Ints
    """Session of each event: (events,)."""


def fit_refit(
    graph: ort.InferenceSession, manifest: Manifest, sessions: Sessions, rows: Ints, attributes: ItemAttributes
) -> Refit | None:
    """Return trees and regression for the heads that they improve; None if they improve none.

    Args:
        graph: Graph of a bundle that reads every event, without an earlier correction.
        manifest: Manifest of the bundle.
        sessions: Recent sessions, in order of closing.
        rows: Row of each entry of `sessions.item_ids` in the bundle, 0 if unknown: (item_ids,).
        attributes: Prices and categories of the rows.
    """
    if count_judged_sessions(manifest, make_full_sessions(sessions, rows)) < MIN_REFIT_SESSIONS:
        return None
    fold_of = np.random.default_rng(SEED).integers(FOLDS, size=len(sessions))  # (sessions,)
    comparison = _concatenate(
        [
            _compare_fold(graph, manifest, sessions, rows, attributes=attributes, is_judged=fold_of == fold)
            for fold in range(FOLDS)
        ]
    )
    labels = comparison.next_action, comparison.purchase
    gains = _compute_losses(comparison.level_predictions, *labels) - _compute_losses(
        comparison.stack_predictions, *labels
    )  # (2, events)
    heads = tuple(
        name
        for name, gain, outcomes in zip(HEADS, gains, labels, strict=True)
        if len(np.unique(outcomes)) > 1 and is_significant(gain, comparison.session)  # else the only outcome is certain
    )
    if not heads:
        return None
    report = RefitReport(
        heads=heads,
        events=len(comparison.session),
        before=round_metrics(select_metrics(measure_heads(comparison.level_predictions, *labels), heads)),
        after=round_metrics(select_metrics(measure_heads(comparison.stack_predictions, *labels), heads)),
    )
    return Refit(_fit(sessions, rows, attributes, manifest.max_length), report)


def select_metrics(metrics: Mapping[str, float], heads: Collection[str]) -> dict[str, float]:
    """Return the metrics of some heads.

    Args:
        metrics: Metrics of `measure_heads`, by name.
        heads: Names of `HEADS`.
    """
    prefixes = tuple(prefix for head, prefix in zip(HEADS, ("next_action_", "purchase_"), strict=True) if head in heads)
    return {name: value for name, value in metrics.items() if name.startswith(prefixes)}


def _compare_fold(
    graph: ort.InferenceSession,
    manifest: Manifest,
    sessions: Sessions,
    rows: Ints,
    *,
    attributes: ItemAttributes,
    is_judged: Bools,
) -> _Comparison:
    """Return the predictions for one fold of sessions.

    Args:
        graph: Graph of the bundle.
        manifest: Manifest of the bundle.
        sessions: All recent sessions.
        rows: Row of each entry of `sessions.item_ids`: (item_ids,).
        attributes: Prices and categories of the rows.
        is_judged: Whether a session is in the fold: (sessions,).
    """
    fitted, judged = sessions.select(np.flatnonzero(~is_judged)), np.flatnonzero(is_judged)
    correction = fit_level(graph, manifest, make_full_sessions(fitted, rows))
    stack = _fit(fitted, rows, attributes, manifest.max_length)
    full = make_full_sessions(sessions.select(judged), rows)
    ends = np.flatnonzero(~mark_purchased(full))
    _, predicted = run_heads(graph, manifest, full, ends)
    return _Comparison(
        correct_level(predicted, correction),
        limit_actions(to_probabilities(stack.logits_after(full, ends, manifest.max_length))),
        full.next_action[ends],
        full.purchase[ends],
        judged[np.searchsorted(full.starts, ends, side="right") - 1],
    )


def _concatenate(parts: Sequence[_Comparison]) -> _Comparison:
    """Return the predictions of all folds."""
    return _Comparison(
        _concatenate_predictions([part.level_predictions for part in parts]),
        _concatenate_predictions([part.stack_predictions for part in parts]),
        np.concatenate([part.next_action for part in parts]),
        np.concatenate([part.purchase for part in parts]),
        np.concatenate([part.session for part in parts]),
    )


def _concatenate_predictions(parts: Sequence[Probabilities]) -> Probabilities:
    """Return the probabilities of all folds."""
    return Probabilities(
        np.concatenate([part.next_action for part in parts]), np.concatenate([part.purchase for part in parts])
    )


def _fit(sessions: Sessions, rows: Ints, attributes: ItemAttributes, max_length: int) -> Stack:
    """Return trees and regression of some sessions; a copy with hidden items is pointless where no item is known.

    Args:
        sessions: Sessions, in order of closing.
        rows: Row of each entry of `sessions.item_ids`: (item_ids,).
        attributes: Prices and categories of the rows.
        max_length: Maximum number of events of a prefix, the newest.
    """
    copies = make_copies(sessions, rows, SEED) if rows.any() else [make_full_sessions(sessions, rows)]
    return fit_stack(copies, np.arange(len(copies[0].items)), attributes, max_length, SEED)


def _compute_losses(predicted: Probabilities, next_action: Ints, purchase: Ints) -> Floats:
    """Return the log loss of the next action and of the purchase, of each event: (2, events).

    Args:
        predicted: Predicted probabilities.
        next_action: Label: class of the next action: (events,).
        purchase: Label: 1 if a purchase follows, else 0: (events,).
    """
    action_chances = predicted.next_action[np.arange(len(next_action)), next_action]
    purchase_chances = np.where(purchase == 1, predicted.purchase, 1 - predicted.purchase)
    return -np.log(np.stack((action_chances, purchase_chances)).clip(min=MIN_PROBABILITY))
