"""Calibration: what the heads' members say, blended into probabilities that can be taken at their word.

A logit becomes `sum_j scale_j * logit_j + bias` over the members j, with one scale a member and head and one bias a
class. With the Transformer as the only member that is bias-corrected temperature scaling (Alexandari, Kundaje and
Shrikumar, ICML 2020), of two classes Platt's; with more it is stacking (Wolpert 1992). Fitted on sessions that no
member has learned, and folded into the members' own weights, so the served graph has not a node more.

Nothing is changed that does not pay by more than chance. The last member stays as it is, unless the plain shares of the
classes, then the same with scale and bias, then all members together have a cross-validated log loss that is lower than
that of what was taken before by more than two standard errors over sessions. So what knows nothing ends at the shares,
and a Transformer that is sure of what it has seen by chance is not listened to. (One standard error, as in Breiman et
al., Classification and Regression Trees, 1984, would take one useless change in six.)
"""

# pyright: standard
# torch leaves what a module returns untyped.

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from clickscore.model import metrics
from clickscore.model.metrics import Floats, Ints
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import NEXT_ACTIONS, CalibrationReport

PRIOR_WEIGHT = 20.0
"""Weight of the members' plain mean against the events that it is fitted on: half a nat a unit of change, squared,
that often."""
MAX_ITERATIONS = 100
FOLDS = 5
"""Parts of the sessions, by which what a blend loses on others is told."""
MIN_STANDARD_ERRORS = 2.0
"""Standard errors by which a change has to be better."""
MIN_SESSIONS = 50
"""Below that, folds tell nothing, and the last member is taken as it is."""
ACTION_COLUMNS = slice(0, len(NEXT_ACTIONS))
PURCHASE_COLUMN = len(NEXT_ACTIONS)
"""Columns of logits: those of the next actions, then that of a purchase."""


class Affine(msgspec.Struct, frozen=True, kw_only=True):
    """What the members' logits become."""

    scales: tuple[float, ...]
    """Of each member."""
    bias: tuple[float, ...]
    """Of each class; of the purchase head, one."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How the heads are blended and calibrated."""

    next_action: Affine
    purchase: Affine
    report: CalibrationReport
    prior_logits: tuple[float, ...] = msgspec.field(name="silent", default=(0.0,) * (len(NEXT_ACTIONS) + 1))
    """Logits that the Transformer counts as giving beside a stack where it has read nothing: its mean."""


class Probabilities(NamedTuple):
    """What is said after some events."""

    next_action: Floats
    """(events, 5)."""
    purchase: Floats
    """(events,)."""


def calibrate(members: Sequence[Floats], next_action: Ints, purchase: Ints, session: Ints, method: str) -> Calibration:
    """Return the calibration that makes what the members said most likely to have come true.

    Args:
        members: Logits of the Transformer, and those of a stack if there is one: (events, 6) each.
        next_action: The class that came: (events,).
        purchase: Whether one came, 0 or 1: (events,).
        session: Number of the session that the event is of: (events,).
        method: What the members are, in words.
    """
    every = np.stack(members, axis=1)  # (events, members, 6)
    of_action = _choose(every[:, :, ACTION_COLUMNS], next_action, session)
    two = np.pad(every[:, :, PURCHASE_COLUMN:], ((0, 0), (0, 0), (1, 0)))  # no purchase has logit 0
    of_purchase = _choose(two, purchase, session)
    none, some = of_purchase.bias
    fitted = Calibration(
        next_action=of_action,
        purchase=Affine(scales=of_purchase.scales, bias=(some - none,)),
        report=CalibrationReport(method=method, events=len(purchase), before={}, after={}),
    )
    before = _measured(to_probabilities(members[0]), next_action, purchase)
    after = _measured(to_probabilities(blend_logits(members, fitted)), next_action, purchase)
    return msgspec.structs.replace(fitted, report=msgspec.structs.replace(fitted.report, before=before, after=after))


def blend_logits(members: Sequence[Floats], calibration: Calibration) -> Floats:
    """Return the logits of all members together: (events, 6)."""
    total = class_biases(calibration)
    for logits, scales in zip(members, member_scales(calibration), strict=True):
        total = total + logits * scales
    return total


def class_biases(calibration: Calibration) -> Floats:
    """Return what is added to the logits: (6,)."""
    return np.array([*calibration.next_action.bias, *calibration.purchase.bias])


def member_scales(calibration: Calibration) -> list[Floats]:
    """Return what each member's logits are multiplied by: (6,) each."""
    of_action, of_purchase = calibration.next_action.scales, calibration.purchase.scales
    return [
        np.array([action] * len(NEXT_ACTIONS) + [purchase])
        for action, purchase in zip(of_action, of_purchase, strict=True)
    ]


def to_probabilities(logits: Floats) -> Probabilities:
    """Return what logits say: (events, 6)."""
    of_action = logits[:, ACTION_COLUMNS]
    masses = np.exp(of_action - of_action.max(axis=1, keepdims=True))
    return Probabilities(masses / masses.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-logits[:, PURCHASE_COLUMN])))


def to_logits(said: Probabilities) -> Floats:
    """Return logits of probabilities: (events, 6)."""
    of_action = np.log(said.next_action.astype(np.float64).clip(min=metrics.MIN_PROBABILITY))
    purchase = said.purchase.astype(np.float64).clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY)
    return np.concatenate((of_action, np.log(purchase / (1 - purchase))[:, None]), axis=1)


@torch.no_grad()
def fold_in(model: SessionTransformer, calibration: Calibration) -> None:
    """Scale a model's heads, in place, and add the biases.

    Beside a stack, which adds the biases, what is said in silence is taken from them: a graph multiplies the heads'
    logits by 0 where no item is known.
    """
    alone = len(calibration.purchase.scales) == 1
    shift = torch.tensor(
        class_biases(calibration) if alone else -member_scales(calibration)[0] * calibration.prior_logits
    )
    parts = (
        (model.next_action, calibration.next_action, ACTION_COLUMNS),
        (model.purchase, calibration.purchase, slice(PURCHASE_COLUMN, None)),
    )
    for head, affine, which in parts:
        head.weight.mul_(affine.scales[0])
        head.bias.mul_(affine.scales[0]).add_(shift[which].to(head.bias))


def _choose(logits: Floats, happened: Ints, session: Ints) -> Affine:
    """Return the last member as it is, or what beats it by more than chance.

    Args:
        logits: Of each member and class: (n, J, C).
        happened: The class that came: (n,).
        session: (n,).
    """
    _, members, classes = logits.shape
    last = (members - 1,)
    as_it_is = Affine(scales=(0.0,) * (members - 1) + (1.0,), bias=(0.0,) * classes)
    number_of = np.unique(session, return_inverse=True)[1]
    if number_of.max(initial=0) + 1 < MIN_SESSIONS:
        return as_it_is
    ways: list[Callable[[Floats, Ints], Affine]] = [lambda *_: as_it_is, _shares, functools.partial(_fit, of=last)]
    ways += [functools.partial(_fit, of=tuple(range(members)))] * (members > 1)
    chosen, *changes = [(way, _losses(way, logits, happened, number_of)) for way in ways]
    for way, losses in changes:
        gains = np.bincount(number_of, chosen[1] - losses)  # of each session
        if gains.mean() > MIN_STANDARD_ERRORS * gains.std(ddof=1) / np.sqrt(len(gains)):
            chosen = way, losses
    return chosen[0](logits, happened)


def _losses(way: Callable[[Floats, Ints], Affine], logits: Floats, happened: Ints, session: Ints) -> Floats:
    """Return the log loss after each event of a blend that is fitted on other sessions: (n,)."""
    losses = np.zeros(len(happened))
    for fold in range(FOLDS):
        inside = session % FOLDS == fold
        fitted = way(logits[~inside], happened[~inside])
        said = torch.from_numpy(np.einsum("j,njc->nc", fitted.scales, logits[inside]) + fitted.bias)
        came = torch.from_numpy(happened[inside].astype(np.int64))
        losses[inside] = functional.cross_entropy(said, came, reduction="none").numpy()
    return losses


def _shares(logits: Floats, happened: Ints) -> Affine:
    """Return what says how often each class came, whatever the members say."""
    counts = np.bincount(happened, minlength=logits.shape[2]) + 1.0
    return Affine(scales=(0.0,) * logits.shape[1], bias=tuple(np.log(counts / counts.sum()).tolist()))


def _fit(logits: Floats, happened: Ints, of: tuple[int, ...]) -> Affine:
    """Return scales and biases of the least log loss, drawn a little towards the mean of the members that count.

    Args:
        logits: (n, J, C).
        happened: (n,).
        of: Numbers of the members that count; the others' scales are 0.
    """
    z, classes = torch.from_numpy(logits[:, of].astype(np.float64)), torch.from_numpy(happened.astype(np.int64))
    prior = 1 / len(of)
    scales = torch.full((len(of), 1), prior, dtype=z.dtype, requires_grad=True)  # (members that count, 1)
    bias = torch.zeros(z.shape[2], dtype=z.dtype, requires_grad=True)  # (C,)
    optimizer = torch.optim.LBFGS([scales, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        change = (scales - prior).square().sum() + bias.square().sum()
        total = (
            functional.cross_entropy((scales * z).sum(dim=1) + bias, classes, reduction="sum")
            + PRIOR_WEIGHT / 2 * change
        )
        total.backward()
        return total

    optimizer.step(loss)
    every = np.zeros(logits.shape[1])
    every[list(of)] = scales.detach().numpy()[:, 0]
    return Affine(scales=tuple(every.tolist()), bias=tuple(bias.tolist()))


def _measured(said: Probabilities, next_action: Ints, purchase: Ints) -> dict[str, float]:
    return {
        "next_action_log_loss": metrics.log_loss(said.next_action, next_action),
        "purchase_log_loss": metrics.log_loss(said.purchase, purchase),
        "purchase_pr_auc": metrics.pr_auc(said.purchase, purchase),
        "purchase_calibration_error": metrics.calibration_error(said.purchase, purchase),
    }
