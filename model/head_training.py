"""Head training: fits what answers beside the Transformer's heads, and blends them on validation."""

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
    to_logits,
    to_probabilities,
)
from clickscore.model.config import TrainConfig
from clickscore.model.dataset import Dataset, FineTuningData
from clickscore.model.examples import Examples, make_examples, select_model_events
from clickscore.model.predict import Predictions
from clickscore.model.prefix_features import FullSessions, make_full_sessions
from clickscore.model.session_arrays import Sessions
from clickscore.model.stack import CALIBRATION_METHODS, Stack, fit_stack, forward_fill, refit_stack


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlendedHeads:
    """What answers after an event, and how it is blended."""

    calibration: Calibration
    stack: Stack | None
    """Beside the Transformer's heads; none where there are views alone."""
    max_length: int


Predict = Callable[[Examples], Predictions]
"""Gives the Transformer's answers after every event of some sessions."""


class _Part(NamedTuple):
    """Sessions as both read them."""

    every: FullSessions
    kept: Longs
    """Events that the Transformer reads."""


def fit_heads(dataset: Dataset, ask: Predict, config: TrainConfig) -> BlendedHeads:
    """Return the heads of a trained model.

    Args:
        dataset: What it learned from.
        ask: Asks it.
        config: How it learned.
    """
    of, longest, stack = dataset.tree_data, config.model.max_length, None
    if config.trees and of.has_actions:
        learned = make_full_sessions(of.sessions.select(of.training), of.rows)
        stack = fit_stack(learned, np.arange(len(learned.items)), of.attributes, longest, config.seed)
    calibration = _calibration(stack, of.sessions.select(of.validation), of.rows, ask, longest)
    return BlendedHeads(calibration=calibration, stack=stack, max_length=longest)


def refit_heads(heads: BlendedHeads, dataset: Dataset, config: TrainConfig) -> Stack | None:
    """Return the stack, fitted again on all sessions."""
    of = dataset.tree_data
    if heads.stack is None:
        return None
    every = make_full_sessions(of.sessions, of.rows)
    return refit_stack(heads.stack, every, of.attributes, heads.max_length, config.seed)


def blend_held_out(heads: BlendedHeads, dataset: Dataset, answers: Predictions) -> Predictions:
    """Return the Transformer's answers on the held-out sessions, with the heads blended."""
    of = dataset.tree_data
    return _said(heads, _part(of.sessions.select(of.held_out), of.rows, heads.max_length), answers)


def recalibrate(heads: BlendedHeads, newer: FineTuningData, ask: Predict) -> tuple[Predictions, Calibration]:
    """Return what a model's heads say of newer sessions, and how they are calibrated on these from then on."""
    sample = _part(newer.tree_sample, newer.rows, heads.max_length)
    calibration = _calibration(heads.stack, newer.tree_sample, newer.rows, ask, heads.max_length)
    return _said(heads, sample, ask(newer.sample)), calibration


def _calibration(stack: Stack | None, sessions: Sessions, rows: Ints, ask: Predict, max_length: int) -> Calibration:
    """Return how to calibrate on the first `max_length` events of each session.

    Examples hold the newest ones, and long sessions have no beginning there; without them, though, the others would be
    those that were to end soon.
    """
    longest = int(np.diff(sessions.starts).max())
    part, answers = _part(sessions, rows, longest), ask(make_examples(sessions, rows, longest))
    every, silent = part.every, _logits(answers).mean(axis=0)
    at = part.kept if stack is None else np.arange(len(every.items))
    session = np.searchsorted(every.starts, at, side="right") - 1
    first = at - every.starts[session] < max_length
    at, session = at[first], session[first]
    members = _members(stack, part, answers, at, max_length=max_length, silent=silent)
    fitted = calibrate(
        members, every.next_action[at], every.purchase[at], session, CALIBRATION_METHODS[stack is not None]
    )
    return msgspec.structs.replace(fitted, prior_logits=tuple(silent.tolist()))


def _said(heads: BlendedHeads, part: _Part, answers: Predictions) -> Predictions:
    """Return answers with the heads blended."""
    silent = np.array(heads.calibration.prior_logits)
    members = _members(heads.stack, part, answers, part.kept, max_length=heads.max_length, silent=silent)
    said = to_probabilities(blend_logits(members, heads.calibration))
    return Predictions(answers.ranks, said.next_action, said.purchase)


def _members(
    stack: Stack | None, part: _Part, answers: Predictions, at: Longs, *, max_length: int, silent: Floats
) -> list[Floats]:
    """Return what each member says after these events: (len(at), 6) each."""
    of_transformer = forward_fill(_logits(answers), part.kept, part.every, silent)[at]
    return [of_transformer] if stack is None else [of_transformer, stack.logits_after(part.every, at, max_length)]


def _logits(answers: Predictions) -> Floats:
    return to_logits(Probabilities(answers.action_probabilities, answers.purchase))


def _part(sessions: Sessions, rows: Ints, max_length: int) -> _Part:
    return _Part(make_full_sessions(sessions, rows), select_model_events(sessions, rows, max_length))
