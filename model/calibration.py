"""Calibration: probabilities of the heads that can be taken at their word, fitted on sessions that were kept apart.

A logit becomes `scale * logit + bias`, one scale a head and one bias a class (bias-corrected temperature scaling:
Alexandari, Kundaje and Shrikumar, ICML 2020; of two classes it is Platt's). That is folded into the head's own weights,
so the served graph has not a node more.
"""

# pyright: standard
# torch leaves what a module returns untyped.

from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from model import metrics
from model.metrics import Floats, Ints
from model.transformer import SessionTransformer
from schemas.manifest import CalibrationReport

METHOD = "scale * logit + bias, fitted on validation"
PRIOR = 20.0
"""Weight of "as it is" against the events that it is fitted on: half a nat a unit of change, squared, that often."""
STEPS = 100


class Affine(msgspec.Struct, frozen=True, kw_only=True):
    """What a head's logits z become: `scale * z + bias`."""

    scale: float
    bias: tuple[float, ...]
    """Of each class; of the purchase head, of no purchase and of a purchase."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How the heads are calibrated."""

    next_action: Affine
    purchase: Affine
    report: CalibrationReport


class Probabilities(NamedTuple):
    """What the heads say after some events."""

    next_action: Floats
    """(events, 5)."""
    purchase: Floats
    """(events,)."""


def calibrate(said: Probabilities, next_action: Ints, purchase: Ints) -> Calibration:
    """Return the calibration that makes what the heads said most likely to have come true.

    Args:
        said: Before any calibration.
        next_action: The class that came: (events,).
        purchase: Whether one came, 0 or 1: (events,).
    """
    of_action = _fit(_logits(said.next_action), next_action)
    of_purchase = _fit(_logits(_two(said.purchase)), purchase)
    report = CalibrationReport(
        method=METHOD,
        events=len(purchase),
        before=_measured(said, next_action, purchase),
        after=_measured(_applied(said, of_action, of_purchase), next_action, purchase),
    )
    return Calibration(next_action=of_action, purchase=of_purchase, report=report)


def calibrated(said: Probabilities, calibration: Calibration) -> Probabilities:
    """Return what the heads say once they are calibrated."""
    return _applied(said, calibration.next_action, calibration.purchase)


@torch.no_grad()
def fold_in(model: SessionTransformer, calibration: Calibration) -> None:
    """Calibrate a model's heads, in place."""
    none, some = calibration.purchase.bias
    for head, scale, bias in (
        (model.next_action, calibration.next_action.scale, calibration.next_action.bias),
        (model.purchase, calibration.purchase.scale, (some - none,)),
    ):
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(torch.tensor(bias, device=head.bias.device))


def _fit(logits: Floats, happened: Ints) -> Affine:
    """Return the scale and biases of the least log loss, drawn a little towards leaving all as it is."""
    z, classes = torch.from_numpy(logits), torch.from_numpy(happened.astype(np.int64))  # (n, C), (n,)
    scale = torch.ones((), dtype=z.dtype, requires_grad=True)
    bias = torch.zeros(z.shape[1], dtype=z.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        change = (scale - 1).square() + bias.square().sum()
        total = functional.cross_entropy(scale * z + bias, classes, reduction="sum") + PRIOR / 2 * change
        total.backward()
        return total

    optimizer.step(loss)
    return Affine(scale=scale.item(), bias=tuple(bias.tolist()))


def _applied(said: Probabilities, of_action: Affine, of_purchase: Affine) -> Probabilities:
    return Probabilities(
        _apply(of_action, _logits(said.next_action)), _apply(of_purchase, _logits(_two(said.purchase)))[:, 1]
    )


def _apply(affine: Affine, logits: Floats) -> Floats:
    moved = affine.scale * logits + np.array(affine.bias)
    masses = np.exp(moved - moved.max(axis=1, keepdims=True))
    return masses / masses.sum(axis=1, keepdims=True)


def _logits(probabilities: Floats) -> Floats:
    """Return logits of probabilities, whose sum over classes is not theirs, which changes nothing: (n, C)."""
    return np.log(probabilities.astype(np.float64).clip(min=metrics.SMALLEST))


def _two(purchase: Floats) -> Floats:
    """Return the probabilities of no purchase and of one: (n, 2)."""
    return np.stack((1 - purchase, purchase), axis=1)


def _measured(said: Probabilities, next_action: Ints, purchase: Ints) -> dict[str, float]:
    return {
        "next_action_log_loss": metrics.log_loss(said.next_action, next_action),
        "purchase_log_loss": metrics.log_loss(said.purchase, purchase),
        "purchase_calibration_error": metrics.calibration_error(said.purchase, purchase),
    }
