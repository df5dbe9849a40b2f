"""Head training: fit trees and regression beside the Transformer's heads, and blend all of them on validation.

Trees, regression and blend see each session twice: with its items known, and with items hidden at random.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from clickscore.model.array_types import Floats, Ints, Longs
from clickscore.model.calibration import (
    Calibration,
    Probabilities,
    blend_logits,
    calibrate,
    limit_actions,
    to_logits,
    to_probabilities,
)
from clickscore.model.config import TrainConfig
from clickscore.model.dataset import Dataset, FineTuningData
from clickscore.model.examples import Examples, make_examples, select_model_events
from clickscore.model.predict import Predictions
from clickscore.model.prefix_features import FullSessions, make_full_sessions
from clickscore.model.session_arrays import Sessions, hide_items
from clickscore.model.stack import CALIBRATION_METHODS, Stack, fit_stack, forward_fill, refit_stack

HIDDEN_SHARES = (0.1, 0.5, 1.0)
"""Shares of a session's items that are hidden in a second copy of the sessions, on which the heads are fitted and
calibrated too: a few new items, a changed catalogue, another shop. Without hidden items, an unknown item would look
like the rarest known one."""

Predict = Callable[[Examples], Predictions]
"""Returns the Transformer's predictions after every event of some sessions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlendedHeads:
    """Heads for next action and purchase: the Transformer's, and a stack of trees and regression."""

    calibration: Calibration
    """Weights of the blend."""
    stack: Stack | None
    """Trees and regression; None if the sessions hold views alone."""
    max_length: int
    """Events that the Transformer reads of a session."""


class _HeadInputs(NamedTuple):
    """Sessions as the stack and as the Transformer read them."""

    sessions: FullSessions
    """All events, for the stack."""
    model_events: Longs
    """Indices of the events that the Transformer reads: (n,)."""


def fit_heads(dataset: Dataset, predict: Predict, config: TrainConfig) -> BlendedHeads:
    """Return heads whose stack is fitted on training sessions and whose blend is fitted on validation sessions.

    Args:
        dataset: Training and validation sessions.
        predict: Predictions of the trained Transformer.
        config: Settings of the run.
    """
    data, max_length, stack = dataset.tree_data, config.model.max_length, None
    if config.trees and data.has_actions:
        copies = make_copies(data.sessions.select(data.training), data.rows, config.seed)
        ends = np.arange(len(copies[0].items))
        stack = fit_stack(copies, ends, data.attributes, max_length, config.seed)
    validation = data.sessions.select(data.validation)
    calibration = _calibrate(stack, validation, data.rows, predict, max_length, seed=config.seed)
    return BlendedHeads(calibration=calibration, stack=stack, max_length=max_length)


def refit_heads(heads: BlendedHeads, dataset: Dataset, config: TrainConfig) -> Stack | None:
    """Return the stack, fitted again with the same settings on all sessions; None without a stack.

    Args:
        heads: Heads of `fit_heads`.
        dataset: All sessions.
        config: Settings of the run.
    """
    data = dataset.tree_data
    if heads.stack is None:
        return None
    copies = make_copies(data.sessions, data.rows, config.seed)
    return refit_stack(heads.stack, copies, data.attributes, heads.max_length, config.seed)


def blend_held_out(heads: BlendedHeads, dataset: Dataset, predictions: Predictions) -> Predictions:
    """Return the predictions on the held-out sessions, with blended heads in place of the Transformer's alone.

    Args:
        heads: Heads of `fit_heads`.
        dataset: Held-out sessions.
        predictions: The Transformer's predictions on these sessions.
    """
    data = dataset.tree_data
    inputs = _make_inputs(data.sessions.select(data.held_out), data.rows, heads.max_length)
    return _blend(heads, inputs, predictions)


def recalibrate(heads: BlendedHeads, newer: FineTuningData, predict: Predict) -> tuple[Predictions, Calibration]:
    """Return the old blend's predictions on newer sessions, and a blend that is fitted on them.

    Args:
        heads: Heads of the old model.
        newer: Newer sessions.
        predict: Predictions of the old Transformer.
    """
    inputs = _make_inputs(newer.tree_sample, newer.rows, heads.max_length)
    calibration = _calibrate(heads.stack, newer.tree_sample, newer.rows, predict, heads.max_length, seed=0)
    return _blend(heads, inputs, predict(newer.sample)), calibration


def make_copies(sessions: Sessions, rows: Ints, seed: int) -> list[FullSessions]:
    """Return the sessions with their items known, and a copy with items hidden at random.

    Args:
        sessions: Whole sessions.
        rows: Row of each entry of `sessions.item_ids`, 0 if unknown: (item_ids,).
        seed: Seed of the random choices.
    """
    return [make_full_sessions(sessions, rows), make_full_sessions(*hide_items(sessions, rows, HIDDEN_SHARES, seed))]


def _calibrate(
    stack: Stack | None, sessions: Sessions, rows: Ints, predict: Predict, max_length: int, *, seed: int
) -> Calibration:
    """Return the calibration on the first `max_length` events of each session, with items known and with items hidden.

    `Examples` keeps only the newest events, so it has no early events of long sessions. Calibrating without those
    would bias towards sessions about to end; hence the first `max_length` events of each session.
    """
    longest = int(np.diff(sessions.starts).max())
    prior_logits = _to_logits(predict(make_examples(sessions, rows, longest))).mean(axis=0)  # (6,)
    parts: list[tuple[list[Floats], Ints, Ints, Longs]] = []  # of each copy: members, labels of both heads, session
    for copy, copy_rows in ((sessions, rows), hide_items(sessions, rows, HIDDEN_SHARES, seed)):
        inputs, predictions = _make_inputs(copy, copy_rows, longest), predict(make_examples(copy, copy_rows, longest))
        full = inputs.sessions
        events = inputs.model_events if stack is None else np.arange(len(full.items))
        session = np.searchsorted(full.starts, events, side="right") - 1  # session of each event
        is_early = events - full.starts[session] < max_length
        events, session = events[is_early], session[is_early]
        members = _compute_members(stack, inputs, predictions, events, max_length=max_length, prior_logits=prior_logits)
        parts.append((members, full.next_action[events], full.purchase[events], session))
    member_parts, *label_parts = zip(*parts, strict=True)
    members = [np.concatenate(copies) for copies in zip(*member_parts, strict=True)]
    next_action, purchase, session = (np.concatenate(copies) for copies in label_parts)
    fitted = calibrate(members, next_action, purchase, session, CALIBRATION_METHODS[stack is not None])
    return msgspec.structs.replace(fitted, prior_logits=tuple(prior_logits.tolist()))


def _blend(heads: BlendedHeads, inputs: _HeadInputs, predictions: Predictions) -> Predictions:
    """Return predictions with the blended heads' probabilities."""
    prior_logits, events = np.array(heads.calibration.prior_logits), inputs.model_events
    members = _compute_members(
        heads.stack, inputs, predictions, events, max_length=heads.max_length, prior_logits=prior_logits
    )
    blended = limit_actions(to_probabilities(blend_logits(members, heads.calibration)))
    return Predictions(predictions.ranks, blended.next_action, blended.purchase)


def _compute_members(
    stack: Stack | None,
    inputs: _HeadInputs,
    predictions: Predictions,
    events: Longs,
    *,
    max_length: int,
    prior_logits: Floats,
) -> list[Floats]:
    """Return the logits of each member of the blend after these events: (len(events), 6) each."""
    filled = forward_fill(_to_logits(predictions), inputs.model_events, inputs.sessions, prior_logits)[events]
    return [filled] if stack is None else [filled, stack.logits_after(inputs.sessions, events, max_length)]


def _to_logits(predictions: Predictions) -> Floats:
    return to_logits(Probabilities(predictions.action_probabilities, predictions.purchase))


def _make_inputs(sessions: Sessions, rows: Ints, max_length: int) -> _HeadInputs:
    return _HeadInputs(make_full_sessions(sessions, rows), select_model_events(sessions, rows, max_length))
