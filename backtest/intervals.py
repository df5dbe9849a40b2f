"""Intervals: how far a figure may be off because other users might have come.

A bootstrap (Efron, 1979) draws users, not events: the events of a user are alike, and drawing them one by one would
take each for new evidence and make intervals too narrow (Cameron, Gelbach and Miller, "Bootstrap-based improvements for
inference with clustered errors", Review of Economics and Statistics 90, 2008). Users are dealt into at most 10,000 bins
by a hash and whole bins are drawn, so that the cost does not grow with the users. All arms see the same draws, so a
difference between two is paired: what is hard for both falls out of it.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Floats, Ints

Bools = npt.NDArray[np.bool_]

DRAWS = 1_000
DRAWS_OF_ROWS = 200
"""Where every draw has to walk over all rows."""
LEVEL = 0.95
DIGITS = 6
"""Decimals that results state."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, and the middle 95 % of what it is on other users drawn from these."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Draws of users, the same for all that is asked of it."""

    def __init__(self, user_bins: Ints, seed: int = 0) -> None:
        """Draw.

        Args:
            user_bins: The bin of each row's user: (rows,).
            seed: Of the draws.
        """
        present, self._bin_of = np.unique(user_bins, return_inverse=True)
        self.bins = len(present)
        rng = np.random.default_rng(seed)
        shares = np.full(self.bins, 1 / max(1, self.bins))
        self._weights = rng.multinomial(self.bins, shares, size=DRAWS).astype(np.float64)  # (draws, bins)

    def means(self, columns: Sequence[Floats], chosen: Bools) -> Floats:
        """Return the mean of each column over the chosen rows, in each draw: (columns, draws).

        Args:
            columns: Values, each (rows,).
            chosen: (rows,).

        Returns:
            The means; 0 in a draw without a chosen row.
        """
        bin_of = self._bin_of[chosen]
        each = [np.bincount(bin_of, weights=values[chosen], minlength=self.bins) for values in columns]
        rows = np.bincount(bin_of, minlength=self.bins)
        drawn = self._weights @ np.stack((*each, rows), axis=1)  # (draws, columns + 1)
        return (drawn[:, :-1] / np.maximum(drawn[:, -1:], 1)).T

    def of_rows(self, figure: Callable[[Floats], float]) -> Floats:
        """Return a figure of weighted rows in each of the first draws: (DRAWS_OF_ROWS,).

        Args:
            figure: Given how often each row was drawn: (rows,).
        """
        return np.array([figure(drawn[self._bin_of]) for drawn in self._weights[:DRAWS_OF_ROWS]])


def estimate(value: float, draws: Floats) -> Estimate:
    """Return a figure with the interval of its draws."""
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if len(draws) else (value, value)
    return Estimate(value=round(value, DIGITS), low=round(float(low), DIGITS), high=round(float(high), DIGITS))
