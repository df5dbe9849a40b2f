"""Forecasts: what the held-out sessions promised for each new bundle, and what its users then did.

The forecast is the relative gain of the hit rate on held-out sessions; the observation is the relative gain of clicks
per decision while the bundle was tried. Over the runs, the bias says how much too low the forecasts are, and the rank
correlation (Spearman, 1904) whether a better forecast means a better bundle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from clickscore.retraining.run_folder import RunOutcome, read_json, write_json
from clickscore.retraining.verdict import RANKING
from clickscore.schemas.outcome_counts import VariantCounts

MIN_DECISIONS = 1_000
"""Decisions of each variant that an observation needs."""
MIN_PAIRS = 3
"""Observed forecasts that a rank correlation needs: of two, the ranks always agree or always differ."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast, with what came."""

    challenger: str
    """Content hash of the new bundle."""
    champion: str
    """Content hash of the bundle that it was compared with."""
    forecast: float
    """Gain of the hit rate, as a share of the champion's."""
    observed: float | None = None
    """Gain of the clicks per decision, as a share of the champion's; None before there are enough decisions."""
    decisions: int = 0
    """Decisions of the new bundle in the observation."""


class ForecastQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How good the forecasts were."""

    pairs: int
    """Number of forecasts with an observation."""
    bias: float | None
    """Mean of observation minus forecast; None without a pair."""
    rank_correlation: float | None
    """Spearman's rank correlation of forecast and observation; None with fewer than three pairs, or without spread."""


def read_forecasts(folder: Path) -> list[Forecast]:
    """Return the forecasts of a folder, the oldest first.

    Raises:
        RetrainingError: The file of the forecasts cannot be read.
    """
    path = folder / "forecasts.json"
    return read_json(path, list[Forecast], "Delete the file to begin a new list") if path.is_file() else []


def write_forecasts(folder: Path, forecasts: Sequence[Forecast]) -> None:
    """Write the forecasts of a folder."""
    write_json(folder / "forecasts.json", forecasts)


def make_forecast(outcome: RunOutcome) -> Forecast | None:
    """Return the forecast of a run; None where there was no champion or nothing to rank."""
    measured = outcome.comparison.measures.get(RANKING) if outcome.comparison else None
    if measured is None or outcome.plan.champion is None:
        return None
    return Forecast(challenger=outcome.content_hash, champion=outcome.plan.champion, forecast=measured.relative())


def observe(forecasts: Sequence[Forecast], challenger: str, counts: Mapping[str, VariantCounts]) -> list[Forecast]:
    """Return the forecasts with the newest observation of the bundle that is being tried.

    Args:
        forecasts: Forecasts so far.
        challenger: Content hash of the challenger of the present rollout.
        counts: What the decisions of `champion` and `challenger` led to.
    """
    champion_clicks, challenger_clicks = counts["champion"].clicks, counts["challenger"].clicks
    if min(champion_clicks.base, challenger_clicks.base) < MIN_DECISIONS or not champion_clicks.value:
        return list(forecasts)
    usual = champion_clicks.value / champion_clicks.base
    gain = challenger_clicks.value / challenger_clicks.base / usual - 1
    decisions = int(challenger_clicks.base)
    return [
        msgspec.structs.replace(forecast, observed=gain, decisions=decisions)
        if forecast.challenger == challenger and decisions > forecast.decisions
        else forecast
        for forecast in forecasts
    ]


def measure_forecasts(forecasts: Sequence[Forecast]) -> ForecastQuality:
    """Return bias and rank correlation of the forecasts that have an observation."""
    pairs = [(forecast.forecast, forecast.observed) for forecast in forecasts if forecast.observed is not None]
    if not pairs:
        return ForecastQuality(pairs=0, bias=None, rank_correlation=None)
    expected, observed = np.array(pairs).T
    expected_ranks, observed_ranks = _rank(expected), _rank(observed)
    has_spread = len(pairs) >= MIN_PAIRS and bool(np.ptp(expected_ranks) and np.ptp(observed_ranks))
    return ForecastQuality(
        pairs=len(pairs),
        bias=float((observed - expected).mean()),
        rank_correlation=float(np.corrcoef(expected_ranks, observed_ranks)[0, 1]) if has_spread else None,
    )


def _rank(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value; equal values share the mean of their ranks: (n,)."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])
