"""Decision arms: the ways to decide in the comparison of `make bench-decisions`."""

import msgspec
import numpy as np

from bench.closed_loop import Arm
from bench.former_policy import POLICY_0_1_0
from clickscore.schemas.catalogue import Campaign, Item
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.policy.goal_policy import Goals, VariantGoals
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Limit, PolicyFile, load_policy
from clickscore.stream.policy.policy_parts import policies_without_a_part
from clickscore.stream.policy.shelf_policy import Pages

CAMPAIGNS = 200
"""Number of campaigns: eight for each category of the shop, for a contest on every page."""

DEFAULT, POPULAR, ORACLE = "default", "popular items", "oracle of the tastes"


def rule_arms() -> dict[str, Arm]:
    """Return the default policy, peers, and the default policy without each rule, by name."""
    arms = {
        DEFAULT: Arm(policy_file=DEFAULT_POLICY),
        POPULAR: Arm(policy_file=DEFAULT_POLICY, has_model=False),
        ORACLE: Arm(policy_file=DEFAULT_POLICY, is_oracle=True),
        "rules of 0.1.0": Arm(policy_file=POLICY_0_1_0),
    }
    for name, policy_file in policies_without_a_part(DEFAULT_POLICY):
        if name not in UNMEASURED:
            arms[f"without `{name}`"] = Arm(policy_file=policy_file)
    for reminders in (0, 1):
        arms[f"with `limit.reminders = {reminders}`"] = Arm(policy_file=with_limit(Limit(reminders=reminders)))
    return arms


UNMEASURED = ("ads", "hide.unavailable")
"""Parts of the default policy without an effect in this shop: no campaign here, and sales everywhere."""

SHELVES = "shelves"
"""The shipped policy with shelves."""
EMPTY_SHELVES = ("sponsored", "complement", "buy_again")
"""Shelves that are empty in these shops: no campaign, and few purchases in so short a time."""


def shelf_arms() -> dict[str, Arm]:
    """Return the shipped policy with shelves, without each shelf in turn, and with money on a shelf, by name."""
    policy = load_policy(SHELVES)
    arms = {SHELVES: policy}
    pages = msgspec.structs.asdict(policy.pages)
    shown = dict.fromkeys(name for names in pages.values() for name in names[1:])  # the first is the main shelf
    for shelf in shown:
        if shelf not in EMPTY_SHELVES:
            fewer = Pages(**{event: tuple(name for name in names if name != shelf) for event, names in pages.items()})
            arms[f"without the shelf `{shelf}`"] = msgspec.structs.replace(policy, pages=fewer)
    money = Goals(shelves={"similar": VariantGoals(order=0.2)})
    arms["with `goals.shelves.similar.order = 0.2`"] = msgspec.structs.replace(policy, goals=money)
    return {name: Arm(policy_file=arm) for name, arm in arms.items()}


def diversity_arms() -> dict[str, Arm]:
    """Return the default policy with diversity, by name."""
    return {
        f"`diversity = {strength:g}`": Arm(policy_file=msgspec.structs.replace(DEFAULT_POLICY, diversity=strength))
        for strength in (0.1, 0.2, 0.3, 0.5)
    }


def with_limit(limit: Limit) -> PolicyFile:
    """Return the default policy with another limit."""
    return msgspec.structs.replace(DEFAULT_POLICY, limit=limit)


def goal_arms() -> dict[str, Arm]:
    """Return the default policy with goals, from relevance alone to money alone, by name."""
    goals: dict[str, Goals] = {}
    for weight in (0.05, 0.2, 1.0):
        goals[f"click 1, order {weight:g}"] = Goals(order=weight)
    for weight in (0.05, 0.2, 1.0):
        goals[f"click 1, margin {weight:g}"] = Goals(margin=weight)
    goals |= {"order alone": Goals(click=0.0, order=1.0), "margin alone": Goals(click=0.0, margin=1.0)}
    return {name: Arm(policy_file=msgspec.structs.replace(DEFAULT_POLICY, goals=goal)) for name, goal in goals.items()}


def ad_arms(items: tuple[Item, ...]) -> dict[str, Arm]:
    """Return the default policy with ads within the list, by name."""
    campaigns = make_campaigns(items)
    loads = {
        f"{slots} of 10 places, floor {relevance:g}": AdPlacement(
            exposure=(1.0,) * slots, places=places[:slots], relevance=relevance
        )
        for slots, relevance in ((1, 0.0), (2, 0.0), (3, 0.0), (3, 0.5))
        for places in ((2, 5, 8),)
    }
    return {
        name: Arm(
            policy_file=msgspec.structs.replace(DEFAULT_POLICY, ads=Ads(placements={"list": placement})),
            campaigns=campaigns,
        )
        for name, placement in loads.items()
    }


def make_campaigns(items: tuple[Item, ...]) -> tuple[Campaign, ...]:
    """Return campaigns for random items; each targets the pages of the item's category."""
    rng = np.random.default_rng(5)
    rows = rng.choice(len(items), CAMPAIGNS, replace=False).tolist()
    return tuple(
        Campaign(
            campaign_id=f"campaign-{number:03d}",
            item_id=items[row].item_id,
            bid=round(float(rng.uniform(0.2, 1.5)), 2),
            target_categories=frozenset({items[row].category}),
        )
        for number, row in enumerate(rows)
    )
