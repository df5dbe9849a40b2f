"""Intervals: bootstrap over users, an estimate of how far a figure may be off with other users.

The bootstrap (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979) draws users, not
events. Events of one user are alike; drawing single events would count each as independent evidence and make intervals
too narrow (Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", Review of
Economics and Statistics 90, 2008). Users are hashed into at most 10,000 bins and whole bins are drawn, so that the cost
does not grow with the number of users. All arms see the same draws, so a difference of two arms is paired: effects that
are common to both arms cancel out.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Floats, Ints

Mask = npt.NDArray[np.bool_]

BOOTSTRAP_DRAWS = 1_000  # the 2.5 % quantile is then the 25th draw
COSTLY_DRAWS = 200
"""Draws for a figure over all events of each draw, for example PR-AUC."""
CONFIDENCE = 0.95
DIGITS = 6
"""Decimals of the figures in the results."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Draws of user bins, the same for all figures."""

    def __init__(self, user_bins: Ints, seed: int = 0) -> None:
        """Draw the weights.

        Args:
            user_bins: Bin of each event's user: (events,).
            seed: Seed of the draws.
        """
        present, self._bin_of_event = np.unique(user_bins, return_inverse=True)
        self.bins = len(present)
        rng = np.random.default_rng(seed)
        shares = np.full(self.bins, 1 / max(1, self.bins))
        # weights[d, b] = how often draw d contains bin b: (draws, bins)
        self._weights = rng.multinomial(self.bins, shares, size=BOOTSTRAP_DRAWS).astype(np.float64)

    def means(self, columns: Sequence[Floats], mask: Mask) -> Floats:
        """Return the mean of each column over the masked events, in each draw: (columns, draws).

        mean = sum_b weight_b * sum(values in bin b) / sum_b weight_b * (events in bin b); 0 in a draw without events.

        Args:
            columns: Values of each column: (events,).
            mask: Events to average over: (events,).
        """
        bin_of_event = self._bin_of_event[mask]
        sums = [np.bincount(bin_of_event, weights=values[mask], minlength=self.bins) for values in columns]
        counts = np.bincount(bin_of_event, minlength=self.bins)
        totals = self._weights @ np.stack((*sums, counts), axis=1)  # (draws, columns + 1)
        return (totals[:, :-1] / np.maximum(totals[:, -1:], 1)).T

    def weighted_figures(self, figure: Callable[[Floats], float]) -> Floats:
        """Return a figure of weighted events in each of the first draws: (COSTLY_DRAWS,).

        Args:
            figure: Computes the figure from the weight of each event: (events,).
        """
        return np.array([figure(weights[self._bin_of_event]) for weights in self._weights[:COSTLY_DRAWS]])


def make_estimate(value: float, draws: Floats) -> Estimate:
    """Return a figure with the percentile interval of its draws."""
    bounds = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(draws, bounds) if len(draws) else (value, value)
    return Estimate(value=round(value, DIGITS), low=round(float(low), DIGITS), high=round(float(high), DIGITS))
