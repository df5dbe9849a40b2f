"""Calibration: blend the members' logits and scale them, so that the heads' probabilities match observed frequencies.

The members are the Transformer and, where one was fitted, the stack of trees and regression. For each head

    z_c = sum_j scale_j * logit_jc + bias_c     (member j, class c)

with one scale for each member and one bias for each class. A single member gives bias-corrected temperature scaling
(Alexandari, Kundaje and Shrikumar, ICML 2020), and Platt scaling for two classes. Several members give stacking
(Wolpert 1992). Scales and biases are fitted on validation sessions, on which no member was trained. They are folded
into the members' own weights, so the served graph gets no additional node.

A fit on few sessions can make probabilities worse, so each step has to prove useful. Start: the last member unchanged.
Candidates, in this order: class frequencies alone; the last member with scale and bias; all members. A candidate
replaces the current choice if the cross-validated log loss falls by more than two standard errors over sessions, or at
all if the current choice is frequencies, which are the same blend with scale 0.
(The one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984, would accept every sixth
useless change.)
"""

# pyright: standard
# torch does not type the result of a module.

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from clickscore.model import metrics
from clickscore.model.array_types import Floats, Ints
from clickscore.model.config import MIN_ACTION_PROBABILITY
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import NEXT_ACTIONS, CalibrationReport

PRIOR_WEIGHT = 20.0
"""Weight of the quadratic penalty on scales and biases, in events: a change by 1 costs 10 nats of log loss."""
LBFGS_ITERATIONS = 100
"""Iterations of L-BFGS; the problem is convex and has at most 7 parameters."""
CALIBRATION_FOLDS = 5
"""Folds of sessions for the cross-validated log loss."""
MIN_STANDARD_ERRORS = 2.0
"""Minimum gain of a candidate, in standard errors over sessions."""
MIN_CALIBRATION_SESSIONS = 50
"""Minimum number of sessions for a fit: with fewer than 10 in a fold no candidate can be judged."""
ACTION_COLUMNS = slice(0, len(NEXT_ACTIONS))
"""Logit columns of the next actions."""
PURCHASE_COLUMN = len(NEXT_ACTIONS)
"""Logit column of a purchase, the last."""

Fit = Callable[[Floats, Ints], "Affine"]
"""Fits a blend on logits (n, members, classes) and labels (n,)."""


class Affine(msgspec.Struct, frozen=True, kw_only=True):
    """The affine map from the members' logits to a head's calibrated logits."""

    scales: tuple[float, ...]
    """Scale of each member."""
    bias: tuple[float, ...]
    """Bias of each class; the purchase head has a single bias."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Blend and calibration of both heads."""

    next_action: Affine
    purchase: Affine
    report: CalibrationReport
    prior_logits: tuple[float, ...] = msgspec.field(name="silent", default=(0.0,) * (len(NEXT_ACTIONS) + 1))
    """The Transformer's mean logits, used beside a stack before a session's first known item: (6,)."""


class Probabilities(NamedTuple):
    """Predicted probabilities after some events."""

    next_action: Floats
    """Probability of each next action: (events, 5)."""
    purchase: Floats
    """Probability of a purchase later in the session: (events,)."""


def calibrate(members: Sequence[Floats], next_action: Ints, purchase: Ints, session: Ints, method: str) -> Calibration:
    """Return the calibration with the lowest log loss on the given events.

    Args:
        members: Logits of the Transformer, then logits of the stack, if any: (events, 6) each.
        next_action: Label: class of the next action: (events,).
        purchase: Label: 1 if a purchase follows, else 0: (events,).
        session: Number of each event's session: (events,).
        method: Name of the method for the report.
    """
    logits = np.stack(members, axis=1)  # (events, members, 6)
    action_map = _select_blend(logits[:, :, ACTION_COLUMNS], next_action, session)
    # A sigmoid is a softmax over (0, logit): class 0, no purchase, has the logit 0
    two_classes = np.pad(logits[:, :, PURCHASE_COLUMN:], ((0, 0), (0, 0), (1, 0)))  # (events, members, 2)
    purchase_map = _select_blend(two_classes, purchase, session)
    bias_without, bias_with = purchase_map.bias
    fitted = Calibration(
        next_action=action_map,
        purchase=Affine(scales=purchase_map.scales, bias=(bias_with - bias_without,)),
        report=CalibrationReport(method=method, events=len(purchase), before={}, after={}),
    )
    before = measure_heads(to_probabilities(members[0]), next_action, purchase)
    after = measure_heads(to_probabilities(blend_logits(members, fitted)), next_action, purchase)
    return msgspec.structs.replace(fitted, report=msgspec.structs.replace(fitted.report, before=before, after=after))


def blend_logits(members: Sequence[Floats], calibration: Calibration) -> Floats:
    """Return the calibrated logits z_c = sum_j scale_j * logit_jc + bias_c: (events, 6)."""
    total = class_biases(calibration)
    for logits, scales in zip(members, member_scales(calibration), strict=True):
        total = total + logits * scales
    return total


def class_biases(calibration: Calibration) -> Floats:
    """Return the bias of each logit: (6,)."""
    return np.array([*calibration.next_action.bias, *calibration.purchase.bias])


def member_scales(calibration: Calibration) -> list[Floats]:
    """Return the scales of each member's logits: (6,) each."""
    return [
        np.array([action_scale] * len(NEXT_ACTIONS) + [purchase_scale])
        for action_scale, purchase_scale in zip(
            calibration.next_action.scales, calibration.purchase.scales, strict=True
        )
    ]


def to_probabilities(logits: Floats) -> Probabilities:
    """Return the softmax of the action logits and the sigmoid of the purchase logit: (events, 6)."""
    action_logits = logits[:, ACTION_COLUMNS]
    exponentials = np.exp(action_logits - action_logits.max(axis=1, keepdims=True))  # shifted: no overflow
    return Probabilities(
        exponentials / exponentials.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-logits[:, PURCHASE_COLUMN]))
    )


def limit_actions(predicted: Probabilities) -> Probabilities:
    """Return the probabilities with each next action at or above the lower limit, as the graph returns them."""
    limited = np.maximum(predicted.next_action, MIN_ACTION_PROBABILITY)
    return Probabilities(limited / limited.sum(axis=1, keepdims=True), predicted.purchase)


def to_logits(predicted: Probabilities) -> Floats:
    """Return the inverse of `to_probabilities`: (events, 6)."""
    action_logits = np.log(predicted.next_action.astype(np.float64).clip(min=metrics.MIN_PROBABILITY))
    purchase = predicted.purchase.astype(np.float64).clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY)
    return np.concatenate((action_logits, np.log(purchase / (1 - purchase))[:, None]), axis=1)


@torch.no_grad()
def fold_in(model: SessionTransformer, calibration: Calibration) -> None:
    """Fold the Transformer's scales and the biases into the weights of its heads, in place.

    With a stack, the stack's part of the graph adds the biases. The heads' biases then lose the scaled prior logits,
    because the graph multiplies the heads' logits by 0 where a session has no known item, and the stack's part adds
    the scaled prior logits everywhere.
    """
    has_stack = len(calibration.purchase.scales) > 1
    prior = -member_scales(calibration)[0] * calibration.prior_logits
    shift = torch.tensor(prior if has_stack else class_biases(calibration))  # (6,)
    heads = (
        (model.next_action, calibration.next_action, ACTION_COLUMNS),
        (model.purchase, calibration.purchase, slice(PURCHASE_COLUMN, None)),
    )
    for head, affine, columns in heads:
        head.weight.mul_(affine.scales[0])
        head.bias.mul_(affine.scales[0]).add_(shift[columns].to(head.bias))


def _select_blend(logits: Floats, labels: Ints, session: Ints) -> Affine:
    """Return the last member unchanged, or a blend with a significantly lower log loss.

    Args:
        logits: Logits of each member J and class C: (n, J, C).
        labels: Class of each event: (n,).
        session: Number of each event's session: (n,).
    """
    _, members, classes = logits.shape
    last = (members - 1,)
    unchanged = Affine(scales=(0.0,) * (members - 1) + (1.0,), bias=(0.0,) * classes)
    session_index = np.unique(session, return_inverse=True)[1]  # (n,), from 0
    if session_index.max(initial=0) + 1 < MIN_CALIBRATION_SESSIONS:
        return unchanged
    fits: list[Fit] = [lambda *_: unchanged, _fit_class_frequencies, functools.partial(_fit_blend, members=last)]
    fits += [functools.partial(_fit_blend, members=tuple(range(members)))] * (members > 1)
    best, *candidates = [(fit, _cross_validate(fit, logits, labels, session_index)) for fit in fits]
    for fit, losses in candidates:
        gains = best[1] - losses
        # Frequencies are a blend with scale 0: once the member is no longer unchanged, the better mean decides.
        is_nested = best[0] is _fit_class_frequencies and gains.mean() > 0
        if is_nested or is_significant(gains, session_index):
            best = fit, losses
    return best[0](logits, labels)


def is_significant(gains: Floats, session: Ints) -> bool:
    """Return whether the mean gain is above zero by more than `MIN_STANDARD_ERRORS`.

    Args:
        gains: Fall of each event's log loss: (n,).
        session: Number of each event's session, from 0: (n,).
    """
    session_gains = np.bincount(session, gains)  # (sessions,): an event's loss is no independent sample
    return bool(session_gains.mean() > MIN_STANDARD_ERRORS * session_gains.std(ddof=1) / np.sqrt(len(session_gains)))


def _cross_validate(fit: Fit, logits: Floats, labels: Ints, session: Ints) -> Floats:
    """Return the log loss of each event under a blend fitted on the other folds of sessions: (n,)."""
    losses = np.zeros(len(labels))
    for fold in range(CALIBRATION_FOLDS):
        inside = session % CALIBRATION_FOLDS == fold
        affine = fit(logits[~inside], labels[~inside])
        blended = torch.from_numpy(np.einsum("j,njc->nc", affine.scales, logits[inside]) + affine.bias)
        targets = torch.from_numpy(labels[inside].astype(np.int64))
        losses[inside] = functional.cross_entropy(blended, targets, reduction="none").numpy()
    return losses


def _fit_class_frequencies(logits: Floats, labels: Ints) -> Affine:
    """Return a blend without members: the frequency of each class, with a count of 1 added."""
    counts = np.bincount(labels, minlength=logits.shape[2]) + 1.0
    return Affine(scales=(0.0,) * logits.shape[1], bias=tuple(np.log(counts / counts.sum()).tolist()))


def _fit_blend(logits: Floats, labels: Ints, members: tuple[int, ...]) -> Affine:
    """Return the scales and biases with the lowest penalised log loss.

    loss = sum_i -log softmax(z_i)[label_i] + PRIOR_WEIGHT / 2 * (sum_j (scale_j - 1/J)^2 + sum_c bias_c^2)

    The penalty draws the blend towards the plain mean of the J members.

    Args:
        logits: Logits of all members and classes: (n, members, C).
        labels: Class of each event: (n,).
        members: Indices of the J blended members; the other scales are 0.
    """
    member_logits = torch.from_numpy(logits[:, members].astype(np.float64))  # (n, J, C)
    targets = torch.from_numpy(labels.astype(np.int64))
    prior = 1 / len(members)
    scales = torch.full((len(members), 1), prior, dtype=member_logits.dtype, requires_grad=True)  # (J, 1)
    bias = torch.zeros(member_logits.shape[2], dtype=member_logits.dtype, requires_grad=True)  # (C,)
    optimizer = torch.optim.LBFGS([scales, bias], max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        change = (scales - prior).square().sum() + bias.square().sum()
        blended = (scales * member_logits).sum(dim=1) + bias  # (n, C)
        loss = functional.cross_entropy(blended, targets, reduction="sum") + PRIOR_WEIGHT / 2 * change
        loss.backward()
        return loss

    optimizer.step(closure)
    all_scales = np.zeros(logits.shape[1])
    all_scales[list(members)] = scales.detach().numpy()[:, 0]
    return Affine(scales=tuple(all_scales.tolist()), bias=tuple(bias.tolist()))


def measure_heads(predicted: Probabilities, next_action: Ints, purchase: Ints) -> dict[str, float]:
    """Return the metrics of a report, by name.

    Args:
        predicted: Predicted probabilities.
        next_action: Label: class of the next action: (events,).
        purchase: Label: 1 if a purchase follows, else 0: (events,).
    """
    return {
        "next_action_log_loss": metrics.log_loss(predicted.next_action, next_action),
        "purchase_log_loss": metrics.log_loss(predicted.purchase, purchase),
        "purchase_pr_auc": metrics.pr_auc(predicted.purchase, purchase),
        "purchase_calibration_error": metrics.calibration_error(predicted.purchase, purchase),
    }
