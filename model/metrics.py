"""Metrics: how good rankings and probabilities are. Pure numpy; ties always count against us."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Floats, Ints

MISS = 0
"""The rank of an item that no ranking can hold."""
MIN_PROBABILITY = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm."""


def rank_targets(scores: Floats, targets: Ints) -> Ints:
    """Return the place of each target among its row's scores, from 1; others of the same score stand before it.

    Args:
        scores: (rows, items).
        targets: Columns: (rows,).
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)  # (rows, 1)
    return (scores >= own).sum(axis=1)


def hit_rate(ranks: Ints, k: int) -> float:
    """Return the share of ranks from 1 to k; in a task with one target a row, this is recall and the papers' P@k."""
    return _mean((ranks != MISS) & (ranks <= k))


def reciprocal_rank(ranks: Ints, k: int) -> float:
    """Return the mean of 1 / rank, 0 for ranks beyond k."""
    return _mean(np.where((ranks != MISS) & (ranks <= k), 1 / np.maximum(ranks, 1), 0.0))


def ndcg(ranks: Ints, k: int) -> float:
    """Return the mean of 1 / log2(rank + 1), 0 for ranks beyond k: the ideal of one target a row is 1."""
    return _mean(np.where((ranks != MISS) & (ranks <= k), 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0))


def pr_auc(probabilities: Floats, happened: Ints) -> float:
    """Return the area under precision over recall, by steps; rows of the same probability are taken together.

    Args:
        probabilities: (rows,).
        happened: 0 or 1: (rows,).

    Returns:
        The average precision; 0 where nothing happened.
    """
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum(happened[order])  # (rows,)
    if not len(hits) or not hits[-1]:
        return 0.0
    last_of_tie = np.append(np.diff(probabilities[order]) != 0, True)
    hits, taken = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / taken) / hits[-1])


def log_loss(probabilities: Floats, happened: Ints) -> float:
    """Return the mean of -log of the probability of what happened.

    Args:
        probabilities: Of each class (rows, classes), or of class 1 of two (rows,).
        happened: The class: (rows,).
    """
    if probabilities.ndim == 1:
        probabilities = np.stack((1 - probabilities, probabilities), axis=1)
    own = np.take_along_axis(probabilities, happened[:, None].astype(np.int64), axis=1)
    return _mean(-np.log(own.clip(MIN_PROBABILITY, 1)))


def brier(probabilities: Floats, happened: Ints) -> float:
    """Return the mean squared difference of probability and outcome, both (rows,)."""
    return _mean((probabilities - happened) ** 2)


def equal_mass_bins(probabilities: Floats, bins: int = 15) -> Ints:
    """Return the bin of each row by its probability, from 0, so that bins hold about as many rows: (rows,).

    Rows of the same probability share a bin, the first of those that they would fill: so the order of the rows has no
    say in it, and a bin may be empty.

    Args:
        probabilities: (rows,).
        bins: How many; fewer where there are fewer rows.
    """
    parts = np.array_split(np.sort(probabilities), max(1, min(bins, len(probabilities))))
    return np.searchsorted([part[-1] for part in parts if len(part)], probabilities)


def calibration_error(probabilities: Floats, happened: Ints | Floats, bins: int = 15) -> float:
    """Return the expected calibration error over `equal_mass_bins`: |mean probability - share that happened|.

    Args:
        probabilities: (rows,).
        happened: 0 or 1, or the true probability: (rows,).
        bins: How many; fewer where there are fewer rows.
    """
    gaps = np.bincount(equal_mass_bins(probabilities, bins), weights=probabilities - happened)
    return float(np.abs(gaps).sum()) / max(1, len(probabilities))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
