import pytest

from clickscore.retraining.errors import RetrainingError
from clickscore.retraining.forecasts import Forecast, measure_forecasts, observe, read_forecasts, write_forecasts
from clickscore.schemas.outcome_counts import RatioSums, VariantCounts

FIRST, SECOND = "a" * 64, "b" * 64


def clicks(decisions: float, count: float) -> VariantCounts:
    counts = VariantCounts()
    counts.clicks = RatioSums(users=10, base=decisions, value=count)
    return counts


def forecast(challenger: str = SECOND, gain: float = 0.05, observed: float | None = None) -> Forecast:
    return Forecast(challenger=challenger, champion=FIRST, forecast=gain, observed=observed)


def test_observation_is_the_gain_of_clicks_per_decision():
    counts = {"champion": clicks(9_000, 900), "challenger": clicks(1_000, 110)}
    other, tried = observe([forecast("c" * 64), forecast()], SECOND, counts)
    assert other.observed is None
    assert tried.observed == pytest.approx(0.1)
    assert tried.decisions == 1_000


@pytest.mark.parametrize(
    "counts",
    [
        {"champion": clicks(9_000, 900), "challenger": clicks(999, 110)},
        {"champion": clicks(999, 900), "challenger": clicks(9_000, 110)},
        {"champion": clicks(9_000, 0), "challenger": clicks(9_000, 110)},
    ],
)
def test_few_decisions_are_no_observation(counts):
    assert observe([forecast()], SECOND, counts) == [forecast()]


def test_newer_step_with_fewer_decisions_does_not_replace_the_observation():
    seen = observe([forecast()], SECOND, {"champion": clicks(9_000, 900), "challenger": clicks(5_000, 550)})
    assert observe(seen, SECOND, {"champion": clicks(9_000, 900), "challenger": clicks(1_000, 0)}) == seen


def test_bias_and_rank_correlation():
    quality = measure_forecasts([forecast(gain=0.1, observed=0.2), forecast(gain=0.2, observed=0.1), forecast()])
    assert (quality.pairs, quality.rank_correlation) == (2, None)
    assert quality.bias == pytest.approx(0)
    quality = measure_forecasts(
        [forecast(gain=0.1, observed=0.0), forecast(gain=0.2, observed=0.1), forecast(gain=0.4, observed=0.2)]
    )
    assert quality.bias == pytest.approx(-0.4 / 3)
    assert quality.rank_correlation == pytest.approx(1)
    turned = [forecast(gain=0.1, observed=0.2), forecast(gain=0.2, observed=0.1), forecast(gain=0.4, observed=0.0)]
    assert measure_forecasts(turned).rank_correlation == pytest.approx(-1)


def test_no_spread_has_no_correlation():
    assert measure_forecasts([forecast(observed=0.1)] * 4).rank_correlation is None
    assert measure_forecasts([forecast()]).bias is None


def test_forecasts_are_read_as_written(tmp_path):
    assert read_forecasts(tmp_path) == []
    write_forecasts(tmp_path, [forecast(), forecast(observed=0.3)])
    assert read_forecasts(tmp_path) == [forecast(), forecast(observed=0.3)]


def test_forecasts_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "forecasts.json").write_text('[{"challenger": 1}]')
    with pytest.raises(RetrainingError, match=r"forecasts\.json cannot be read: .* Delete the file"):
        read_forecasts(tmp_path)
