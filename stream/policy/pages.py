"""Pages: the recommendation and the ads of a request, with sponsored items among the recommended ones."""

from collections.abc import Iterator

import msgspec

from clickscore.schemas.decisions import Ad
from clickscore.stream.policy.ads import choose_ads
from clickscore.stream.policy.experiments import CONTROL
from clickscore.stream.policy.recommend import EncodedRecommendation, Policy, encode_recommendation
from clickscore.stream.policy.rule_trace import RuleEffect
from clickscore.stream.policy.shelves import fill_page
from clickscore.stream.policy.sponsored import place_ads
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores


def decide_page(
    policy: Policy, request: Request, scores: Scores | None, catalogue: AnyCatalogue
) -> tuple[EncodedRecommendation, Ad | None]:
    """Return the recommendation and, with campaigns, the ads.

    The control variant of the A/B test gets popular items, but its ads are chosen as for all other users.

    Args:
        policy: Rules of items and ads.
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: Items and campaigns in the epoch of the request.
    """
    shelves = policy.find_shelves(request.event)
    if shelves:
        page = fill_page(shelves, request, scores, catalogue)
        return encode_recommendation(page.decision), page.ad
    item_scores = scores if request.variant != CONTROL else None
    if not (catalogue.has_campaigns and policy.shows_ads):
        return policy.encoded(request, item_scores, catalogue), None
    if not policy.ad_plan.is_in_list:
        return policy.encoded(request, item_scores, catalogue), choose_ads(request, scores, catalogue, policy)
    decision = policy.recommend(request, item_scores, catalogue)
    ad = choose_ads(request, scores, catalogue, policy, decision.items)
    items = place_ads(decision.items, ad.slots, policy.ad_plan.size)
    return encode_recommendation(msgspec.structs.replace(decision, items=items)), ad


def trace_page(
    policy: Policy, request: Request, scores: Scores | None, catalogue: AnyCatalogue
) -> Iterator[tuple[str, Policy, list[RuleEffect]]]:
    """Yield what the rules did on each shelf of a page, with the shelf's name and policy; no name for a plain list.

    Args:
        policy: Rules of items and ads.
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: Items and campaigns in the epoch of the request.
    """
    item_scores = scores if request.variant != CONTROL else None
    shelves = policy.find_shelves(request.event)
    if not shelves:
        yield "", policy, policy.trace(request, item_scores, catalogue)
        return
    for plan, shelf_policy, shelf_request in fill_page(shelves, request, scores, catalogue).requests:
        yield plan.name, shelf_policy, shelf_policy.trace(shelf_request, item_scores, catalogue)
