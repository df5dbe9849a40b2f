"""Metrics and intervals: against naive references that follow the definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.backtest import catalogue_metrics as metrics
from clickscore.backtest.intervals import BOOTSTRAP_DRAWS, Bootstrap, make_estimate
from clickscore.backtest.probability_metrics import WeightedPrAuc, reliability
from clickscore.backtest.rank_gains import gain_ranks, gain_table
from clickscore.model.metrics import calibration_error, pr_auc

counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), max_size=8).map(Counter)
ranks = st.lists(st.integers(0, 12), min_size=1, max_size=40)
rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 1), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


@given(ranks, st.integers(1, 10))
def test_values_of_ranks_average_to_the_metrics(drawn_ranks: list[int], k: int) -> None:
    by_hand = {
        "hit_rate": [1.0 if 1 <= rank <= k else 0.0 for rank in drawn_ranks],
        "mrr": [1 / rank if 1 <= rank <= k else 0.0 for rank in drawn_ranks],
        "ndcg": [1 / math.log2(rank + 1) if 1 <= rank <= k else 0.0 for rank in drawn_ranks],
    }
    for name, expected in by_hand.items():
        assert gain_ranks(np.array(drawn_ranks), gain_table(name, k)).tolist() == pytest.approx(expected)


@given(counts, counts)
def test_popularity_and_novelty_are_means_over_slots(recommended: Counter[str], events: Counter[str]) -> None:
    slots, total = list(recommended.elements()), events.total()
    smoothed = total + len(set(events) | set(recommended))
    if slots:
        novelty = sum(-math.log2((events[item] + 1) / smoothed) for item in slots) / len(slots)
        assert metrics.novelty(recommended, events) == pytest.approx(novelty)
    if slots and total:
        mean = sum(events[item] / total for item in slots) / len(slots)
        assert metrics.popularity(recommended, events) == pytest.approx(mean)


def test_nothing_recommended_is_nothing() -> None:
    empty: Counter[str] = Counter()
    assert metrics.coverage(empty, 0) == metrics.popularity(empty, empty) == metrics.novelty(empty, empty) == 0
    assert metrics.popularity_bias(Counter(a=1), empty, Counter(a=1)) == 0


def test_popularity_bias_is_one_where_what_is_shown_is_as_popular_as_what_is_wanted() -> None:
    events = Counter(a=30, b=10)
    assert metrics.popularity_bias(Counter(a=5, b=5), Counter(a=2, b=2), events) == pytest.approx(1)
    assert metrics.popularity_bias(Counter(a=5), Counter(b=5), events) == pytest.approx(3)


def test_coverage_is_the_share_that_was_shown() -> None:
    assert metrics.coverage(Counter(a=9, b=1), 8) == 0.25


@given(rows)
def test_weighted_pr_auc_is_that_of_rows_so_many_times(drawn_rows: list[tuple[float, int, int]]) -> None:
    stated, happened, weights = (np.array(column) for column in zip(*drawn_rows, strict=True))
    repeated = np.repeat(np.arange(len(drawn_rows)), weights)
    expected = pr_auc(stated[repeated], happened[repeated])
    assert WeightedPrAuc(stated, happened)(weights.astype(float)) == pytest.approx(expected)


@given(rows)
def test_reliability_bins_are_those_of_the_calibration_error(drawn_rows: list[tuple[float, int, int]]) -> None:
    stated, happened = np.array([row[0] for row in drawn_rows]), np.array([row[1] for row in drawn_rows])
    estimate = reliability(stated, happened)
    error = np.sum(estimate.counts * np.abs(estimate.predicted - estimate.observed)) / len(drawn_rows)
    assert error == pytest.approx(calibration_error(stated, happened))
    assert np.bincount(estimate.bin_of_event, minlength=len(estimate.counts)).tolist() == estimate.counts.tolist()


@given(rows)
def test_draws_are_means_over_whole_users(drawn_rows: list[tuple[float, int, int]]) -> None:
    values, chosen = np.array([row[0] for row in drawn_rows]), np.array([row[1] for row in drawn_rows]) == 1
    users = np.array([row[2] for row in drawn_rows])
    bootstrap = Bootstrap(users)
    weights = bootstrap._weights
    drawn = bootstrap.means([values], chosen)[0]
    names = sorted(set(users.tolist()))
    for draw in (0, BOOTSTRAP_DRAWS - 1):
        of_row = np.array([weights[draw][names.index(user)] for user in users.tolist()]) * chosen
        expected = np.sum(of_row * values) / of_row.sum() if of_row.sum() else 0.0
        assert drawn[draw] == pytest.approx(expected)


@pytest.mark.slow
def test_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """95 %, of means over 200 users with 5 like-minded events each; by event it would be far less."""
    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(200), 5)
    hits = {"user": 0, "event": 0}
    for _ in range(200):
        values = np.repeat(rng.normal(size=200), 5)
        for name, bins in (("user", users), ("event", np.arange(1000))):
            estimate = make_estimate(values.mean(), Bootstrap(bins).means([values], np.ones(1000, dtype=bool))[0])
            hits[name] += estimate.low <= 0 <= estimate.high
    assert 0.89 < hits["user"] / 200 < 0.99
    assert hits["event"] / 200 < 0.75


def test_difference_of_equal_arms_is_nothing_in_every_draw() -> None:
    values = np.random.default_rng(1).random(100)
    drawn = Bootstrap(np.arange(100) % 30).means([values, values], np.ones(100, dtype=bool))
    assert (drawn[0] - drawn[1] == 0).all()
