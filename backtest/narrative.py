"""Narrative: the outcome of a backtest in sentences, with its certainty and the reasons for mistrust."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from clickscore.backtest.intervals import Estimate
from clickscore.backtest.results import ArmDifference, ArmResult, Results

FEW_USERS = 200
"""A bootstrap over fewer users gives too narrow intervals."""

MUCH_FALLBACK = 0.5
"""From this share of places on, an arm's figures are more those of popular items than of its model."""

NATURE = (
    "This is how often each arm agreed with what users did while another system recommended to them. It is not the "
    "effect that an arm would have: a user who is shown something else may do something else, and whatever the old "
    "system put forward was easier to choose, so arms that resemble it look better than they are. Use it to sort out "
    "bad candidates and to find faults; let an A/B test decide between good ones."
)


def format_time(ms: int) -> str:
    """Return an event time as `2026-03-01 08:00`, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def format_percent(share: float) -> str:
    """Return a share in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def format_points(estimate: Estimate) -> str:
    """Return the difference of two shares in percentage points, with its interval."""
    return f"{100 * estimate.value:+.1f} points (95 %: {100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def verdict(results: Results) -> list[str]:
    """Return the outcome in sentences, the most important sentence first."""
    if not results.ranked:
        return ["No judged event is followed by an item, so rankings cannot be compared."]
    void = _describe_void_arms(results)
    if not results.contenders:
        return [f"No arm wins: the figures of all arms are void. {void}"]
    metric = f"hit_rate@{results.cutoff}"
    best = max(results.contenders, key=lambda arm: arm.ranking[metric].value)
    rate = best.ranking[metric]
    sentences = [
        f"{best.name!r} agreed most often with what users did next: in {format_percent(rate.value)} of "
        f"{results.ranked:,} cases ({_format_interval(rate)}) the next item was among its first "
        f"{results.cutoff}."
    ]
    if results.tied:
        sentences.append(f"This log cannot tell it from {_join_names(results.tied)}.")
    sentences += [void] if void else []
    sentences += [_compare_with_first(difference, results) for difference in _fair_differences(results, metric)]
    return [*sentences, *_describe_discovery(results)]


def _describe_void_arms(results: Results) -> str:
    """Return the arms that cannot win, with the reasons, in a sentence; an empty text where every arm can."""
    leaking = [leak.arm for leak in results.leak_check.leaks]
    trained = [arm.name for arm in results.arms if arm.learned_events and arm.name not in leaking]
    reasons = [f"{_join_names(leaking, 'and')} used later records"] if leaking else []
    reasons += [f"{_join_names(trained, 'and')} may have been trained on judged events"] if trained else []
    return f"Left out of this comparison: {'; '.join(reasons)}." if reasons else ""


def _format_interval(rate: Estimate) -> str:
    return f"95 %: {format_percent(rate.low)} to {format_percent(rate.high)}"


def _join_names(names: Sequence[str], conjunction: str = "or") -> str:
    *leading, last = map(repr, names)
    return f"{', '.join(leading)} {conjunction} {last}" if leading else last


def _describe_discovery(results: Results) -> Iterator[str]:
    """Yield the outcome over events whose next item was new to the session, where repeating the session is no hit."""
    if results.new:
        best = max(results.contenders, key=lambda arm: arm.discovery.value)
        differences = [diff.by for diff in _fair_differences(results, "discovery") if diff.arm == best.name]
        against = "".join(f", against {results.first.name!r} {format_points(estimate)}" for estimate in differences)
        yield (
            f"{format_percent(results.new / results.ranked)} of these items were new to the session; on them "
            f"{best.name!r} was right most often: {format_percent(best.discovery.value)} "
            f"({_format_interval(best.discovery)}){against}."
        )


def _fair_differences(results: Results, metric: str) -> Iterator[ArmDifference]:
    """Yield the differences in a metric between contenders; none where the first arm is void."""
    names = {arm.name for arm in results.contenders}
    if results.first.name in names:
        yield from (diff for diff in results.differences if diff.metric == metric and diff.arm in names)


def _compare_with_first(difference: ArmDifference, results: Results) -> str:
    estimate, first = difference.by, results.first.name
    if not estimate.excludes_zero:
        return f"{difference.arm!r} against {first!r}: {format_points(estimate)}, no difference that this log can show."
    direction = "more" if estimate.value > 0 else "less"
    return f"{difference.arm!r} agreed {direction} often than {first!r}: {format_points(estimate)}."


def explain_intervals(results: Results) -> str:
    """Return a sentence on the meaning of the intervals."""
    return (
        f"In brackets: 95 % bootstrap intervals. They show how a figure varies when {results.users:,} users are drawn "
        "anew from these, with all events of a user together. They cover the luck of which users came, not the "
        f"difference between these weeks and later ones. Of {len(results.differences)} comparisons side by side, "
        "expect one in twenty to exclude zero by luck alone."
    )


def describe_leak_check(results: Results) -> str:
    """Return the result of the lookahead check in a sentence."""
    events, leaks = results.leak_check.events, results.leak_check.leaks
    if not events:
        return "No event was decided a second time, so lookahead (an arm that uses later records) would go unnoticed."
    outcome = "all decisions were the same" if not leaks else f"{len(leaks)} arm(s) decided differently (see above)"
    return (
        f"The first {events:,} judged events were decided a second time, one record at a time, so that no later record "
        f"existed at each decision: {outcome}."
    )


def format_fallback(arm: ArmResult) -> str:
    """Return the share of an arm's places that popular items filled; an empty text where the arm has no place."""
    return "" if arm.fallback_share is None else format_percent(arm.fallback_share)


def describe_places(arm: ArmResult) -> str:
    """Return who filled an arm's places, by variant, in a sentence."""
    parts = [
        f"of {places.model + places.fallback:,} places of the variant {variant} "
        f"{'its model' if arm.bundle else 'its baseline'} filled {format_percent(1 - places.fallback_share)}, "
        f"the fallback (popular items) {format_percent(places.fallback_share)}"
        for variant, places in arm.places.items()
    ]
    return f"{arm.name!r}: {'; '.join(parts)}."


def warnings(results: Results) -> list[str]:
    """Return the reasons to mistrust the figures."""
    return [
        *_leak_warnings(results),
        *(sentence for arm in results.arms for sentence in (*_training_warnings(arm), *_fallback_warnings(arm))),
        *_size_warnings(results),
    ]


def _leak_warnings(results: Results) -> Iterator[str]:
    for leak in results.leak_check.leaks:
        yield (
            f"{leak.arm!r} uses later records (lookahead): {leak.different:,} of {results.leak_check.events:,} "
            f"decisions differ when no later record exists ({', '.join(leak.decision_ids)}). Its figures are void."
        )
    if not results.leak_check.events:
        yield describe_leak_check(results)


def _training_warnings(arm: ArmResult) -> Iterator[str]:
    if arm.learned_events:
        yield (
            f"{arm.name!r} was trained on events up to {format_time(arm.trained_until)}, and {arm.learned_events:,} of "
            "the judged ones are not newer: if it is the same log, it was trained on their labels, and its figures are "
            f"too good. Judge newer events: --judge-from {format_time(arm.trained_until).replace(' ', 'T')}"
        )
    elif arm.bundle and not arm.trained_until:
        yield (
            f"The bundle of {arm.name!r} does not state the end of its training data. If these events are in the "
            "training data, its figures are too good."
        )


def _fallback_warnings(arm: ArmResult) -> Iterator[str]:
    share = arm.fallback_share
    if arm.bundle and share is not None and share >= MUCH_FALLBACK:
        yield (
            f"The fallback (popular items) filled {format_percent(share)} of the places of {arm.name!r}: its bundle "
            "does not know the items of this log, and its figures say little of the model. Train it on this shop"
        )


def _size_warnings(results: Results) -> Iterator[str]:
    if results.users < FEW_USERS:
        yield f"Only {results.users:,} users: the intervals are too narrow."
