"""Relevance: boosts multiply it, and weak candidates are dropped."""

import math

import msgspec
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Choice
from clickscore.schemas.durations import DAY_MS
from clickscore.stream.policy.experiments import CONTROL, SIMILAR
from clickscore.stream.policy.policy_file import Boost, Only
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.relevance import boost_factor, boost_items, drop_irrelevant, relevances
from clickscore.stream.policy.rerankers import make_rerankers
from clickscore.stream.reference.catalogue import Catalogue
from tests.events import START
from tests.scored_requests import make_catalogue, make_request, make_scores, plain


def choice(item: str, score: float | None) -> Choice:
    return Choice(item_id=item, score=score or 0.0, propensity=1.0, reason="popular" if score is None else "model")


def slate(*scores: float | None) -> list[Choice]:
    """Return choices a, b, ... with these scores; None for a popular item."""
    return [choice(item, score) for item, score in zip("abcdef", scores, strict=False)]


def order(choices: object) -> str:
    return "".join(each.item_id for each in choices)  # pyright: ignore[reportGeneralTypeIssues]


def test_relevance_is_the_share_of_the_best_candidates_odds():
    assert relevances(slate(3.0, 3.0 - math.log(2), -1e9)) == [1.0, pytest.approx(0.5), pytest.approx(0, abs=1e-300)]


def test_popular_items_follow_the_last_candidate_and_fall_by_rank():
    assert relevances(slate(0.0, math.log(0.5), None, None)) == pytest.approx([1.0, 0.5, 0.5, 0.25])
    assert relevances(slate(None, None)) == [1.0, 0.5]


def with_similar(*scores: float | None) -> list[Choice]:
    """Return choices a, b, ... with these scores; None for an item that is similar to the current item."""
    return [
        msgspec.structs.replace(each, reason=SIMILAR) if each.reason == CONTROL else each for each in slate(*scores)
    ]


def test_similar_item_is_as_relevant_as_the_next_candidate():
    choices = with_similar(None, 0.0, None, None, math.log(0.5), None)
    assert relevances(choices) == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    assert relevances(with_similar(None, None)) == [1.0, 1.0]


def test_similar_item_among_popular_items_keeps_its_place():
    similar, popular = with_similar(None)[0], slate(None)[0]
    assert relevances([similar, popular, similar, popular, similar]) == [1.0, 1.0, 0.5, 0.5, 0.5]


def test_boost_leaves_similar_items_in_their_places():
    rule = boost_items(Boost(items={"d": 3.0}))
    choices = with_similar(None, 0.0, None, math.log(0.5))
    assert order(rule.rerank(choices, make_request(), Catalogue())) == "dabc"


def test_similar_items_are_dropped_with_the_candidate_behind_them():
    choices = with_similar(None, 0.0, None, math.log(0.6), None, math.log(0.4))
    assert order(drop_irrelevant(0.5).rerank(choices, make_request(), Catalogue())) == "abcd"


def test_boost_moves_an_item_past_less_relevant_ones():
    rule = boost_items(Boost(items={"c": 3.0}))
    scores = slate(0.0, math.log(0.5), math.log(0.25))
    assert order(rule.rerank(scores, make_request(), Catalogue())) == "acb"


def test_factor_below_one_moves_an_item_back():
    rule = boost_items(Boost(items={"a": 0.3}))
    assert order(rule.rerank(slate(0.0, math.log(0.5), math.log(0.25)), make_request(), Catalogue())) == "bac"


def test_items_of_equal_relevance_keep_their_order():
    rule = boost_items(Boost(items={"x": 2.0}))
    assert order(rule.rerank(slate(1.0, 1.0, 1.0), make_request(), Catalogue())) == "abc"


def factor(boost: Boost, item: Item) -> float:
    return boost_factor(boost, item.item_id, START, make_catalogue(item))


@pytest.mark.parametrize(
    ("boost", "item", "expected"),
    [
        (Boost(items={"a": 2.0}), Item(item_id="a"), 2.0),
        (Boost(categories={"tea": 2.0}), Item(item_id="a", category="tea"), 2.0),
        (Boost(categories={"tea": 2.0}), Item(item_id="a"), 1.0),
        (Boost(brands={"oak": 0.5}), Item(item_id="a", brand="oak"), 0.5),
        (Boost(promoted=3.0), Item(item_id="a", promoted=True), 3.0),
        (Boost(promoted=3.0), Item(item_id="a"), 1.0),
        (Boost(margin=4.0), Item(item_id="a", margin=0.5), 2.0),
        (Boost(margin=4.0), Item(item_id="a", margin=-0.5), 0.5),
        (Boost(margin=4.0), Item(item_id="a"), 1.0),
        (Boost(fresh=4.0, fresh_days=10), Item(item_id="a", listed_at=START), 4.0),
        (Boost(fresh=4.0, fresh_days=10), Item(item_id="a", listed_at=START - 5 * DAY_MS), 2.0),
        (Boost(fresh=4.0, fresh_days=10), Item(item_id="a", listed_at=START - 11 * DAY_MS), 1.0),
        (Boost(fresh=4.0, fresh_days=10), Item(item_id="a", listed_at=START + DAY_MS), 4.0),
        (Boost(), Item(item_id="a", listed_at=START), 1.0),
        (Boost(items={"a": 5.0}, brands={"oak": 2.0}), Item(item_id="a", brand="oak"), 10.0),
        (Boost(items={"a": 9.0}, brands={"oak": 9.0}), Item(item_id="a", brand="oak"), 10.0),
        (Boost(items={"a": 0.2}, brands={"oak": 0.2}), Item(item_id="a", brand="oak"), 0.1),
    ],
)
def test_factors_multiply_within_bounds(boost: Boost, item: Item, expected: float):
    assert factor(boost, item) == pytest.approx(expected)


def test_weak_candidates_are_dropped_and_popular_items_do_not_take_their_places():
    rule = drop_irrelevant(0.5)
    choices = slate(0.0, math.log(0.5), math.log(0.4), None)
    assert order(rule.rerank(choices, make_request(), Catalogue())) == "ab"


def test_popular_items_stay_where_the_model_has_no_answer():
    choices = slate(None, None)
    assert drop_irrelevant(0.5).rerank(choices, make_request(), Catalogue()) is choices


def test_policy_uses_the_rules_that_it_names():
    assert make_rerankers(plain()) == ()
    rules = make_rerankers(plain(only=Only(relevance=0.1), boost=Boost(fresh=2.0)))
    assert [rule.name for rule in rules] == ["relevance", "boost"]
    assert [rule.name for rule in make_rerankers(plain(boost=Boost(brands={"oak": 2.0})))] == ["boost"]


def test_decision_counts_what_a_rule_moved_and_removed():
    policy = Policy(plain(k=3, only=Only(relevance=0.2), boost=Boost(items={"b": 9.0})), "bundle", ())
    decision = policy.recommend(make_request("x"), make_scores("a", "b", "c"), Catalogue())
    assert order(decision.items) == "ba"
    assert (decision.moved, decision.filtered) == ({"boost": 2}, {"relevance": 1})
    assert policy.encoded(make_request("x"), make_scores("a", "b", "c"), Catalogue()).moved == {"boost": 2}
