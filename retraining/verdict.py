"""Verdict: whether a new bundle may be tried, from its comparison with the champion."""

from typing import NamedTuple

from clickscore.model.evaluation.bundle_comparison import LOWER_IS_BETTER, MEASURES, BundleComparison

RANKING = MEASURES[0]
"""Measure of the forecast: clicks come from items that are found."""


class ComparisonVerdict(NamedTuple):
    """Whether a bundle may be tried, and why."""

    is_good: bool
    reason: str


def judge_comparison(comparison: BundleComparison) -> ComparisonVerdict:
    """Return whether a new bundle may be tried: no measure is clearly worse, and the hit rate is not lower.

    A measure is clearly worse where the whole 95 % interval of the difference is.

    Args:
        comparison: Champion and new bundle on held-out sessions.
    """
    for name, measured in comparison.measures.items():
        difference = measured.difference
        is_worse = difference.low > 0 if name in LOWER_IS_BETTER else difference.high < 0
        if is_worse:
            return ComparisonVerdict(
                is_good=False,
                reason=f"{name} is worse than the champion's: {measured.challenger:.4f} against "
                f"{measured.champion:.4f} (difference {difference.value:+.4f}, 95 %: {difference.low:+.4f} to "
                f"{difference.high:+.4f})",
            )
    ranking = comparison.measures.get(RANKING)
    if ranking is None:
        return ComparisonVerdict(
            is_good=False, reason="no held-out session has two items, so the bundles cannot be compared"
        )
    if ranking.difference.value < 0:
        return ComparisonVerdict(
            is_good=False,
            reason=f"{RANKING} is {ranking.challenger:.4f}, the champion's {ranking.champion:.4f}: no gain to try for",
        )
    return ComparisonVerdict(
        is_good=True,
        reason=f"{RANKING} is {ranking.challenger:.4f}, the champion's {ranking.champion:.4f} (difference "
        f"{ranking.difference.value:+.4f}, 95 %: {ranking.difference.low:+.4f} to {ranking.difference.high:+.4f}), "
        "and no measure is clearly worse",
    )
