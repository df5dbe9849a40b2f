"""Paired change: difference of a figure from a control with the same shoppers, with an interval."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""


class Change(NamedTuple):
    """A difference in percent, with the 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return difference and interval as text."""
        return f"{self.value:+.1f} % ({self.low:+.1f} to {self.high:+.1f})"


def paired_change(values: Sequence[float], control: Sequence[float]) -> Change:
    """Return the change from a control, in percent of the control's mean.

    The differences are paired by round, since both sides have the same shoppers (Student, Biometrika 6, 1908).

    Args:
        values: Figure of each round.
        control: Figure of the control in the same rounds.
    """
    base = mean(control)
    changes = [100 * (value - reference) / base for value, reference in zip(values, control, strict=True)]
    quantile = _T_975[min(len(changes) - 1, len(_T_975)) - 1]
    error = quantile * stdev(changes) / len(changes) ** 0.5
    return Change(mean(changes), mean(changes) - error, mean(changes) + error)
