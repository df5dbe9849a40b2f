"""Level: correct a bundle's probabilities of the next action and of a purchase on recent sessions, within bounds.

Rates move by hour and day, and from shop to shop. The correction of a head's logits is z' = s (z - m) + m + b, with one
scale s, the bundle's mean logit m on the recent sessions, and a bounded shift b for each class. It is chosen as at the
end of a training (`model.calibration`): the bundle stays as it is unless the cross-validated log loss falls by more
than two standard errors. At scale 0 the head returns the frequencies of the recent sessions.
"""

from collections.abc import Collection, Mapping

import msgspec
import numpy as np
import onnxruntime as ort

from clickscore.model.array_types import Floats, Longs
from clickscore.model.bundle_heads import batch_prefixes, run_heads
from clickscore.model.calibration import (
    Affine,
    Calibration,
    Probabilities,
    blend_logits,
    calibrate,
    to_logits,
    to_probabilities,
)
from clickscore.model.errors import DataError
from clickscore.model.prefix_features import FullSessions, mark_purchased
from clickscore.schemas.manifest import HEADS, NEXT_ACTIONS, LevelCorrection, Manifest

MAX_SHIFT = 5.0
"""Largest shift of a logit at its mean, whatever the recent sessions hold: odds change by a factor of 150 at most. An
action that the training never had rises from its lower limit to 7 %."""
MAX_SCALE = 2.0
"""Largest scale of the logits."""
MAX_PREFIXES = 20_000
"""Newest prefixes of the fit: more would not change a level, and a graph takes about a millisecond for 10 of them."""
METHOD = "scale and bounded shift on recent sessions"
"""Text in the calibration report."""


def fit_level(graph: ort.InferenceSession, manifest: Manifest, sessions: FullSessions) -> Calibration:
    """Return the correction of a bundle's heads on recent sessions, in order of closing.

    The prefixes end at each event without an earlier purchase: after a purchase, the further purchases of the order are
    trivial, and they would hide the level of all other events.

    Args:
        graph: Graph of the bundle, without an earlier correction.
        manifest: Manifest of the bundle.
        sessions: Recent sessions, in the item rows of the bundle.
    """
    ends = _select_prefixes(sessions)
    rows, predicted = run_heads(graph, manifest, sessions, ends)
    ends, logits = ends[rows], to_logits(predicted)
    session = np.searchsorted(sessions.starts, ends, side="right") - 1
    fitted = calibrate([logits], sessions.next_action[ends], sessions.purchase[ends], session, METHOD)
    means = logits.mean(axis=0) if len(logits) else np.zeros(len(NEXT_ACTIONS) + 1)
    return msgspec.structs.replace(
        fitted,
        next_action=_bound(fitted.next_action, means[:-1]),
        purchase=_bound(fitted.purchase, means[-1:]),
        prior_logits=tuple(means.tolist()),
    )


def count_judged_sessions(manifest: Manifest, sessions: FullSessions) -> int:
    """Return the number of sessions that `fit_level` reads: those that the bundle answers before a purchase.

    Args:
        manifest: Manifest of the bundle.
        sessions: Recent sessions, in the item rows of the bundle.
    """
    ends = _select_prefixes(sessions)
    answered = [row for rows, _ in batch_prefixes(manifest, sessions, ends) for row in rows.tolist()]
    return len(np.unique(np.searchsorted(sessions.starts, ends[answered], side="right")))


def require_sessions(manifest: Manifest, sessions: FullSessions, minimum: int) -> None:
    """Refuse recent sessions that are too few: a correction on them would leave the bundle as it is, and not say why.

    Args:
        manifest: Manifest of the bundle.
        sessions: Recent sessions, in the item rows of the bundle.
        minimum: Number of sessions to read, at least.

    Raises:
        DataError: The sessions are too few.
    """
    count = count_judged_sessions(manifest, sessions)
    if count < minimum:
        message = (
            f"{count:,} of {len(sessions.starts) - 1:,} recent sessions can be judged, with an event before a purchase "
            f"that the bundle reads, and at least {minimum} are needed: name further files of recent sessions"
        )
        raise DataError(message)


def _select_prefixes(sessions: FullSessions) -> Longs:
    """Return the last events of the prefixes of the fit: (n,)."""
    return np.flatnonzero(~mark_purchased(sessions))[-MAX_PREFIXES:]


def correct_level(predicted: Probabilities, correction: Calibration) -> Probabilities:
    """Return probabilities with a corrected level, as the graph of a recalibrated bundle returns them."""
    return to_probabilities(blend_logits([to_logits(predicted)], correction))


def leave_heads(correction: Calibration, heads: Collection[str]) -> Calibration:
    """Return a correction that leaves some heads as they are.

    Args:
        correction: Correction of both heads.
        heads: Names of `HEADS` to leave.
    """
    changes = {
        field: Affine(scales=(1.0,), bias=(0.0,) * len(affine.bias))
        for name, field, affine in zip(
            HEADS, ("next_action", "purchase"), (correction.next_action, correction.purchase), strict=True
        )
        if name in heads
    }
    return msgspec.structs.replace(correction, **changes)


def is_unchanged(affine: Affine) -> bool:
    """Return whether a correction leaves a head as it is."""
    return affine.scales == (1.0,) and not any(affine.bias)


def describe_level(correction: Calibration, sessions: int, closed_from: int, closed_until: int) -> LevelCorrection:
    """Return a correction for the manifest.

    Args:
        correction: Correction of `fit_level`.
        sessions: Number of recent sessions.
        closed_from: Closing time of the oldest of them, ms.
        closed_until: Closing time of the newest of them, ms.
    """
    means = np.array(correction.prior_logits)
    action_shifts = _shifts(correction.next_action, means[:-1])
    (purchase_shift,) = _shifts(correction.purchase, means[-1:])
    return LevelCorrection(
        sessions=sessions,
        events=correction.report.events,
        closed_from=closed_from,
        closed_until=closed_until,
        action_scale=round(correction.next_action.scales[0], 6),
        action_shifts={name: round(shift, 6) for name, shift in zip(NEXT_ACTIONS, action_shifts, strict=True)},
        purchase_scale=round(correction.purchase.scales[0], 6),
        purchase_shift=round(purchase_shift, 6),
        before=round_metrics(correction.report.before),
        after=round_metrics(correction.report.after),
    )


def _bound(affine: Affine, means: Floats) -> Affine:
    """Return a correction within the bounds.

    Args:
        affine: Scale and biases: (C,).
        means: Mean logit of each class: (C,).
    """
    scale = min(max(affine.scales[0], 0.0), MAX_SCALE)
    shifts = np.clip(_shifts(affine, means), -MAX_SHIFT, MAX_SHIFT)
    return Affine(scales=(scale,), bias=tuple((shifts - (scale - 1) * means).tolist()))


def _shifts(affine: Affine, means: Floats) -> list[float]:
    """Return the shift of each logit at its mean: b = bias + (s - 1) m."""
    return (np.array(affine.bias) + (affine.scales[0] - 1) * means).tolist()


def round_metrics(figures: Mapping[str, float]) -> dict[str, float]:
    """Return metrics for the manifest, by name."""
    return {name: round(value, 6) for name, value in figures.items()}
