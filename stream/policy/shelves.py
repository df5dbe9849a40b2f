"""Shelves: fill the shelves of a page from top to bottom, so that no item is twice on the page.

The main shelf comes first: it is the first shelf of the page that has another job than `sponsored`. Ads beside the list
are chosen before it, so they are the same with or without shelves, and no shelf repeats their items. Where ads are also
within the list, they need the list: then it is made first, and its items take no ad slot beside it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.decisions import Ad, Choice, Recommendation, Shelf
from clickscore.stream.policy.ads import choose_ads
from clickscore.stream.policy.experiments import CONTROL
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelf_plan import ShelfPlan
from clickscore.stream.policy.sponsored import make_sponsored, place_ads
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores


class FilledPage(NamedTuple):
    """A decided page with shelves."""

    decision: Recommendation
    ad: Ad | None
    """Ads of the page; None without campaigns."""
    requests: list[tuple[ShelfPlan, Policy, Request]]
    """Plan, policy and request of each shelf that rules ran for, in the order of their runs."""


def fill_page(
    shelves: Sequence[tuple[ShelfPlan, Policy]], request: Request, scores: Scores | None, catalogue: AnyCatalogue
) -> FilledPage:
    """Return the decision on a page with shelves.

    Args:
        shelves: Plan and policy of each shelf, from top to bottom, the main shelf among them.
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: Items and campaigns in the epoch of the request.
    """
    item_scores = scores if request.variant != CONTROL else None
    plan, main = main_shelf(shelves)
    has_ads = catalogue.has_campaigns and main.shows_ads
    ad = None
    if has_ads and not main.ad_plan.is_in_list:
        ad = choose_ads(request, scores, catalogue, main)
        request = _with_shown(request, (slot.item_id for slot in ad.slots))
    requests = [(plan, main, request)]
    decision = main.recommend(request, item_scores, catalogue)
    if has_ads and ad is None:
        ad = choose_ads(request, scores, catalogue, main, decision.items, on_page=_ids(decision.items))
        decision = msgspec.structs.replace(decision, items=place_ads(decision.items, ad.slots, main.ad_plan.size))
        request = _with_shown(request, (slot.item_id for slot in ad.slots))
    request = _with_shown(request, _ids(decision.items))
    filled: list[Shelf] = []
    for other, policy in shelves:
        if other is plan:
            continue
        if other.job == "sponsored":
            filled.append(Shelf(name=other.name, job=other.job, items=_ads_beside(ad)))
            continue
        requests.append((other, policy, request))
        items, filtered, moved = _fill_shelf(policy, request, item_scores, catalogue)
        filled.append(Shelf(name=other.name, job=other.job, items=items, filtered=filtered, moved=moved))
        request = _with_shown(request, _ids(items))
    return FilledPage(msgspec.structs.replace(decision, shelf=plan.name, shelves=tuple(filled)), ad, requests)


def main_shelf(shelves: Sequence[tuple[ShelfPlan, Policy]]) -> tuple[ShelfPlan, Policy]:
    """Return plan and policy of the main shelf: the first one of another job than `sponsored`."""
    return next(shelf for shelf in shelves if shelf[0].job != "sponsored")


def main_policy(policy: Policy, request: Request) -> Policy:
    """Return the policy of the main shelf of a request's page; of a plain list its own.

    Args:
        policy: Policy of the page.
        request: The event, with the user's session.
    """
    shelves = policy.find_shelves(request.event)
    return main_shelf(shelves)[1] if shelves else policy


def _fill_shelf(
    policy: Policy, request: Request, scores: Scores | None, catalogue: AnyCatalogue
) -> tuple[tuple[Choice, ...], dict[str, int], dict[str, int]]:
    decision = policy.recommend(request, scores, catalogue)
    return decision.items, decision.filtered, decision.moved or {}


def _ads_beside(ad: Ad | None) -> tuple[Choice, ...]:
    """Return the ads beside the list as marked items."""
    return tuple(make_sponsored(slot, 0.0) for slot in ad.slots if slot.position is None) if ad else ()


def _ids(items: Iterable[Choice]) -> list[str]:
    return [choice.item_id for choice in items]


def _with_shown(request: Request, items: Iterable[str]) -> Request:
    return msgspec.structs.replace(request, shown=request.shown.union(items))
