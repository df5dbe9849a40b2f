"""Policy cost: CPU time of a decision with rules, reasons and ads: `python -m bench.policy_cost`.

The sides run in turn on the same requests, and the best of many repeats counts, so that other work on the machine does
not. The scores are given: the model's time is not part of it.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import click
import msgspec
import numpy as np

from bench.former_policy import POLICY_0_1_0
from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import encode_decision
from clickscore.schemas.events import View
from clickscore.stream.policy.ads import choose_ads
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Boost, Limit, PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import CatalogueHistory, CatalogueView
from clickscore.stream.request import Reasons, Request, Scores
from clickscore.stream.settings import PolicySettings

ITEMS = 50_000
CANDIDATES = 64
SESSION_EVENTS = 10
REQUESTS = 1_000
CAMPAIGNS = 50
START_MS = 1_767_603_600_000
GOAL_US = 30
"""Limit of issue and design for the default policy with reasons and ads, microseconds a decision."""


class Case(NamedTuple):
    """A request with the scores of the model; None for a decision by popularity."""

    request: Request
    scores: Scores | None


def make_cases(*, scored: bool) -> list[Case]:
    """Return requests of random sessions, each with 64 candidates of which some are in the session."""
    rng = np.random.default_rng(0)
    items = [f"item-{row}" for row in range(ITEMS)]
    popular = [f"item-{row}" for row in range(0, 200, 2)]
    cases: list[Case] = []
    for number in range(REQUESTS):
        session = [items[row] for row in rng.integers(0, ITEMS, SESSION_EVENTS)]
        rows = rng.integers(0, ITEMS, CANDIDATES).tolist()
        rows[:2] = [int(session[-1][5:]), int(session[-2][5:])]  # the model likes what the user just saw
        event = View(event_id=f"event-{number}", user_id=f"user-{number}", ts=START_MS, item_id=session[-1])
        request = Request(
            decision_id=f"clickstream-events-0-{number}",
            event=event,
            session_id="session",
            session_length=SESSION_EVENTS,
            items=session,
            actions=bytes([1] * (SESSION_EVENTS - 2) + [2, 1]),
            bought=frozenset(items[row] for row in rng.integers(0, ITEMS, 3)),
            variant="model",
            late=False,
            popular=popular,
        )
        reasons = Reasons(rng.random((CANDIDATES, SESSION_EVENTS)), range(SESSION_EVENTS))
        scores = Scores(rows, sorted(rng.random(CANDIDATES).tolist(), reverse=True), {"view": 1.0}, 0.1, items, reasons)
        cases.append(Case(request, scores if scored else None))
    return cases


def make_catalogue() -> CatalogueView:
    """Return a catalogue with details, and campaigns that target categories."""
    rng = np.random.default_rng(1)
    catalogue = Catalogue()
    for row in range(ITEMS):
        item = Item(
            item_id=f"item-{row}",
            category=f"category-{row % 100}",
            brand=f"brand-{row % 500}",
            price=float(row % 97),
            stock=int(rng.integers(0, 50)),
        )
        catalogue.update_item(item.item_id.encode(), encode(item))
    for number in range(CAMPAIGNS):
        campaign = Campaign(
            campaign_id=f"campaign-{number}",
            item_id=f"item-{number}",
            bid=1.0 + number / CAMPAIGNS,
            target_categories=frozenset(f"category-{(number * 7 + step) % 100}" for step in range(3)),
        )
        catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    history = CatalogueHistory(catalogue)
    return history.view(history.position)


def policies() -> dict[str, PolicyFile]:
    """Return the compared policies by name; the first is the policy of 0.1.0."""
    boosts = Boost(categories={"category-1": 2.0}, promoted=1.5, margin=2.0)
    return {
        "bought, out of stock and hidden items alone (0.1.0)": POLICY_0_1_0,
        "default": DEFAULT_POLICY,
        "default, at most 3 items of a category": msgspec.structs.replace(DEFAULT_POLICY, limit=Limit(category=3)),
        "default with boosts": msgspec.structs.replace(DEFAULT_POLICY, boost=boosts),
    }


def decide_all(policy: Policy, cases: Sequence[Case], catalogue: CatalogueView, *, with_ads: bool) -> None:
    """Decide on every request, as a worker does."""
    for request, scores in cases:
        policy.encoded(request, scores, catalogue)
        if with_ads:
            encode_decision(choose_ads(request, scores, catalogue, policy))


def measure(sides: Sequence[Callable[[], None]], repeats: int) -> list[list[float]]:
    """Return the times of each side, microseconds a decision; the sides run in turn."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for number, side in enumerate(sides):
            started_at = time.process_time()
            side()
            times[number].append((time.process_time() - started_at) * 1e6 / REQUESTS)
    return times


@click.command()
@click.option("--repeats", type=click.IntRange(min=3), default=30, show_default=True, help="Runs of each side.")
def main(repeats: int) -> None:
    """Print the time of a decision by each policy, and its ratio to the policy of 0.1.0."""
    catalogue = make_catalogue()
    print("| decision | policy | us, best | against 0.1.0, median |\n|---|---|---|---|")
    for name, is_scored, with_ads, max_reasons in (
        ("64 candidates to 10 items", True, False, 0),
        ("64 candidates to 10 items, 3 reasons each, and an ad", True, True, 3),
        ("10 popular items", False, False, 0),
    ):
        cases = make_cases(scored=is_scored)
        made = [Policy(file, "bundle", (), PolicySettings(reasons=max_reasons)) for file in policies().values()]
        sides = [partial(decide_all, policy, cases, catalogue, with_ads=with_ads) for policy in made]
        times = measure(sides, repeats)
        for policy_name, own in zip(policies(), times, strict=True):
            ratio = median(cost / base_cost for cost, base_cost in zip(own, times[0], strict=True))
            print(f"| {name} | {policy_name} | {min(own):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
