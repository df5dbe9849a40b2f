"""Rollout guard: judge a challenger by counts, and say in words why it is rolled back or may go on.

Clicks and purchases are compared with always-valid confidence sequences: the guard looks every few seconds, and rolls
a challenger that is no worse back with a probability of at most `ERROR_SHARE` over the whole ramp, however often it
looks. The bound is the normal mixture of Robbins (1970), as in Johari, Koomen, Pekelis and Walsh, "Always Valid
Inference" (Operations Research 70, 2022), for means with estimated variances as in Waudby-Smith, Arbour, Sinha, Kennedy
and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 52, 2024).
Users, not decisions, are the units: the variance of a ratio over users follows by the delta method.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from clickscore.schemas.outcome_counts import PartitionReport, RatioSums, VariantCounts
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.policy.rollout_steps import MAX_RAMP_STEPS

ERROR_SHARE = 0.05
"""Probability with which a challenger that is no worse is rolled back, at most, by the comparisons of outcomes."""
MEASURES = 4
"""Number of measures that are compared: clicks, purchases, next actions, predicted purchases."""
COMPARISONS = MEASURES * MAX_RAMP_STEPS
"""Number of comparisons of the longest ramp; each gets an equal part of `ERROR_SHARE`."""
MIN_USERS = 30
"""Smallest number of users of each variant for a comparison: a variance over fewer users is too uncertain."""
EFFECT = 0.2
"""Relative difference for which the bounds are narrowest: smaller ones cost few clicks until they are found."""
MIN_DECISIONS = 200
"""Smallest number of decisions of the challenger before a step of the ramp, and before shares are compared."""
MAX_FALLBACK_MORE = 0.2
"""Largest share of fallback items of the challenger above the champion's share."""
MAX_FAILED_SHARE = 0.005
"""Largest share of decisions for which the challenger's graph fails."""
MIN_FAILED = 3
"""Number of failures up to which nothing is concluded."""
MAX_CALL_FACTOR = 3.0
"""Largest time of a call of the challenger's graph, as a multiple of the champion's. The champion scores more sessions
in a call, so an equal challenger is faster."""
MAX_CALL_S = 0.02
"""Mean time of a call that is never too long, s."""
MIN_CALLS = 50
"""Smallest number of calls whose mean time is judged."""
MAX_PREDICTION_FACTOR = 2.0
"""Largest factor between the mean purchase probabilities that two bundles predict for users of the same population."""


class Verdict(NamedTuple):
    """What the guard decides."""

    action: Literal["wait", "advance", "roll back"]
    reason: str
    """Why, in words."""


class Difference(NamedTuple):
    """Difference of a ratio between challenger and champion, with bounds that hold at all times."""

    champion: float
    challenger: float
    radius: float
    """Half width of the confidence sequence; infinite where too little is known."""

    @property
    def upper(self) -> float:
        """Upper bound of the challenger's ratio less the champion's."""
        return self.challenger - self.champion + self.radius

    @property
    def lower(self) -> float:
        """Lower bound of the challenger's ratio less the champion's."""
        return self.challenger - self.champion - self.radius


def compare(champion: RatioSums, challenger: RatioSums, scale: float, error: float) -> Difference:
    """Return the difference between two ratios of independent users.

    Args:
        champion: Sums over the champion's users.
        challenger: Sums over the challenger's users.
        scale: Difference for which the bounds are narrowest; above 0.
        error: Probability that the bounds are wrong at any time.
    """
    if min(champion.users, challenger.users) < MIN_USERS:
        return Difference(0.0, 0.0, math.inf)
    (first, first_variance), (second, second_variance) = _ratio(champion), _ratio(challenger)
    variance = first_variance + second_variance
    return Difference(first, second, _radius(variance, scale, error) if variance > 0 else math.inf)


def _ratio(sums: RatioSums) -> tuple[float, float]:
    """Return a ratio and its variance: that of the users' linearised values, by the delta method."""
    ratio = sums.value / sums.base
    squares = sums.value_value - 2 * ratio * sums.base_value + ratio * ratio * sums.base_base
    return ratio, max(squares, 0.0) / (sums.base * sums.base)


def _radius(variance: float, scale: float, error: float) -> float:
    """Return the half width of the confidence sequence of a mean.

    With information I = 1 / variance, and a normal mixture of standard deviation `scale` over the effects, the half
    width is sqrt(2 (I s^2 + 1) / (I^2 s^2) ln(sqrt(I s^2 + 1) / error)).

    Args:
        variance: Variance of the estimate.
        scale: Standard deviation of the mixture.
        error: Probability that the bound is wrong at any time.
    """
    mass = scale * scale / variance  # I s^2
    return math.sqrt(2 * variance * (mass + 1) / mass * math.log(math.sqrt(mass + 1) / error))


def add_up(reports: Iterable[PartitionReport]) -> tuple[VariantCounts, VariantCounts]:
    """Return the counts of champion and challenger over all partitions."""
    champion, challenger = VariantCounts(), VariantCounts()
    for report in reports:
        champion.add(report.champion)
        challenger.add(report.challenger)
    return champion, challenger


def summarise(counts: VariantCounts) -> dict[str, float]:
    """Return the measures of a variant by name."""
    measures = {
        "decisions": float(counts.decisions),
        "users": float(counts.clicks.users),
        "fallback share": _fallback_share(counts),
        "failed": float(counts.failed),
        "ms per call": 1000 * counts.call_seconds / max(1, counts.calls),
    }
    for name, sums in (
        ("clicks per decision", counts.clicks),
        ("purchases per decision", counts.purchases),
        ("log probability of the next action", counts.action_scores),
        ("predicted purchase", counts.purchase_predictions),
    ):
        if sums.base:
            measures[name] = sums.value / sums.base
    return measures


def judge(rollout: Rollout, champion: VariantCounts, challenger: VariantCounts, now_ms: int) -> Verdict:
    """Return whether the challenger of a rollout goes on, takes the next step of its ramp, or is rolled back.

    Args:
        rollout: A rollout with a challenger.
        champion: Counts of the champion since the rollout was changed.
        challenger: Counts of the challenger in the same time.
        now_ms: Wall-clock time, ms.
    """
    problem = find_problem(champion, challenger)
    if problem:
        return Verdict("roll back", problem)
    if not rollout.step_ms:
        return Verdict("wait", "no ramp is under way")
    if challenger.decisions < MIN_DECISIONS:
        return Verdict("wait", f"{challenger.decisions} of {MIN_DECISIONS} decisions are made")
    remaining_ms = rollout.changed_at + rollout.step_ms - now_ms
    if remaining_ms > 0:
        return Verdict("wait", f"the step goes on for {remaining_ms / 1000:.0f} s")
    return Verdict("advance", "no guardrail was hit")


def find_problem(champion: VariantCounts, challenger: VariantCounts) -> str:
    """Return in words why a challenger must be rolled back; empty for no reason.

    Args:
        champion: Counts of the champion.
        challenger: Counts of the challenger in the same time.
    """
    return (
        _find_failures(challenger)
        or _find_slow_calls(champion, challenger)
        or _find_fallback(champion, challenger)
        or _find_worse_outcome(champion, challenger)
        or _find_drift(champion, challenger)
    )


def _find_failures(challenger: VariantCounts) -> str:
    failed = challenger.failed
    if failed <= MIN_FAILED or failed <= MAX_FAILED_SHARE * challenger.decisions:
        return ""
    return f"its graph failed for {failed} of {challenger.decisions} decisions"


def _find_slow_calls(champion: VariantCounts, challenger: VariantCounts) -> str:
    if min(champion.calls, challenger.calls) < MIN_CALLS:
        return ""
    usual, tried = champion.call_seconds / champion.calls, challenger.call_seconds / challenger.calls
    if tried <= max(MAX_CALL_S, MAX_CALL_FACTOR * usual):
        return ""
    return f"a call of its graph takes {1000 * tried:.1f} ms, the champion's {1000 * usual:.1f} ms"


def _find_fallback(champion: VariantCounts, challenger: VariantCounts) -> str:
    if min(champion.decisions, challenger.decisions) < MIN_DECISIONS:
        return ""
    usual, tried = _fallback_share(champion), _fallback_share(challenger)
    if tried <= usual + MAX_FALLBACK_MORE:
        return ""
    return f"popular items fill {tried:.0%} of its places, and {usual:.0%} of the champion's"


def _fallback_share(counts: VariantCounts) -> float:
    return counts.popular_items / max(1, counts.popular_items + counts.model_items)


def _find_worse_outcome(champion: VariantCounts, challenger: VariantCounts) -> str:
    """Return which outcome of the challenger is worse than the champion's, as far as the bounds tell."""
    error = ERROR_SHARE / COMPARISONS
    for name, usual, tried in (
        ("clicks per 100 decisions", champion.clicks, challenger.clicks),
        ("purchases per 100 decisions", champion.purchases, challenger.purchases),
        ("the log probability of the next action, in hundredths", champion.action_scores, challenger.action_scores),
    ):
        scale = EFFECT * abs(usual.value) / usual.base if usual.base else 0.0
        if not scale:
            continue
        difference = compare(usual, tried, scale, error)
        if difference.upper < 0:
            return (
                f"{name}: {100 * difference.challenger:.2f}, the champion's {100 * difference.champion:.2f}; "
                f"the difference is below {100 * difference.upper:.2f} at every look with "
                f"{1 - ERROR_SHARE:.0%} confidence"
            )
    return ""


def _find_drift(champion: VariantCounts, challenger: VariantCounts) -> str:
    """Return a text if the predicted purchase probabilities are more than `MAX_PREDICTION_FACTOR` apart."""
    usual, tried = champion.purchase_predictions, challenger.purchase_predictions
    scale = EFFECT * usual.value / usual.base if usual.base else 0.0
    if not scale:
        return ""
    difference = compare(usual, tried, scale, ERROR_SHARE / COMPARISONS)
    base = difference.champion
    if (
        difference.lower > (MAX_PREDICTION_FACTOR - 1) * base
        or difference.upper < (1 / MAX_PREDICTION_FACTOR - 1) * base
    ):
        return f"it predicts purchases with {difference.challenger:.2%} on average, the champion with {base:.2%}"
    return ""
