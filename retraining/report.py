"""Report: what a run did, in words, as Markdown."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from clickscore.model.evaluation.bundle_comparison import BundleComparison
from clickscore.retraining.forecasts import Forecast, measure_forecasts
from clickscore.retraining.run_folder import Method, Publication, RunOutcome, write_file
from clickscore.schemas.manifest import version_of

_METHODS: dict[Method, str] = {
    "train": "trained anew",
    "top up": "fine-tuned from the champion's checkpoint",
    "neighbours": "the champion with its neighbours counted again",
}
_PUBLICATIONS: dict[Publication, str] = {
    "none": "It was not published.",
    "store": "It is in the bundle store and decides for nobody.",
    "ramp": "Its guarded ramp has begun.",
    "set": "It decides for all users.",
}


def write_report(path: Path, outcome: RunOutcome, forecasts: Sequence[Forecast]) -> None:
    """Write the report of a run.

    Args:
        path: File of the report.
        outcome: What the run came to.
        forecasts: All forecasts so far.
    """
    write_file(path, "\n".join([*_describe_run(outcome), *_describe_forecasts(forecasts)]).encode() + b"\n")


def summarise(outcome: RunOutcome) -> str:
    """Return a run in a sentence or two."""
    return f"{outcome.version}, {_METHODS[outcome.plan.method]}: {outcome.reason}. {_PUBLICATIONS[outcome.publication]}"


def _describe_run(outcome: RunOutcome) -> Iterator[str]:
    plan = outcome.plan
    yield f"# Run {plan.number}: bundle {outcome.version}"
    yield ""
    yield f"- Begun {format_time(plan.started_at)}; {_METHODS[plan.method]}."
    yield f"- {plan.training:,} training sessions that closed before {format_time(plan.held_out_from)}."
    yield f"- {plan.held_out:,} held-out sessions from then until {format_time(plan.newest_closed_at)}."
    yield f"- The newest event that it has learned from: {format_time(outcome.newest_learned)}."
    yield f"- {outcome.reason[0].upper()}{outcome.reason[1:]}. {_PUBLICATIONS[outcome.publication]}"
    if outcome.comparison is not None and plan.champion:
        yield ""
        yield from _describe_comparison(outcome.comparison, plan.champion)


def _describe_comparison(comparison: BundleComparison, champion: str) -> Iterator[str]:
    yield f"## Beside the champion {version_of(champion)}"
    yield ""
    yield f"{comparison.sessions:,} newest held-out sessions, {comparison.ranked_events:,} next items."
    yield ""
    yield "| measure | champion | new bundle | difference (95 % over sessions) |"
    yield "|---|---|---|---|"
    for name, measured in comparison.measures.items():
        difference = measured.difference
        yield (
            f"| {name} | {measured.champion:.4f} | {measured.challenger:.4f} "
            f"| {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) |"
        )


def _describe_forecasts(forecasts: Sequence[Forecast]) -> Iterator[str]:
    if not forecasts:
        return
    quality = measure_forecasts(forecasts)
    yield ""
    yield "## Forecasts, and what came"
    yield ""
    yield "| bundle | forecast: hit rate | came: clicks per decision | its decisions |"
    yield "|---|---|---|---|"
    for forecast in forecasts:
        observed = "not yet" if forecast.observed is None else f"{forecast.observed:+.1%}"
        yield f"| {version_of(forecast.challenger)} | {forecast.forecast:+.1%} | {observed} | {forecast.decisions:,} |"
    yield ""
    if quality.bias is None:
        yield "No bundle has been tried long enough to judge the forecasts."
        return
    correlation = (
        "too few to tell whether the ranks agree"
        if quality.rank_correlation is None
        else f"rank correlation {quality.rank_correlation:+.2f}"
    )
    yield f"Over {quality.pairs} bundles: what came is {quality.bias:+.1%} from the forecast on average; {correlation}."


def format_time(timestamp: int) -> str:
    """Return a time in UTC to the minute.

    Args:
        timestamp: Time, ms since the epoch.
    """
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
