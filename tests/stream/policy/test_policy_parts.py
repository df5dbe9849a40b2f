"""Policy parts: each part of a policy can be taken out, and the rest is a policy."""

import pytest

from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.policy.goal_policy import Goals
from clickscore.stream.policy.policy_file import (
    DEFAULT_POLICY,
    SHIPPED_POLICIES,
    Boost,
    Hide,
    Limit,
    Pin,
    PriceBand,
    load_policy,
)
from clickscore.stream.policy.policy_parts import policies_without_a_part
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelf_policy import Pages, ShelfTable
from tests.scored_requests import plain


def rules_of(policy: object) -> set[str]:
    return {rule.name for rule in Policy(policy, "bundle", ()).rules}  # pyright: ignore[reportArgumentType]


def test_each_part_of_the_default_policy_is_taken_out_in_turn():
    parts = dict(policies_without_a_part(DEFAULT_POLICY))
    assert set(parts) == {
        "hide.out_of_stock",
        "hide.bought",
        "hide.on_screen",
        "hide.in_cart",
        "hide.unavailable",
        "limit.reminders",
        "ads",
    }
    for name, reduced in parts.items():
        assert rules_of(DEFAULT_POLICY) - rules_of(reduced) == ({name.split(".")[1]} if "." in name else set())


def test_policy_without_all_parts_has_no_rule_but_hidden_items():
    policy = DEFAULT_POLICY
    while parts := dict(policies_without_a_part(policy)):
        policy = next(iter(parts.values()))
    assert rules_of(policy) == {"hidden"}


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_each_part_of_a_shipped_policy_can_be_taken_out(name: str):
    policy = load_policy(name)
    assert ("ads" in dict(policies_without_a_part(policy))) == policy.ads.shown


def test_shelves_for_ads_go_with_the_ads():
    policy = plain(
        pages=Pages(view=("paid", "for_you", "similar"), search=("for_you", "sponsored")),
        shelves={"paid": ShelfTable(job="sponsored"), "similar": ShelfTable(size=3)},
    )
    reduced = dict(policies_without_a_part(policy))["ads"]
    assert not reduced.ads.shown
    assert reduced.pages == Pages(view=("for_you", "similar"), search=("for_you",))
    assert reduced.shelves == {"similar": ShelfTable(size=3)}


def test_parts_that_belong_together_go_together():
    policy = plain(
        hide=Hide(bought_again=("Tea",)),
        boost=Boost(fresh=2.0, fresh_days=3),
        price_band=PriceBand(lowest=0.5),
        limit=Limit(reminders=1_000, category=2),
        goals=Goals(order=1.0),
        diversity=0.1,
        pin=(Pin(place=1, item="a"),),
        ads=Ads(shown=False),
    )
    parts = dict(policies_without_a_part(policy))
    assert parts["hide.bought"].hide.bought_again == ()
    assert "boost.fresh_days" not in parts
    assert list(parts)[-6:] == ["limit.category", "boost.fresh", "price_band", "goals", "diversity", "pin"]
