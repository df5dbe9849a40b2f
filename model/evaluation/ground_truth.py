"""Ground truth: the simulator's true purchase probability after each event, and a model's error against it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from clickscore.model import metrics
from clickscore.model.array_types import Floats, Ints
from clickscore.model.errors import DataError
from clickscore.model.session_files import ReadStatistics, read_lines, read_usable_sessions, select_known_actions
from clickscore.schemas.json_depth import bounded_depth


class TruthError(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of predicted probabilities against the true ones. A share is 0 for the base rate and 1 for the truth."""

    mean_difference: float
    """Mean absolute difference of the predicted and the true probability."""
    calibration_error: float
    """Expected calibration error over 15 bins of equal mass, against the mean true probability of each bin, so that
    random outcomes add no noise."""
    log_loss_share: float
    """Share of the truth's gain in expected log loss over the base rate."""
    pr_auc_share: float
    """Share of the truth's gain in PR-AUC over the base rate."""


class _EventTruth(msgspec.Struct):
    event_id: str
    purchase: float


_decode = bounded_depth(msgspec.json.Decoder(_EventTruth).decode)


def read_ground_truth(path: Path, files: Sequence[Path]) -> Floats:
    """Return the true probability of a purchase after each event, in the order of `read_sessions`: (events,).

    Args:
        path: File of `clickscore simulate --truth`, or JSON lines with `purchase` and `event_id`: the session's id and
            the event's number in the session from 00, as in `s7-000012-03`.
        files: Files of the sessions.

    Raises:
        DataError: A file cannot be read, or the truth of an event is missing.
    """
    try:
        truth_of = {line.event_id: line.purchase for line in map(_decode, read_lines(path))}
    except msgspec.DecodeError as exc:
        message = f"{path} is not a file of true probabilities: {exc}"
        raise DataError(message) from exc
    sessions: list[tuple[int, list[float]]] = []
    for session in read_usable_sessions(files, ReadStatistics()):
        events = [f"{session.session_id}-{number:02d}" for number in range(len(select_known_actions(session)))]
        if missing := [event for event in events if event not in truth_of]:
            message = f"{path} has no true probability for {missing[0]}, an event of the test"
            raise DataError(message)
        sessions.append((session.closed_at, [truth_of[event] for event in events]))
    sessions.sort(key=lambda session: session[0])  # stable, as `model.session_arrays.sort_by_closing`
    return np.concatenate([truths for _, truths in sessions])


def compute_truth_error(predicted: Floats, truth: Floats, purchase: Ints) -> TruthError:
    """Return the errors of predicted probabilities against the true ones.

    Args:
        predicted: Predicted probability of a purchase: (rows,).
        truth: True probability: (rows,).
        purchase: Outcome, 0 or 1: (rows,).
    """
    base_rate = np.full(len(truth), truth.mean())
    base_loss, loss, best_loss = (_expected_log_loss(values, truth) for values in (base_rate, predicted, truth))
    base_area, area, best_area = (metrics.pr_auc(values, purchase) for values in (base_rate, predicted, truth))
    return TruthError(
        mean_difference=float(np.abs(predicted - truth).mean()),
        calibration_error=metrics.calibration_error(predicted, truth),
        log_loss_share=_gain_share(base_loss, loss, best_loss),
        pr_auc_share=_gain_share(base_area, area, best_area),
    )


def _expected_log_loss(predicted: Floats, truth: Floats) -> float:
    """Return the mean of -(t log p + (1 - t) log(1 - p)) for the truth t."""
    predicted = predicted.clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY)
    return -float((truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted)).mean())


def _gain_share(base: float, value: float, best: float) -> float:
    return (value - base) / (best - base) if best != base else 0.0
