"""Truth: what a simulation knows of the purchase after each event, and how near to it what is said comes."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from clickscore.model import metrics
from clickscore.model.dataset import ReadStatistics, read_lines, read_usable_sessions, select_known_actions
from clickscore.model.errors import TrainingError
from clickscore.model.metrics import Floats, Ints


class TruthError(msgspec.Struct, frozen=True, kw_only=True):
    """How near to the truth probabilities come; a share is 0 for the base rate and 1 for the truth."""

    mean_difference: float
    """Of a probability and the true one."""
    calibration_error: float
    """Over 15 bins of equal mass, against the mean true probability of each: no chance of outcomes is in it."""
    log_loss_share: float
    """Of what the truth gains on the base rate, in expected log loss."""
    pr_auc_share: float
    """Of what the truth gains on the base rate, in PR-AUC."""


class _Known(msgspec.Struct):
    event_id: str
    purchase: float


_decode = msgspec.json.Decoder(_Known).decode


def read_ground_truth(path: Path, files: Sequence[Path]) -> Floats:
    """Return the true probability of a purchase after each event, as `read_sessions` orders them: (events,).

    Args:
        path: What `clickscore simulate --truth` wrote, or a file like it: JSON lines with `event_id`, which is the
            session's id and the number of the event in it from 00 (`s7-000012-03`), and `purchase`.
        files: Of the sessions.

    Raises:
        TrainingError: A file cannot be read, or says nothing of some event.
    """
    try:
        known = {line.event_id: line.purchase for line in map(_decode, read_lines(path))}
    except msgspec.DecodeError as exc:
        message = f"{path} is no file of truths: {exc}"
        raise TrainingError(message) from exc
    sessions: list[tuple[int, list[float]]] = []
    for session in read_usable_sessions(files, ReadStatistics()):
        events = [f"{session.session_id}-{number:02d}" for number in range(len(select_known_actions(session)))]
        if missing := [event for event in events if event not in known]:
            message = f"{path} says nothing of {missing[0]}, an event of the test"
            raise TrainingError(message)
        sessions.append((session.closed_at, [known[event] for event in events]))
    sessions.sort(key=lambda session: session[0])  # stable, as `features.arranged`
    return np.concatenate([truths for _, truths in sessions])


def compute_truth_error(said: Floats, truth: Floats, happened: Ints) -> TruthError:
    """Return how near to the truth probabilities come: (rows,) each."""
    base = np.full(len(truth), truth.mean())
    losses = [_expected_log_loss(of, truth) for of in (base, said, truth)]
    areas = [metrics.pr_auc(of, happened) for of in (base, said, truth)]
    return TruthError(
        mean_difference=float(np.abs(said - truth).mean()),
        calibration_error=metrics.calibration_error(said, truth),
        log_loss_share=_share(*losses),
        pr_auc_share=_share(*areas),
    )


def _expected_log_loss(said: Floats, truth: Floats) -> float:
    said = said.clip(metrics.MIN_PROBABILITY, 1 - metrics.MIN_PROBABILITY)
    return -float((truth * np.log(said) + (1 - truth) * np.log(1 - said)).mean())


def _share(base: float, reached: float, best: float) -> float:
    return (reached - base) / (best - base) if best != base else 0.0
