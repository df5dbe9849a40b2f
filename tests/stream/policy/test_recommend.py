"""Recommendations: the order of the stages, the fallback to popularity, the propensities and the reasons."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import Recommendation, encode_decision
from clickscore.schemas.events import ACTIONS, View
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.rules import Reranker
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Reasons, Request, Scores
from clickscore.stream.settings import PolicySettings
from tests.events import START
from tests.scored_requests import make_catalogue, make_request, make_scores, plain


def recommended(request: Request, scores: Scores | None, prior: tuple[str, ...] = ()) -> list[str]:
    policy = Policy(plain(k=3), "bundle", prior)
    return [choice.item_id for choice in policy.recommend(request, scores, Catalogue()).items]


def test_best_candidates_come_in_their_order():
    assert recommended(make_request("x"), make_scores("a", "b", "c", "d")) == ["a", "b", "c"]


def test_forbidden_candidates_give_way_to_the_next():
    assert recommended(make_request("x", bought=("a",)), make_scores("a", "b", "c", "d")) == ["b", "c", "d"]


def test_filters_say_how_many_they_removed():
    policy = Policy(plain(k=2), None, ())
    catalogue = make_catalogue(Item(item_id="b", stock=0))
    assert policy.recommend(make_request(bought=("a",)), make_scores("a", "b", "c"), catalogue).filtered == {
        "bought": 1,
        "out_of_stock": 1,
    }


def test_popular_items_fill_what_the_model_leaves():
    assert recommended(make_request("x", popular=("a", "p")), make_scores("a")) == ["a", "p"]


def test_popular_items_stand_in_where_the_model_is_silent():
    assert recommended(make_request("x", popular=("p", "q")), None) == ["p", "q"]


def test_training_popularity_comes_after_the_present_one():
    assert recommended(make_request("x", popular=("p",)), None, prior=("p", "t")) == ["p", "t"]


def test_shared_popular_items_follow_the_stock():
    catalogue = make_catalogue(Item(item_id="p", stock=1))
    policy = Policy(plain(k=1), None, ())
    request = make_request("x", popular=("p", "q"))
    assert policy.recommend(request, None, catalogue).items[0].item_id == "p"
    catalogue.update_item(b"p", encode(Item(item_id="p", stock=0)))
    assert policy.recommend(request, None, catalogue).items[0].item_id == "q"


@pytest.mark.parametrize("bought", [(), ("p",)])
@pytest.mark.parametrize("scores", [None, make_scores("a", "b")])
def test_encoded_decision_is_the_recommendation(scores: Scores | None, bought: tuple[str, ...]):
    catalogue = make_catalogue(Item(item_id="p", stock=1), Item(item_id="r", stock=0))
    policy = Policy(plain(k=3), "bundle", ("t",))
    request = make_request("x", bought=bought, popular=("p", "q", "r"))
    assert policy.encoded(request, scores, catalogue).value == encode_decision(
        policy.recommend(request, scores, catalogue)
    )
    catalogue.update_item(b"p", encode(Item(item_id="p", stock=0)))
    assert policy.encoded(request, scores, catalogue).value == encode_decision(
        policy.recommend(request, scores, catalogue)
    )


def explained(max_reasons: int, contributions: list[list[float]], bought: tuple[str, ...] = ()) -> Recommendation:
    """Return a decision on candidates a, b, ... with these contributions of the events on x, y and z."""
    request = msgspec.structs.replace(
        make_request("x", "y", "z", bought=bought, popular=("p",)), actions=bytes((1, 2, 1))
    )
    scores = make_scores(*"abcd"[: len(contributions)])._replace(reasons=Reasons(np.array(contributions), range(3)))
    return Policy(plain(k=3, reasons=max_reasons), None, ()).recommend(request, scores, Catalogue())


def because(decision: Recommendation) -> list[list[tuple[str, str, float]]]:
    return [
        [(event.item_id, event.action, event.contribution) for event in choice.because] for choice in decision.items
    ]


def test_item_names_the_events_that_spoke_most_for_it():
    reasons = because(explained(2, [[1.0, 3.0, 2.0], [0.5, 0.25, 0.125]]))
    assert reasons == [[("y", ACTIONS[2], 3.0), ("z", "view", 2.0)], [("x", "view", 0.5), ("y", ACTIONS[2], 0.25)], []]


def test_events_that_spoke_against_an_item_are_not_named():
    assert because(explained(3, [[-1.0, 0.0, 2.0]]))[0] == [("z", "view", 2.0)]


def test_of_equal_contributions_the_newer_event_comes_first():
    assert [item for item, _, _ in because(explained(2, [[1.0, 1.0, 1.0]]))[0]] == ["z", "y"]


def test_reasons_are_those_of_the_item_that_is_shown():
    assert because(explained(1, [[1.0, 0, 0], [0, 1.0, 0]], bought=("a",)))[0] == [("y", ACTIONS[2], 1.0)]


def test_list_without_a_candidate_of_the_model_has_no_reasons():
    decision = explained(2, [[1.0, 0, 0]], bought=("a",))
    assert [(choice.item_id, choice.because) for choice in decision.items] == [("p", ())]


def test_contributions_are_rounded_as_scores_are():
    assert because(explained(1, [[0.12345678, 0, 0]]))[0][0][2] == 0.123457


@pytest.mark.parametrize("max_reasons", [0, 1])
def test_decision_without_reasons_says_nothing_of_them(max_reasons: int):
    policy = Policy(plain(k=2, reasons=max_reasons), None, ())
    assert b"because" not in encode_decision(
        policy.recommend(make_request("x", popular=("p",)), make_scores("a"), Catalogue())
    )


def test_decision_says_why_where_it_is_asked_to():
    assert b'"because":[{"item_id":"z","action":"view","contribution":2.0}]' in encode_decision(
        explained(1, [[0, 0, 2.0]])
    )


# Re-rankers and selections


class CountedItems(Sequence[str]):
    """Item ids by row that count how often one is looked up."""

    def __init__(self, items: Sequence[str]) -> None:
        self.lookups = 0
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: Any) -> Any:
        self.lookups += 1
        return self.items[row]


def boosted_tea(slate: Slate, request: Request, catalogue: Catalogue) -> Slate:
    """Re-ranker: move the items of the category tea up by adding 10 to their scores."""
    del request
    boosted = [
        msgspec.structs.replace(choice, score=choice.score + 10)
        if catalogue.category_of(choice.item_id) == "tea"
        else choice
        for choice in slate
    ]
    return sorted(boosted, key=lambda choice: -choice.score)


def without_last(slate: Slate, request: Request, catalogue: Catalogue) -> Slate:
    """Re-ranker: leave out the last item."""
    del request, catalogue
    return slate[:-1]


boost_tea = Reranker("tea", "tea comes first", boosted_tea)
drop_last = Reranker("last", "the last item is left out", without_last)


def toss_a_coin(slate: Slate, request: Request, k: int) -> Slate:
    """Selection: show one of the best two items, each with probability 0.5, by a hash of the decision id."""
    del k
    heads = hashlib.blake2b(request.decision_id.encode()).digest()[0] % 2
    return [msgspec.structs.replace(slate[heads], propensity=0.5)]


def test_without_a_reranker_only_selected_candidates_are_looked_up():
    items = CountedItems([f"item-{row}" for row in range(100)])
    policy = Policy(plain(k=3), "bundle", ())
    policy.recommend(
        make_request("x", bought=("item-1",)), make_scores(*items.items)._replace(items_by_row=items), Catalogue()
    )
    assert items.lookups == 4


def test_reranker_moves_an_item_from_behind_the_kth_to_the_front():
    catalogue = make_catalogue(Item(item_id="d", category="tea"))
    policy = Policy(plain(k=2), "bundle", (), rerankers=[boost_tea])
    choices = policy.recommend(make_request("x"), make_scores("a", "b", "c", "d"), catalogue).items
    assert [(choice.item_id, choice.score, choice.propensity) for choice in choices] == [
        ("d", 7.0, 1.0),
        ("a", 0.0, 1.0),
    ]


def test_reranker_never_sees_a_forbidden_item():
    catalogue = make_catalogue(Item(item_id="b", category="tea", stock=0))
    policy = Policy(plain(k=2), "bundle", (), rerankers=[boost_tea])
    decision = policy.recommend(make_request("x"), make_scores("a", "b", "c"), catalogue)
    assert [choice.item_id for choice in decision.items] == ["a", "c"]
    assert decision.filtered == {"out_of_stock": 1}


def test_rerankers_run_in_their_order():
    catalogue = make_catalogue(Item(item_id="c", category="tea"))
    request, scores = make_request("x"), make_scores("a", "b", "c")
    boosted = Policy(plain(k=3), "bundle", (), rerankers=[boost_tea, drop_last])
    dropped = Policy(plain(k=3), "bundle", (), rerankers=[drop_last, boost_tea])
    assert [choice.item_id for choice in boosted.recommend(request, scores, catalogue).items] == ["c", "a"]
    assert [choice.item_id for choice in dropped.recommend(request, scores, catalogue).items] == ["a", "b"]


def test_reranker_runs_on_popular_items_too():
    catalogue = make_catalogue(Item(item_id="q", category="tea"))
    policy = Policy(plain(k=2), None, (), rerankers=[boost_tea])
    request = make_request("x", popular=("p", "q"))
    assert [choice.item_id for choice in policy.recommend(request, None, catalogue).items] == ["q", "p"]
    assert policy.encoded(request, None, catalogue).value == encode_decision(policy.recommend(request, None, catalogue))


def test_reasons_move_with_their_item():
    request = make_request("x")
    scores = make_scores("a", "b")._replace(reasons=Reasons(np.array([[1.0], [2.0]]), range(1)))
    catalogue = make_catalogue(Item(item_id="b", category="tea"))
    policy = Policy(plain(k=1, reasons=1), "bundle", (), rerankers=[boost_tea])
    assert policy.recommend(request, scores, catalogue).items[0].because[0].contribution == 2.0


def test_propensity_of_a_stochastic_selection_stands_in_the_decision():
    policy = Policy(plain(k=1), "bundle", (), select=toss_a_coin)
    request, scores = make_request("x"), make_scores("a", "b", "c")
    (choice,) = policy.recommend(request, scores, Catalogue()).items
    assert choice.propensity == 0.5
    assert b'"propensity":0.5' in policy.encoded(request, scores, Catalogue()).value


@pytest.mark.parametrize("scored", [True, False])
def test_stochastic_selection_shows_each_item_as_often_as_its_propensity_says(scored: bool):
    policy = Policy(plain(k=1), "bundle", (), select=toss_a_coin)
    scores = make_scores("a", "b") if scored else None
    request = make_request("x", popular=("a", "b"))
    decisions = [
        policy.recommend(msgspec.structs.replace(request, decision_id=f"events-0-{offset}"), scores, Catalogue())
        for offset in range(1_000)
    ]
    assert 450 < sum(decision.items[0].item_id == "a" for decision in decisions) < 550  # 3 standard deviations are 47


def test_stochastic_selection_repeats_itself_for_the_same_decision():
    policy = Policy(plain(k=1), "bundle", (), select=toss_a_coin)
    request, scores = make_request("x"), make_scores("a", "b")
    assert policy.encoded(request, scores, Catalogue()) == policy.encoded(request, scores, Catalogue())


# Rules of a policy


def test_policy_names_its_rules_in_the_order_of_their_runs():
    policy = Policy(DEFAULT_POLICY, "bundle", (), rerankers=[boost_tea])
    assert [rule.name for rule in policy.rules] == [
        "bought",
        "out_of_stock",
        "hidden",
        "on_screen",
        "in_cart",
        "unavailable",
        "tea",
        "reminders",
    ]
    assert all(rule.sentence for rule in policy.rules)


def default_items(request: Request, catalogue: Catalogue | None = None) -> list[str]:
    policy = Policy(DEFAULT_POLICY, None, ("t",), PolicySettings(k=3))
    catalogue = catalogue or Catalogue()
    decision = policy.recommend(request, None, catalogue)
    assert policy.encoded(request, None, catalogue).value == encode_decision(decision)
    return [choice.item_id for choice in decision.items]


def test_popular_items_are_shared_until_a_rule_speaks_of_one_of_them():
    popular = ["p", "q", "r", "s", "u"]
    request = msgspec.structs.replace(make_request("x"), popular=popular)
    policy = Policy(DEFAULT_POLICY, None, ("t",), PolicySettings(k=4))
    catalogue = Catalogue()
    shared = policy.recommend(request, None, catalogue).items
    assert policy.recommend(msgspec.structs.replace(request, items=["y"]), None, catalogue).items is shared
    assert policy.recommend(msgspec.structs.replace(request, bought=frozenset("u")), None, catalogue).items is shared
    for change in (
        {"items": ["p"]},
        {"bought": frozenset("q")},
        {"event": View(event_id="e", user_id="ann", ts=START, item_id="r")},
    ):
        assert policy.recommend(msgspec.structs.replace(request, **change), None, catalogue).items is not shared


def test_popular_items_of_a_user_with_rules_are_chosen_one_by_one():
    request = msgspec.structs.replace(make_request("p", "q"), popular=["p", "q", "r", "s"], bought=frozenset("s"))
    assert default_items(request) == ["p", "q", "r"]
    assert default_items(msgspec.structs.replace(request, actions=b"\2\1")) == ["q", "r", "t"]  # p is in the cart


def test_items_of_some_regions_are_tested_for_every_request():
    catalogue = make_catalogue(Item(item_id="p", regions=("north",)))
    request = msgspec.structs.replace(make_request("x"), popular=["p", "q"])
    assert default_items(request, catalogue) == ["q", "t"]
    northern = msgspec.structs.replace(request, event=msgspec.structs.replace(request.event, region="north"))
    assert default_items(northern, catalogue) == ["p", "q", "t"]


LAMPS = [Item(item_id=f"lamp-{price}", category="lamps", brand="lumi", price=price) for price in (10, 20, 40)]


def decided(request: Request, scores: Scores | None, **fields: object) -> list[tuple[str, str]]:
    policy = Policy(plain(k=4), "bundle", ("t",), known_items={"a", "lamp-10"})
    decision = policy.recommend(msgspec.structs.replace(request, **fields), scores, make_catalogue(*LAMPS))
    assert policy.encoded(
        msgspec.structs.replace(request, **fields), scores, make_catalogue(*LAMPS)
    ).value == encode_decision(decision)
    return [(choice.item_id, choice.reason) for choice in decision.items]


def test_items_like_an_unknown_current_item_take_every_other_place():
    request = make_request("a", "lamp-40", popular=("p",))
    assert decided(request, make_scores("a", "b")) == [
        ("lamp-40", "similar"),
        ("a", "model"),
        ("lamp-20", "similar"),
        ("b", "model"),
    ]


def test_model_fills_what_similar_items_leave():
    request = make_request("a", "lamp-40")
    policy = Policy(plain(k=9), "bundle", (), known_items={"a"})
    decision = policy.recommend(request, make_scores("a", "b", "c", "d", "e"), make_catalogue(*LAMPS))
    assert [choice.item_id for choice in decision.items][5:] == ["c", "d", "e"]


def test_reasons_stay_with_their_candidates_beside_similar_items():
    scores = make_scores("a", "b")._replace(reasons=Reasons(np.array([[0.5, 0], [0.25, 0]]), (0, 1)))
    policy = Policy(plain(k=4), "bundle", (), PolicySettings(reasons=1), known_items={"a"})
    decision = policy.recommend(make_request("a", "lamp-40"), scores, make_catalogue(*LAMPS))
    contributions = [[because.contribution for because in choice.because] for choice in decision.items]
    assert contributions == [[], [0.5], [], [0.25]]


def test_items_like_an_unknown_current_item_come_where_the_model_is_silent():
    assert decided(make_request("lamp-20", popular=("p",)), None) == [
        ("lamp-20", "similar"),
        ("p", "popular"),
        ("lamp-10", "similar"),
        ("lamp-40", "similar"),
    ]


@pytest.mark.parametrize("items", [("lamp-20", "lamp-10"), ("lamp-20", "a"), ("",), ("unknown",), ()])
def test_known_current_item_and_an_item_outside_of_the_catalogue_have_no_similar_items(items: tuple[str, ...]):
    assert decided(make_request(*items, popular=("p",)), None) == [("p", "popular"), ("t", "popular")]


def test_search_after_an_unknown_item_keeps_the_items_like_it():
    assert decided(make_request("lamp-20", "", popular=("p",)), None)[0] == ("lamp-20", "similar")


def test_control_shows_popular_items_for_an_unknown_item():
    assert decided(make_request("lamp-20", popular=("p",)), None, variant="popular")[0] == ("p", "popular")


def test_items_are_counted_by_reason():
    policy = Policy(plain(k=4), "bundle", (), known_items=())
    encoded = policy.encoded(make_request("lamp-40", popular=("p",)), make_scores(), make_catalogue(*LAMPS))
    assert encoded.origins == {"similar": 3, "popular": 1}
