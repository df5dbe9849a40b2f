"""Goals: the expected value of an item in money decides its place."""

import math

import msgspec
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Choice
from clickscore.stream.errors import PolicyError
from clickscore.stream.policy.experiments import CHALLENGER, CONTROL, MODEL
from clickscore.stream.policy.goal_policy import Goals, GoalWeights, VariantGoals
from clickscore.stream.policy.goals import item_values, order_values, rank_by_goals
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Boost, Only, parse_policy
from clickscore.stream.policy.policy_words import diff_policies, explain_policy
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.rerankers import make_rerankers
from clickscore.stream.policy.shelf_plan import make_shelf_plan
from clickscore.stream.policy.shelf_policy import ShelfTable
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Scores
from clickscore.stream.settings import PolicySettings
from tests.scored_requests import make_catalogue, make_request, make_scores, plain

HEAD = b'version = "a-1"\nowner = "anna"\n'

SHOP = make_catalogue(
    Item(item_id="a", price=10.0, margin=0.5),
    Item(item_id="b", price=40.0, margin=0.1),
    Item(item_id="c", price=100.0),
    Item(item_id="d"),
)


def slate(*scores: float) -> list[Choice]:
    """Return candidates a, b, ... of the model with these scores."""
    return [
        Choice(item_id=item, score=score, propensity=1.0, reason="model")
        for item, score in zip("abcd", scores, strict=False)
    ]


def order(choices: object) -> str:
    return "".join(each.item_id for each in choices)  # pyright: ignore[reportGeneralTypeIssues]


def heads(*, view: float, cart: float, purchase: float) -> Scores:
    return make_scores("a")._replace(actions={"view": view, "cart": cart}, purchase=purchase)


def test_value_is_the_sum_of_what_each_action_is_worth():
    weights = GoalWeights(click=2.0, cart=3.0, order=0.5, margin=1.0)
    values = item_values(weights, slate(0.0, math.log(0.5)), heads(view=0.4, cart=0.1, purchase=0.2), SHOP)
    actions = 2.0 * 0.4 + 3.0 * 0.1
    assert values == pytest.approx([actions + 0.2 * 10 * (0.5 + 0.5), 0.5 * (actions + 0.2 * 40 * (0.5 + 0.1))])


def test_without_a_model_the_next_action_is_a_view_and_3_percent_of_sessions_buy():
    (value,) = item_values(GoalWeights(cart=5.0, order=1.0), slate(0.0), None, SHOP)
    assert value == pytest.approx(1.0 + 0.03 * 10)
    headless = make_scores("a")._replace(actions=None, purchase=None)
    assert item_values(GoalWeights(cart=5.0, order=1.0), slate(0.0), headless, SHOP) == [value]


def test_unknown_prices_and_margins_count_as_the_median_of_the_others():
    choices = slate(0.0, 0.0, 0.0, 0.0)
    assert order_values(GoalWeights(order=1.0), choices, SHOP) == [10.0, 40.0, 100.0, 40.0]
    assert order_values(GoalWeights(margin=1.0), choices, SHOP) == [5.0, 4.0, 4.5, 4.5]
    assert order_values(GoalWeights(order=1.0), choices, Catalogue()) == [0.0] * 4


def test_item_that_costs_more_than_it_brings_has_the_value_0():
    shop = make_catalogue(Item(item_id="a", price=100.0, margin=-1.0))
    assert item_values(GoalWeights(margin=1.0), slate(0.0), heads(view=0.5, cart=0.0, purchase=0.9), shop) == [0.0]


@pytest.mark.parametrize(("purchase", "expected"), [(0.001, "ab"), (0.2, "ba")])
def test_money_counts_more_for_a_user_who_is_about_to_buy(purchase: float, expected: str):
    rule = rank_by_goals(Goals(order=1.0), None)
    rerank = rule.bind(heads(view=0.8, cart=0.0, purchase=purchase))
    assert order(rerank(slate(0.0, math.log(0.5)), make_request(), SHOP)) == expected


def test_items_of_equal_value_keep_their_order():
    rerank = rank_by_goals(Goals(order=1.0), None).bind(None)
    assert order(rerank(slate(0.0, 0.0, 0.0), make_request(), Catalogue())) == "abc"


def test_boost_multiplies_the_value():
    rerank = rank_by_goals(Goals(order=0.1), Boost(items={"d": 10.0})).bind(None)
    assert order(rerank(slate(0.0, 0.0, 0.0, math.log(0.5)), make_request(), SHOP)) == "dcba"


def test_variant_has_its_own_weights():
    goals = Goals(order=1.0, variants={"challenger": GoalWeights(), "popular": GoalWeights(margin=1.0)})
    rerank = rank_by_goals(goals, None).bind(heads(view=0.1, cart=0.0, purchase=0.9))
    choices = slate(0.0, math.log(0.9))
    orders = {
        variant: order(rerank(choices, msgspec.structs.replace(make_request(), variant=variant), SHOP))
        for variant in (MODEL, CHALLENGER, CONTROL)
    }
    assert orders == {MODEL: "ba", CHALLENGER: "ab", CONTROL: "ab"}


def test_policy_with_goals_has_one_rule_for_goals_and_boosts():
    rules = make_rerankers(plain(only=Only(relevance=0.1), boost=Boost(fresh=2.0), goals=Goals(order=1.0)))
    assert [rule.name for rule in rules] == ["relevance", "goals"]
    assert make_rerankers(plain(goals=Goals())) == ()
    assert [rule.name for rule in make_rerankers(plain(goals=Goals(variants={"model": GoalWeights(order=1.0)})))] == [
        "goals"
    ]


def test_decision_counts_the_places_that_goals_moved():
    policy = Policy(plain(k=2, goals=Goals(order=1.0)), "bundle", ())
    request, scores = make_request("x"), make_scores("a", "b", "c")
    decision = policy.recommend(request, scores, SHOP)
    assert order(decision.items) == "bc"
    assert decision.moved == {"goals": 2}
    assert [effect.rule for effect in policy.trace(request, scores, SHOP)] == ["goals"] * 3
    assert "goals" in [rule.name for rule in policy.rules]


def fault_of(text: bytes) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policy(HEAD + text, "a.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"goals.cart = 2.0", "goals"),
        (b"goals.click = 0.0", "goals"),
        (b"goals.click = 3.0", "goals"),
        (b"goals.variants.challenger.cart = 1.0", "goals.variants.challenger"),
    ],
)
def test_goals_that_change_no_order_are_refused(text: bytes, path: str):
    assert fault_of(text) == (
        f"the policy a.toml is wrong: {path} changes no order: click and cart have the same probability for every item "
        f"of a page. Set {path}.order or {path}.margin as well, or remove {path}"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            b"goals.shelves.attic.order = 1.0",
            "goals.shelves.attic is for a shelf that has no table in shelves, and is none of for_you, similar, ",
        ),
        (
            b"goals.shelves.sponsored.order = 1.0",
            "goals.shelves.sponsored orders nothing: an auction orders the ads of the shelf. Remove it",
        ),
        (
            b"goals.order = 1.0\ngoals.shelves.similar.order = 1.0",
            "goals.shelves.similar orders the shelf as goals does: remove it",
        ),
        (b"[goals.shelves.similar]", "goals.shelves.similar orders the shelf as goals does: remove it"),
        (b"goals.shelves.similar.cart = 2.0", "goals.shelves.similar changes no order: click and cart have "),
        (
            b"goals.shelves.similar.order = 1.0\ngoals.shelves.similar.variants.popular.cart = 2.0",
            "goals.shelves.similar.variants.popular changes no order: click and cart have ",
        ),
    ],
)
def test_goals_of_a_shelf_that_say_nothing_are_refused(text: bytes, fault: str):
    assert fault_of(text).startswith(f"the policy a.toml is wrong: {fault}")


def test_shelf_has_its_own_weights():
    goals = Goals(
        order=1.0,
        shelves={
            "similar": VariantGoals(),
            "corner": VariantGoals(margin=1.0, variants={"popular": GoalWeights(order=2.0)}),
        },
    )
    policy = plain(shelves={"corner": ShelfTable(job="for_you")}, goals=goals)
    plans = {name: make_shelf_plan(policy, name, PolicySettings()) for name in ("for_you", "similar", "corner")}
    rules = {name: plan.rules for name, plan in plans.items() if plan}
    assert {name: rule.goals for name, rule in rules.items()} == {
        "for_you": Goals(order=1.0),
        "similar": Goals(),
        "corner": Goals(margin=1.0, variants={"popular": GoalWeights(order=2.0)}),
    }
    assert {name: len(make_rerankers(rule)) for name, rule in rules.items()} == {
        "for_you": 1,
        "similar": 0,
        "corner": 1,
    }
    assert {plan.label for plan in plans.values() if plan} == {policy.label}


def test_goals_of_a_shelf_leave_a_plain_list_as_it_is():
    policy = plain(goals=Goals(shelves={"similar": VariantGoals(order=1.0)}))
    assert make_rerankers(policy) == ()
    assert policy.goals.counts_money
    assert not Goals(shelves={"similar": VariantGoals()}).counts_money


def test_goals_of_a_shelf_are_said_in_words():
    text = b"""
[goals.shelves.similar]
order = 1.0
click = 0.0
[goals.shelves.similar.variants.popular]
"""
    policy = parse_policy(HEAD + text, "a")
    default = msgspec.structs.replace(DEFAULT_POLICY, version=policy.version, owner=policy.owner)
    assert diff_policies(default, policy) == [
        "goals.shelves.similar: Nothing. -> On the shelf similar, items are ordered by expected value: an order is "
        "worth 1 times its price.",
        "goals.shelves.similar.variants.popular: Nothing. -> On the shelf similar, for users of the variant popular, "
        "items are ordered by relevance alone.",
    ]
    assert policy.hash != default.hash


def test_unknown_variant_is_refused():
    assert "must be one of challenger, model, popular, not 'fallback'" in fault_of(
        b"goals.variants.fallback.order = 1.0"
    )


def test_goals_are_said_in_words():
    text = b"""
[goals]
cart = 2.0
order = 0.5
margin = 1.0
[goals.variants.popular]
[goals.variants.challenger]
click = 0.0
order = 1.0
"""
    policy = parse_policy(HEAD + text, "a")
    sentences = explain_policy(policy)
    assert (
        "Items are ordered by expected value: a click is worth 1, an item put into the cart is worth 2, an order is "
        "worth 0.5 times its price, its margin is worth 1 times the money that the shop earns." in sentences
    )
    assert (
        "For users of the variant challenger, items are ordered by expected value: an order is worth 1 times its price."
        in sentences
    )
    assert "For users of the variant popular, items are ordered by relevance alone." in sentences
    assert not any("expected value:" in sentence for sentence in explain_policy(DEFAULT_POLICY))
    changed = msgspec.structs.replace(DEFAULT_POLICY, goals=Goals(order=0.5))
    assert diff_policies(DEFAULT_POLICY, changed) == [
        "goals: Nothing. -> Items are ordered by expected value: a click is worth 1, an order is worth 0.5 times its "
        "price."
    ]
    assert policy.hash != DEFAULT_POLICY.hash
