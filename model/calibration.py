"""Calibration: what the heads' members say, blended into probabilities that can be taken at their word.

A logit becomes `sum_j scale_j * logit_j + bias` over the members j, with one scale a member and head and one bias a
class. With the Transformer as the only member that is bias-corrected temperature scaling (Alexandari, Kundaje and
Shrikumar, ICML 2020), of two classes Platt's; with more it is stacking (Wolpert 1992). Fitted on sessions that no
member has learned, and folded into the members' own weights, so the served graph has not a node more.

A member is listened to where that pays by more than chance: of no member, all but the Transformer, and all, each is
taken if it lowers the cross-validated log loss of the one before by more than a standard error over sessions (Breiman
et al., Classification and Regression Trees, 1984). What knows nothing ends at the shares of the classes.
"""

# pyright: standard
# torch leaves what a module returns untyped.

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from model import metrics
from model.metrics import Floats, Ints
from model.transformer import SessionTransformer
from schemas.manifest import NEXT_ACTIONS, CalibrationReport

PRIOR = 20.0
"""Weight of the members' plain mean against the events that it is fitted on: half a nat a unit of change, squared,
that often."""
STEPS = 100
FOLDS = 5
"""Parts of the sessions, by which what a blend loses on others is told."""
FEWEST_SESSIONS = 50
"""Below that, folds tell nothing, and all members are blended."""
ACTIONS = slice(0, len(NEXT_ACTIONS))
PURCHASE = len(NEXT_ACTIONS)
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


class Probabilities(NamedTuple):
    """What is said after some events."""

    next_action: Floats
    """(events, 5)."""
    purchase: Floats
    """(events,)."""


def calibrate(members: Sequence[Floats], next_action: Ints, purchase: Ints, session: Ints, method: str) -> Calibration:
    """Return the calibration that makes what the members said most likely to have come true.

    Args:
        members: Logits of each, the Transformer's first: (events, 6).
        next_action: The class that came: (events,).
        purchase: Whether one came, 0 or 1: (events,).
        session: Number of the session that the event is of: (events,).
        method: What the members are, in words.
    """
    every = np.stack(members, axis=1)  # (events, members, 6)
    of_action = _choose(every[:, :, ACTIONS], next_action, session)
    two = np.pad(every[:, :, PURCHASE:], ((0, 0), (0, 0), (1, 0)))  # no purchase has logit 0
    of_purchase = _choose(two, purchase, session)
    none, some = of_purchase.bias
    fitted = Calibration(
        next_action=of_action,
        purchase=Affine(scales=of_purchase.scales, bias=(some - none,)),
        report=CalibrationReport(method=method, events=len(purchase), before={}, after={}),
    )
    before = _measured(probabilities(members[0]), next_action, purchase)
    after = _measured(probabilities(blended(members, fitted)), next_action, purchase)
    return msgspec.structs.replace(fitted, report=msgspec.structs.replace(fitted.report, before=before, after=after))


def blended(members: Sequence[Floats], calibration: Calibration) -> Floats:
    """Return the logits of all members together: (events, 6)."""
    total = np.array([*calibration.next_action.bias, *calibration.purchase.bias])
    for logits, scales in zip(members, scales_of(calibration), strict=True):
        total = total + logits * scales
    return total


def scales_of(calibration: Calibration) -> list[Floats]:
    """Return what each member's logits are multiplied by: (6,) each."""
    of_action, of_purchase = calibration.next_action.scales, calibration.purchase.scales
    return [
        np.array([action] * len(NEXT_ACTIONS) + [purchase])
        for action, purchase in zip(of_action, of_purchase, strict=True)
    ]


def probabilities(logits: Floats) -> Probabilities:
    """Return what logits say: (events, 6)."""
    of_action = logits[:, ACTIONS]
    masses = np.exp(of_action - of_action.max(axis=1, keepdims=True))
    return Probabilities(masses / masses.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-logits[:, PURCHASE])))


def logits_of(said: Probabilities) -> Floats:
    """Return logits of probabilities: (events, 6)."""
    of_action = np.log(said.next_action.astype(np.float64).clip(min=metrics.SMALLEST))
    purchase = said.purchase.astype(np.float64).clip(metrics.SMALLEST, 1 - metrics.SMALLEST)
    return np.concatenate((of_action, np.log(purchase / (1 - purchase))[:, None]), axis=1)


@torch.no_grad()
def fold_in(model: SessionTransformer, calibration: Calibration) -> None:
    """Scale a model's heads, in place, and add the biases where it is the only member."""
    alone = len(calibration.purchase.scales) == 1
    for head, affine in ((model.next_action, calibration.next_action), (model.purchase, calibration.purchase)):
        head.weight.mul_(affine.scales[0])
        head.bias.mul_(affine.scales[0])
        if alone:
            head.bias.add_(torch.tensor(affine.bias, device=head.bias.device))


def _choose(logits: Floats, happened: Ints, session: Ints) -> Affine:
    """Return the blend of the fewest members that no larger one beats by more than chance.

    Args:
        logits: Of each member and class: (n, J, C).
        happened: The class that came: (n,).
        session: (n,).
    """
    everyone = tuple(range(logits.shape[1]))
    names, number_of = np.unique(session, return_inverse=True)
    if len(names) < FEWEST_SESSIONS:
        return _fit(logits, happened, everyone)
    chosen, *larger = dict.fromkeys(((), everyone[1:], everyone))
    least = _losses(logits, happened, number_of, chosen)
    for of in larger:
        losses = _losses(logits, happened, number_of, of)
        gains = np.bincount(number_of, least - losses)  # of each session
        if gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)):
            chosen, least = of, losses
    return _fit(logits, happened, chosen)


def _losses(logits: Floats, happened: Ints, session: Ints, of: tuple[int, ...]) -> Floats:
    """Return the log loss after each event of the blend of some members that is fitted on other sessions: (n,)."""
    losses = np.zeros(len(happened))
    for fold in range(FOLDS):
        inside = session % FOLDS == fold
        fitted = _fit(logits[~inside], happened[~inside], of)
        said = torch.from_numpy(np.einsum("j,njc->nc", fitted.scales, logits[inside]) + fitted.bias)
        came = torch.from_numpy(happened[inside].astype(np.int64))
        losses[inside] = functional.cross_entropy(said, came, reduction="none").numpy()
    return losses


def _fit(logits: Floats, happened: Ints, of: tuple[int, ...]) -> Affine:
    """Return scales and biases of the least log loss, drawn a little towards the mean of the members that count.

    Args:
        logits: (n, J, C).
        happened: (n,).
        of: Numbers of the members that count; the others' scales are 0, and without any, biases are those of shares.
    """
    if not of:
        counts = np.bincount(happened, minlength=logits.shape[2]) + 1.0
        return Affine(scales=(0.0,) * logits.shape[1], bias=tuple(np.log(counts / counts.sum()).tolist()))
    z, classes = torch.from_numpy(logits[:, of].astype(np.float64)), torch.from_numpy(happened.astype(np.int64))
    prior = 1 / len(of)
    scales = torch.full((len(of), 1), prior, dtype=z.dtype, requires_grad=True)  # (members that count, 1)
    bias = torch.zeros(z.shape[2], dtype=z.dtype, requires_grad=True)  # (C,)
    optimizer = torch.optim.LBFGS([scales, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        change = (scales - prior).square().sum() + bias.square().sum()
        total = functional.cross_entropy((scales * z).sum(dim=1) + bias, classes, reduction="sum") + PRIOR / 2 * change
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
