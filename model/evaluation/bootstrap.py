"""Bootstrap: a figure with a 95 % interval over resampled rows (Efron, 1979)."""

import msgspec


class BootstrapInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and the ends of the 95 % percentile interval over rows drawn with replacement."""

    value: float
    """The figure on the measured rows."""
    low: float
    """The 2.5 % quantile over the resamples."""
    high: float
    """The 97.5 % quantile over the resamples."""
