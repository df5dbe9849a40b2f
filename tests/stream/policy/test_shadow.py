"""Shadow: how far two bundles agree on an event."""

import pytest

from clickscore.schemas.outcome_counts import ShadowCounts
from clickscore.stream.policy.shadow import compare_scores, summarise_shadow
from tests.scored_requests import make_scores


def test_equal_scores_agree():
    scores = make_scores("a", "b", "c", purchase=0.25)
    counts = compare_scores(scores, scores)
    assert (counts.agreement, counts.rank_correlation, counts.correlated) == (1, 1, 1)
    assert (counts.champion_purchase, counts.challenger_purchase, counts.predicted) == (0.25, 0.25, 1)


def test_reversed_order_is_a_correlation_of_minus_1():
    counts = compare_scores(make_scores("a", "b", "c"), make_scores("c", "b", "a"), best=1)
    assert (counts.agreement, counts.rank_correlation) == (0, -1)


def test_order_of_the_common_candidates_counts():
    counts = compare_scores(make_scores("a", "b", "c", "d"), make_scores("x", "b", "y", "a", "d"), best=2)
    assert counts.agreement == 0.5
    assert counts.rank_correlation == pytest.approx(0.5)  # 3 common candidates, two of them exchanged


def test_one_common_candidate_has_no_order():
    assert compare_scores(make_scores("a", "b"), make_scores("a", "x")).correlated == 0


@pytest.mark.parametrize("tried", [None, make_scores()])
def test_event_without_scores_is_unscored(tried: object):
    assert compare_scores(make_scores("a"), tried) == ShadowCounts(events=1, unscored=1)  # pyright: ignore[reportArgumentType]


def test_bundles_without_a_purchase_head_predict_none():
    scores = make_scores("a")._replace(purchase=None)
    assert compare_scores(scores, scores).predicted == 0


def test_counts_add_up_and_are_summarised():
    counts = ShadowCounts()
    for tried in (make_scores("a", "b"), make_scores("b", "a"), None):
        counts.add(compare_scores(make_scores("a", "b"), tried, best=1))
    summary = summarise_shadow(counts)
    assert (summary["agreement at 10"], summary["rank correlation"]) == (0.5, 0)
    assert summary["unscored share"] == pytest.approx(1 / 3)
