"""Policy cost: CPU time of a decision with rules, reasons and ads: `python -m bench.policy_cost`.

The sides run in turn on the same requests, and the best of many repeats of each micro-batch counts, so that other work
on the machine does not. The scores are given: the model's time is not part of it.
"""

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import click
import msgspec
import numpy as np

from bench.environment import Environment
from bench.former_policy import POLICY_0_1_0
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import SCORE_DECIMALS, encode_decision
from clickscore.schemas.events import View
from clickscore.stream.deciders import Decider
from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Boost, Limit, PolicyFile, load_policy
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import CatalogueHistory, CatalogueView
from clickscore.stream.request import Reasons, Request, Scores, rank_events
from clickscore.stream.scoring.scorer import RANKED
from clickscore.stream.settings import PolicySettings

ITEMS = 50_000
CANDIDATES = 64
SESSION_EVENTS = 10
REQUESTS = 1_000
CAMPAIGNS = 50
START_MS = 1_767_603_600_000
BATCH = 64
"""Requests of a micro-batch."""
GOAL_US = 30
"""Goal for the default policy with reasons and ads, microseconds a decision."""


class Case(NamedTuple):
    """A request with the scores of the model; None for a decision by popularity."""

    request: Request
    scores: Scores | None


def make_cases(*, scored: bool) -> list[Case]:
    """Return requests of random sessions, each with 64 candidates of which some are in the session."""
    rng = np.random.default_rng(0)
    items = [f"item-{row}" for row in range(ITEMS)]
    row_of = {item: row for row, item in enumerate(items)}
    lengths = np.array([SESSION_EVENTS])
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
        contributions = rng.random((CANDIDATES, SESSION_EVENTS)).astype(np.float32)
        values = np.sort(rng.random(CANDIDATES).round(SCORE_DECIMALS))[::-1].tolist()
        ranked = rank_events(contributions[None, :RANKED], lengths)[0]
        reasons = Reasons(contributions, range(SESSION_EVENTS), ranked)
        scores = Scores(rows, values, {"view": 1.0}, 0.1, items, reasons, row_of)
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


def decide_all(policy: Policy, cases: Sequence[Case], catalogue: CatalogueView) -> None:
    """Decide on the requests of a micro-batch, as a worker does."""
    decider = Decider(None, policy)
    contributions = [scores.reasons.contributions for _, scores in cases if scores and scores.reasons]
    if contributions:  # a scorer ranks the events of a micro-batch at once
        rank_events(np.stack(contributions)[:, :RANKED], np.full(len(contributions), SESSION_EVENTS))
    for request, scores in cases:
        _, ad = decider.decide(request, scores, catalogue)
        if ad is not None:
            encode_decision(ad)


def measure(sides: Sequence[Policy], cases: Sequence[Case], catalogue: CatalogueView, repeats: int) -> list[float]:
    """Return the CPU time of a decision by each policy, microseconds: the best of the repeats for each micro-batch.

    Args:
        sides: The policies, which decide in turn.
        cases: Requests with scores.
        catalogue: Items and campaigns.
        repeats: Number of runs of each side.
    """
    batches = [cases[start : start + BATCH] for start in range(0, len(cases), BATCH)]
    best = [[math.inf] * len(batches) for _ in sides]
    for _ in range(repeats):
        for policy, times in zip(sides, best, strict=True):
            for number, batch in enumerate(batches):
                started_at = time.process_time()
                decide_all(policy, batch, catalogue)
                times[number] = min(times[number], time.process_time() - started_at)
    return [sum(times) * 1e6 / len(cases) for times in best]


def decision(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure the CPU time of a decision by the default policy, with reasons and ads."""
    catalogue, cases = make_catalogue(), make_cases(scored=True)
    sides = [make_policy(DEFAULT_POLICY, reasons=3), make_policy(load_policy("no-ads"), reasons=0)]
    environment.idle_check.wait()
    runs = [measure(sides, cases, catalogue, budget.decision_repeats) for _ in range(budget.rounds)]
    row = Row(
        title=f"CPU of a decision with 3 reasons an item and an ad, {CANDIDATES} candidates to 10 items",
        values=tuple(full for full, _ in runs),
        digits=".0f",
        unit=" us",
        goal=GOAL_US,
        at_least=False,
        beside=f"{median(plain for _, plain in runs):.0f} us without reasons and ads",
    )
    return Measurement([row], runs)


def make_policy(policy_file: PolicyFile, reasons: int) -> Policy:
    """Return a policy for a bundle that knows all items.

    Args:
        policy_file: The policy.
        reasons: Number of reasons for an item.
    """
    return Policy(policy_file, "bundle", (), PolicySettings(reasons=reasons))


@click.command()
@click.option("--repeats", type=click.IntRange(min=3), default=30, show_default=True, help="Runs of each side.")
def main(repeats: int) -> None:
    """Print the time of a decision by each policy, and its ratio to the policy of 0.1.0."""
    catalogue = make_catalogue()
    print("| decision | policy | us, best | against 0.1.0 |\n|---|---|---|---|")
    for name, is_scored, has_ads, max_reasons in (
        ("64 candidates to 10 items", True, False, 0),
        ("64 candidates to 10 items, 3 reasons each, and an ad", True, True, 3),
        ("10 popular items", False, False, 0),
    ):
        cases = make_cases(scored=is_scored)
        files = [msgspec.structs.replace(file, ads=Ads(shown=has_ads)) for file in policies().values()]
        times = measure([make_policy(file, max_reasons) for file in files], cases, catalogue, repeats)
        for policy_name, own in zip(policies(), times, strict=True):
            print(f"| {name} | {policy_name} | {own:.1f} | {own / times[0]:.2f} |")


if __name__ == "__main__":
    main()
