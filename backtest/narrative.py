"""Words: what a backtest says, in sentences: who agreed most with users, how sure that is, and what to mistrust."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from clickscore.backtest.intervals import Estimate
from clickscore.backtest.results import ArmDifference, ArmResult, Results

FEW_USERS = 200
"""Fewer make an interval that is drawn from them too narrow."""

NATURE = (
    "This is how often each arm agreed with what users did while another system recommended to them. It is not the "
    "effect that an arm would have: a user who is shown something else may do something else, and whatever the old "
    "system put forward was easier to choose, so arms that resemble it look better than they are. Use it to sort out "
    "bad candidates and to find faults; let an A/B test decide between good ones."
)


def moment(ms: int) -> str:
    """Return a time as a person writes it, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"


def points(by: Estimate) -> str:
    """Return a difference of two shares, in percentage points, with its interval."""
    return f"{100 * by.value:+.1f} points (95 %: {100 * by.low:+.1f} to {100 * by.high:+.1f})"


def verdict(results: Results) -> list[str]:
    """Return the outcome in sentences, the most important first."""
    if not results.ranked:
        return ["No judged event is followed by an item, so rankings cannot be compared."]
    metric = f"hit_rate@{results.cutoff}"
    best = max(results.arms, key=lambda arm: arm.ranking[metric].value)
    rate = best.ranking[metric]
    said = [
        f"{best.name!r} agreed most often with what users did next: in {percent(rate.value)} of {results.ranked:,} "
        f"cases (95 %: {percent(rate.low)} to {percent(rate.high)}) the item that a user turned to was among its first "
        f"{results.cutoff}."
    ]
    if results.tied:
        said.append(f"This log cannot tell it from {_listed(results.tied)}.")
    said += [_against_first(difference, results) for difference in results.differences if difference.metric == metric]
    return [*said, *_discoveries(results)]


def _listed(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _discoveries(results: Results) -> Iterator[str]:
    """Yield what is left of it where repeating the session is no hit."""
    if results.new:
        best = max(results.arms, key=lambda arm: arm.discovery.value)
        rate = best.discovery
        above = [one.by for one in results.differences if (one.arm, one.metric) == (best.name, "discovery")]
        yield (
            f"{percent(results.new / results.ranked)} of these items were new to the session; on them "
            f"{best.name!r} was right most often: {percent(rate.value)} (95 %: {percent(rate.low)} to "
            f"{percent(rate.high)}){''.join(f', against {results.first.name!r} {points(by)}' for by in above)}."
        )


def _against_first(difference: ArmDifference, results: Results) -> str:
    by, first = difference.by, results.first.name
    if not by.clear:
        return f"{difference.arm!r} against {first!r}: {points(by)}, no difference that this log can show."
    return f"{difference.arm!r} agreed {'more' if by.value > 0 else 'less'} often than {first!r}: {points(by)}."


def sureness(results: Results) -> str:
    """Return where the intervals come from."""
    return (
        f"In brackets: 95 % of what a figure is when {results.users:,} users are drawn anew from these, all events of "
        "a user together. It covers the luck of who came, not that the coming weeks differ from these. With "
        f"{len(results.differences)} comparisons side by side, expect one in twenty to leave out zero by luck alone."
    )


def leak_check(results: Results) -> str:
    """Return what the search for leaks came to."""
    events, leaks = results.leak_check.events, results.leak_check.leaks
    if not events:
        return "No event was decided a second time, so nothing says that no arm sees what comes later."
    outcome = "all decisions were the same" if not leaks else f"{len(leaks)} arm(s) decided otherwise (see above)"
    return (
        f"The first {events:,} judged events were decided a second time, one record at a time, so that nothing later "
        f"existed when each was decided: {outcome}."
    )


def warnings(results: Results) -> list[str]:
    """Return the reasons to mistrust the figures."""
    return [
        *_leak_warnings(results),
        *(words for arm in results.arms for words in _training_warnings(arm)),
        *_size_warnings(results),
    ]


def _leak_warnings(results: Results) -> Iterator[str]:
    for leak in results.leak_check.leaks:
        yield (
            f"{leak.arm!r} sees what comes later: {leak.different:,} of {results.leak_check.events:,} decisions came "
            f"out otherwise when nothing later was there ({', '.join(leak.decision_ids)}). Its figures are void."
        )
    if not results.leak_check.events:
        yield leak_check(results)


def _training_warnings(arm: ArmResult) -> Iterator[str]:
    if arm.learned_events:
        yield (
            f"{arm.name!r} was trained on events up to {moment(arm.trained_until)}, and {arm.learned_events:,} of the "
            "judged ones are no later: if it is the same log, it has learned their answers, and its figures are too "
            f"good. Judge what came later: --judge-from {moment(arm.trained_until).replace(' ', 'T')}"
        )
    elif arm.bundle and not arm.trained_until:
        yield (
            f"The bundle of {arm.name!r} does not say until when its training data goes. If these events are in "
            "it, its figures are too good."
        )


def _size_warnings(results: Results) -> Iterator[str]:
    if results.users < FEW_USERS:
        yield f"Only {results.users:,} users: the intervals are too narrow."
