import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.model import metrics


def test_best_score_has_rank_1():
    assert metrics.rank_targets(np.array([[0.1, 0.9, 0.5]]), np.array([1])).tolist() == [1]


def test_ties_count_against_us():
    assert metrics.rank_targets(np.array([[0.5, 0.5, 0.5, 0.1]]), np.array([0])).tolist() == [3]


def test_model_that_says_nothing_gets_nothing():
    ranks = metrics.rank_targets(np.zeros((4, 100)), np.arange(4))
    assert metrics.hit_rate(ranks, 20) == 0


def test_hit_rate_counts_ranks_up_to_k():
    assert metrics.hit_rate(np.array([1, 20, 21, metrics.MISS]), 20) == 0.5


def test_reciprocal_rank_is_0_beyond_k():
    assert metrics.reciprocal_rank(np.array([1, 4, 21, metrics.MISS]), 20) == pytest.approx((1 + 0.25) / 4)


def test_ndcg_of_one_target_is_its_discount():
    assert metrics.ndcg(np.array([1, 3, 21, metrics.MISS]), 20) == pytest.approx((1 + 0.5) / 4)


def test_pr_auc_of_a_perfect_order_is_1():
    assert metrics.pr_auc(np.array([0.9, 0.8, 0.2]), np.array([1, 1, 0])) == 1


def test_pr_auc_is_the_mean_precision_at_each_hit():
    assert metrics.pr_auc(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1])) == pytest.approx((1 + 2 / 3) / 2)


def test_pr_auc_of_one_probability_for_all_is_the_rate():
    assert metrics.pr_auc(np.full(8, 0.3), np.array([1, 1, 0, 0, 0, 0, 0, 0])) == 0.25


def test_pr_auc_where_nothing_happened_is_0():
    assert metrics.pr_auc(np.array([0.5, 0.1]), np.array([0, 0])) == 0


def test_log_loss_of_a_coin_is_log_2():
    assert metrics.log_loss(np.array([0.5, 0.5]), np.array([0, 1])) == pytest.approx(np.log(2))


def test_log_loss_of_classes_looks_at_the_one_that_happened():
    assert metrics.log_loss(np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([1, 0])) == pytest.approx(
        -(np.log(0.8) + np.log(0.5)) / 2
    )


def test_log_loss_of_a_wrong_certainty_is_finite():
    assert np.isfinite(metrics.log_loss(np.array([0.0]), np.array([1])))


def test_brier_is_the_mean_squared_difference():
    assert metrics.brier(np.array([0.5, 1.0]), np.array([0, 1])) == 0.125


def test_calibrated_probabilities_have_no_error():
    assert metrics.calibration_error(np.full(4, 0.25), np.array([1, 0, 0, 0]), bins=1) == 0


def test_calibration_error_is_the_mean_gap_of_the_bins():
    probabilities, happened = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 0])
    assert metrics.calibration_error(probabilities, happened, bins=2) == pytest.approx((0.1 + 0.4) / 2)


def test_calibration_bins_hold_equally_many_rows():
    probabilities = np.concatenate((np.full(15, 0.001), np.linspace(0.5, 0.9, 15)))
    assert metrics.calibration_error(probabilities, np.zeros(30), bins=2) == pytest.approx(probabilities.mean())


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 1)), max_size=40), st.randoms())
def test_order_of_the_rows_has_no_say_in_the_bins(rows, random):
    shuffled = random.sample(rows, len(rows))
    sets = []
    for order in (rows, shuffled):
        probabilities, happened = np.array([row[0] for row in order]), np.array([row[1] for row in order])
        bins = metrics.equal_mass_bins(probabilities, bins=4)
        sets.append(sorted(zip(bins.tolist(), probabilities.tolist(), happened.tolist(), strict=True)))
    assert sets[0] == sets[1]


def test_bins_of_many_equal_rows_are_parted_where_the_probability_changes():
    probabilities = np.array([0.5, 0.1, 0.1, 0.9, 0.1, 0.5])
    assert metrics.equal_mass_bins(probabilities, bins=3).tolist() == [1, 0, 0, 2, 0, 1]


def test_metrics_of_nothing_are_0():
    nothing = np.array([])
    assert metrics.hit_rate(nothing, 20) == metrics.brier(nothing, nothing) == 0
    assert metrics.calibration_error(nothing, nothing) == 0
