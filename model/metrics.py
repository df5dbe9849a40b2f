"""Metrics: quality of rankings and probabilities, in numpy alone. Ties always count against the model."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Floats, Ints

MISS = 0
"""Rank of an item that no ranking can hold, such as an unknown one."""
MIN_PROBABILITY = 1e-7
"""Probabilities are clipped to at least this before a logarithm: about the precision of float32."""


def rank_targets(scores: Floats, targets: Ints) -> Ints:
    """Return the rank of each target in its row, from 1; items with an equal score rank before the target.

    Args:
        scores: Scores of all items: (rows, items).
        targets: Column of the target: (rows,).
    """
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)  # (rows, 1)
    return (scores >= target_scores).sum(axis=1)


def hit_rate(ranks: Ints, k: int) -> float:
    """Return the share of ranks from 1 to k. With one target a row this is recall@k, and P@k of the papers."""
    return _mean((ranks != MISS) & (ranks <= k))


def reciprocal_rank(ranks: Ints, k: int) -> float:
    """Return MRR@k: the mean of 1 / rank, 0 for ranks beyond k."""
    return _mean(np.where((ranks != MISS) & (ranks <= k), 1 / np.maximum(ranks, 1), 0.0))


def ndcg(ranks: Ints, k: int) -> float:
    """Return NDCG@k: the mean of 1 / log2(rank + 1), 0 for ranks beyond k. With one target the ideal DCG is 1."""
    return _mean(np.where((ranks != MISS) & (ranks <= k), 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0))


def pr_auc(probabilities: Floats, outcomes: Ints) -> float:
    """Return the average precision, sum over thresholds of (recall step) * precision; 0 without a positive outcome.

    Args:
        probabilities: Predicted probabilities; equal ones share a threshold: (rows,).
        outcomes: Outcomes, 0 or 1: (rows,).
    """
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum(outcomes[order])  # (rows,)
    if not len(hits) or not hits[-1]:
        return 0.0
    is_threshold = np.append(np.diff(probabilities[order]) != 0, True)  # last row of equal probabilities
    hits, selected = hits[is_threshold], np.flatnonzero(is_threshold) + 1  # (thresholds,) each
    return float(np.sum(np.diff(hits, prepend=0) * hits / selected) / hits[-1])


def log_loss(probabilities: Floats, outcomes: Ints) -> float:
    """Return the mean of -log p(outcome).

    Args:
        probabilities: Probability of each class (rows, classes), or of class 1 of two (rows,).
        outcomes: Class: (rows,).
    """
    if probabilities.ndim == 1:
        probabilities = np.stack((1 - probabilities, probabilities), axis=1)
    predicted = np.take_along_axis(probabilities, outcomes[:, None].astype(np.int64), axis=1)
    return _mean(-np.log(predicted.clip(MIN_PROBABILITY, 1)))


def brier(probabilities: Floats, outcomes: Ints) -> float:
    """Return the Brier score, the mean squared difference of probability and outcome, both (rows,)."""
    return _mean((probabilities - outcomes) ** 2)


def equal_mass_bins(probabilities: Floats, bins: int = 15) -> Ints:
    """Return the bin of each row by probability, from 0, with about equally many rows a bin: (rows,).

    Rows of equal probability share a bin, so the order of the rows does not matter, and a bin may be empty.

    Args:
        probabilities: Predicted probabilities: (rows,).
        bins: Number of bins, fewer if there are fewer rows.
    """
    parts = np.array_split(np.sort(probabilities), max(1, min(bins, len(probabilities))))
    return np.searchsorted([part[-1] for part in parts if len(part)], probabilities)


def calibration_error(probabilities: Floats, outcomes: Ints | Floats, bins: int = 15) -> float:
    """Return the expected calibration error: sum over bins of (rows of bin / rows) * |mean p - mean outcome|.

    Args:
        probabilities: Predicted probabilities: (rows,).
        outcomes: Outcomes, 0 or 1, or the true probabilities: (rows,).
        bins: Number of `equal_mass_bins`.
    """
    gaps = np.bincount(equal_mass_bins(probabilities, bins), weights=probabilities - outcomes)
    return float(np.abs(gaps).sum()) / max(1, len(probabilities))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
