"""Probability metrics of a backtest: reliability bins for the calibration plot, and PR-AUC under bootstrap weights."""

from typing import NamedTuple

import numpy as np

from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import equal_mass_bins

RELIABILITY_BINS = 15
"""Number of bins, the default of `model.metrics.calibration_error`."""


class Reliability(NamedTuple):
    """Bins of equal mass over the predicted probability."""

    predicted: Floats
    """Mean predicted probability of each bin: (bins,)."""
    observed: Floats
    """Observed share of positive events in each bin: (bins,)."""
    counts: Ints
    """Number of events in each bin: (bins,)."""
    bin_of_event: Ints
    """Bin of each event: (events,)."""


def reliability(probabilities: Floats, outcomes: Ints, bins: int = RELIABILITY_BINS) -> Reliability:
    """Return predicted probability and observed share over equal-mass bins.

    The calibration error is sum_b counts_b / events * |predicted_b - observed_b|.

    Args:
        probabilities: Predicted probability of each event: (events,).
        outcomes: 1 where the event was positive, else 0: (events,).
        bins: Number of bins.
    """
    bin_of_event = equal_mass_bins(probabilities, bins)
    counts = np.bincount(bin_of_event)
    predicted, observed = (
        np.bincount(bin_of_event, weights=values) / np.maximum(counts, 1) for values in (probabilities, outcomes)
    )
    return Reliability(predicted, observed, counts, bin_of_event)


class WeightedPrAuc:
    """`model.metrics.pr_auc` of the same events under many bootstrap weights; the events are sorted once."""

    def __init__(self, probabilities: Floats, outcomes: Ints) -> None:
        """Sort the events by probability, largest first.

        Args:
            probabilities: Predicted probability of each event: (events,).
            outcomes: 1 where the event was positive, else 0: (events,).
        """
        self._order = np.argsort(-probabilities, kind="stable")
        self._outcomes = outcomes[self._order]
        self._last_of_tie = np.append(np.diff(probabilities[self._order]) != 0, True)

    def __call__(self, weights: Floats) -> float:
        """Return the area under precision over recall, with each event counted `weights` times: weights (events,).

        area = sum_i (recall_i - recall_(i-1)) * precision_i, over the distinct thresholds i.
        """
        weights = weights[self._order]
        predicted_positive = np.cumsum(weights)[self._last_of_tie]
        true_positive = np.cumsum(weights * self._outcomes)[self._last_of_tie]
        if not len(true_positive) or not true_positive[-1]:
            return 0.0
        steps = np.diff(true_positive, prepend=0)
        return float(np.sum(steps * true_positive / np.maximum(predicted_positive, 1)) / true_positive[-1])
