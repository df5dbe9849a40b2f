"""Ads: choose the campaign to show to a user, if any."""

import msgspec

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.clients import CLIENT_FIELDS, REASON_FIELDS
from clickscore.schemas.decisions import Ad, round_score
from clickscore.schemas.events import Impression, ItemEvent
from clickscore.schemas.purposes import ADS, WITHHELD
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores


def is_running(campaign: Campaign, ts: int) -> bool:
    """Return whether a campaign runs at an event time (ms): from the start, up to but not including the end."""
    return campaign.starts_at <= ts and (campaign.ends_at is None or ts < campaign.ends_at)


def expected_value(campaign: Campaign, purchase: float | None) -> float:
    """Return the expected value of an ad: bid times purchase probability, or the bid alone without a model."""
    return campaign.bid * (1.0 if purchase is None else purchase)


def choose_ad(request: Request, scores: Scores | None, catalogue: AnyCatalogue, policy: Policy) -> Ad:
    """Return the decision on an ad: the most valuable running campaign with a matching target and an allowed item.

    The decision ignores budgets, frequency caps and the price to pay. Without consent to ads by behaviour it follows
    from the current item alone: no earlier item, no purchase and no probability of the model counts.

    Args:
        request: The event, with the user's session.
        scores: The model's output, for the purchase probability; absent where no model scores the request.
        catalogue: The campaigns, and the state of their items.
        policy: Filters, and the lowest expected value of a shown ad.
    """
    event = request.event
    target = "match"
    if request.withheld & ADS:
        request, scores, target = without_behaviour(request), None, "match the current item"
    purchase = scores.purchase if scores is not None else None
    forbidden = policy.forbidden(request, catalogue)
    matching = catalogue.matching(request.items)
    eligible = [
        campaign
        for campaign in matching
        if is_running(campaign, event.ts) and not any(campaign.item_id in items for _, items in forbidden)
    ]
    best = min(eligible, key=lambda campaign: (-expected_value(campaign, purchase), campaign.campaign_id), default=None)
    reason = f"most valuable of {len(eligible)} that {target}"
    if best is None:
        reason = "no campaign matches" if not matching else "no campaign that matches may be shown"
    elif expected_value(best, purchase) < policy.reserve:
        best, reason = None, "no campaign that matches reaches the reserve"
    return Ad(
        decision_id=f"{request.decision_id}-ad",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=policy.bundle if scores is not None else None,
        policy=policy.label,
        variant=request.variant,
        session_id=request.session_id,
        campaign_id=best.campaign_id if best else None,
        item_id=best.item_id if best else None,
        bid=round_score(best.bid) if best else None,
        purchase=purchase,
        propensity=1.0,
        reason=reason,
        withheld=WITHHELD[request.withheld],
        client=CLIENT_FIELDS[request.client],
        client_reason=REASON_FIELDS[request.client],
    )


def without_behaviour(request: Request) -> Request:
    """Return a request with the current item as the whole history; an impression is no action, and leaves none."""
    event = request.event
    item = event.item_id if isinstance(event, ItemEvent) and not isinstance(event, Impression) else ""
    return msgspec.structs.replace(request, items=[item], actions=request.actions[-1:], bought=frozenset())
