"""Ads: the campaigns that may be shown to a user, and the auction of the slots of each placement."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence
from itertools import islice
from math import exp
from operator import attrgetter
from typing import get_args

import msgspec

from clickscore.schemas.ad_impressions import AD_IMPRESSION_BYTES, MAX_AD_IMPRESSIONS, campaign_hash
from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.clients import CLIENT_FIELDS, FIRST_MACHINE, REASON_FIELDS
from clickscore.schemas.decisions import Ad, BidUnit, Choice, ExclusionCause, SoldSlot, round_score
from clickscore.schemas.events import Impression, ItemEvent, Search
from clickscore.schemas.open_decisions import PURCHASE_WINDOW_MS
from clickscore.schemas.purposes import ADS, PERSONALISATION, WITHHELD
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.policy.ad_plan import AdPlan
from clickscore.stream.policy.auction import BESIDE, Bidder, Sale, make_bidder, rank, sell
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.session_probabilities import click_probability, purchase_probability
from clickscore.stream.policy.sponsored import make_admission
from clickscore.stream.reference.campaigns import PageContext
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores

_NO_WORDS: frozenset[str] = frozenset()
_CAUSES = get_args(ExclusionCause)

Quality = Callable[[str], float]
"""Returns the quality of an item for a request, 0 to 1."""


def is_running(campaign: Campaign, ts: int) -> bool:
    """Return whether a campaign runs at an event time (ms): from the start, up to but not including the end."""
    return campaign.starts_at <= ts and (campaign.ends_at is None or ts < campaign.ends_at)


def payment_probability(campaign: Campaign, scores: Scores | None, share: float, factor: float = 1.0) -> float:
    """Return the probability that an impression brings what the advertiser pays for.

    The model says how likely the user opens any item next, and buys anything in this session. The ad gets a share.

    Args:
        campaign: The campaign.
        scores: The model's output; absent where no model scores the request.
        share: Share of the next views and of the purchases that an ad gets.
        factor: Factor on the probability of a click, as learned from outcomes.
    """
    if campaign.bid_per == "thousand_impressions":
        return 1.0
    if campaign.bid_per == "order":
        return round_score(share * purchase_probability(scores))
    return round_score(min(1.0, factor * share * click_probability(scores)))


def item_quality(scores: Scores | None, weight: float) -> Quality:
    """Return a function from an item to its quality: the relevance exp(score - best score) to the power of `weight`.

    An item that is not among the model's candidates has the relevance of the last of them. Without a model every item
    has quality 1. The weight makes relevance count less than the bid, or not at all (Lahaie and Pennock, Revenue
    analysis of a family of ranking rules for keyword auctions, EC 2007).

    Args:
        scores: The model's output.
        weight: Exponent of relevance, 0 to 1.
    """
    if scores is None or not scores.scores or not weight:
        return lambda _: 1.0
    best, score_of = scores.scores[0], scores.score_of
    lowest = round_score(exp(weight * (scores.scores[-1] - best)))

    def quality(item: str) -> float:
        score = score_of(item)
        return lowest if score is None else round_score(exp(weight * (score - best)))

    return quality


def make_page(request: Request) -> PageContext:
    """Return what campaigns may target; without consent to ads nobody is in a customer group."""
    event = request.event
    return PageContext(
        request.items,
        frozenset(event.query.casefold().split()) if isinstance(event, Search) else _NO_WORDS,
        event.region or None,
        (event.customer_group or None) if not request.withheld & ADS else None,
    )


def without_behaviour(request: Request) -> Request:
    """Return a request with the current item as the whole history; an impression is no action, and leaves none."""
    event = request.event
    item = event.item_id if isinstance(event, ItemEvent) and not isinstance(event, Impression) else ""
    return msgspec.structs.replace(request, items=[item], actions=request.actions[-1:], bought=frozenset())


def cap_rule(request: Request) -> Callable[[Campaign], bool]:
    """Return a function that says whether a user has seen a campaign as often as its cap allows.

    Without consent nothing is counted, so no campaign with a cap may be shown; nor may it once the counts are full.
    """
    impressions = request.ad_impressions
    if not may_count(request) or len(impressions) >= MAX_AD_IMPRESSIONS * AD_IMPRESSION_BYTES:
        return lambda campaign: campaign.frequency_cap is not None
    starts = range(0, len(impressions), AD_IMPRESSION_BYTES)
    counts = Counter(impressions[start : start + AD_IMPRESSION_BYTES // 2] for start in starts)

    def is_capped(campaign: Campaign) -> bool:
        cap = campaign.frequency_cap
        return cap is not None and bool(counts) and counts[campaign_hash(campaign.campaign_id)] >= cap

    return is_capped


def may_count(request: Request) -> bool:
    """Return whether the ads that the user sees may be counted."""
    return not request.withheld & (ADS | PERSONALISATION)


def count_allowed(request: Request, plan: AdPlan) -> int | None:
    """Return the number of ads that the page may have, by the limits of the page and of the session; None for any."""
    if plan.per_session is None:
        return plan.per_page
    remaining = max(0, plan.per_session - request.session_ads) if may_count(request) else 0
    return remaining if plan.per_page is None else min(remaining, plan.per_page)


class PageAuction:
    """The auctions of a page."""

    def __init__(self, request: Request, scores: Scores | None, catalogue: AnyCatalogue, policy: Policy) -> None:
        """Find the campaigns that may be shown.

        Args:
            request: The event, with the user's session.
            scores: The model's output; absent where no model may count.
            catalogue: The campaigns, and the state of their items.
            policy: Filters, placements and limits.
        """
        self._request = request
        self._scores = scores
        self._plan = policy.ad_plan
        self.matching = sorted(catalogue.matching(make_page(request)), key=attrgetter("campaign_id"))
        """Campaigns that match the page, by id: the catalogue lists them in an order that depends on the process."""
        self._quality = item_quality(scores if self.matching else None, self._plan.quality_weight)
        self.excluded: list[tuple[Campaign, ExclusionCause]] = []
        """Matching campaigns that may not be shown, each with the first cause."""
        self.budgets: dict[str, float | None] = {}
        """Factor on the bid of each campaign with a budget that could take part; None where no lease lets it spend."""
        self.click_factors: dict[str, float] = {}
        """Factor on the click probability of each bidder that bids for clicks; empty before any is learned."""
        self.bidders = rank(self._enter(policy.forbidden(request, catalogue))) if self.matching else []
        """Campaigns that may be shown, the best first."""
        self.allowed = count_allowed(request, self._plan)
        """Number of ads that the page may have; None for any."""

    def _enter(self, forbidden: Sequence[tuple[str, Container[str]]]) -> list[Bidder]:
        """Return the campaigns that may be shown; note the others by cause.

        Args:
            forbidden: Name and forbidden items of each filter.
        """
        ts, is_capped = self._request.event.ts, None
        probabilities: dict[BidUnit, float] = {}
        bidders: list[Bidder] = []
        for campaign in self.matching:
            item = campaign.item_id
            cause: ExclusionCause | None = None if is_running(campaign, ts) else "not_running"
            for _, items in forbidden if cause is None else ():
                if item in items:
                    cause = "item"
                    break
            quality = 0.0
            if cause is None:
                quality = self._quality(item)
                if quality < campaign.quality_floor:
                    cause = "quality"
                elif campaign.frequency_cap is not None:
                    is_capped = is_capped or cap_rule(self._request)
                    cause = "cap" if is_capped(campaign) else None
            multiplier = self._multiplier(campaign) if cause is None else None
            if multiplier is None:
                self.excluded.append((campaign, cause or "budget"))
                continue
            factor = self._click_factor(campaign)
            probability = probabilities.get(campaign.bid_per) if factor is None else None
            if probability is None:
                probability = payment_probability(campaign, self._scores, self._plan.share, factor or 1.0)
                if factor is None:
                    probabilities[campaign.bid_per] = probability
            bidders.append(make_bidder(campaign, probability, quality, multiplier))
        return bidders

    def _multiplier(self, campaign: Campaign) -> float | None:
        """Return the factor on the bid of a campaign, 1 without a budget; None where no lease lets it spend."""
        find_multiplier = self._request.find_multiplier
        if find_multiplier is None or not campaign.has_budget:
            return 1.0
        multiplier = self.budgets[campaign.campaign_id] = find_multiplier(campaign.campaign_id)
        return multiplier

    def _click_factor(self, campaign: Campaign) -> float | None:
        """Return the factor on the click probability of a campaign; None where none is learned."""
        find_click_factor = self._request.find_click_factor
        if find_click_factor is None or campaign.bid_per != "click":
            return None
        factor = self.click_factors[campaign.campaign_id] = round_score(find_click_factor(campaign.campaign_id))
        return factor

    def sell(self, items: Sequence[Choice], on_page: Collection[str] = ()) -> list[SoldSlot]:
        """Sell the slots of all placements. An advertised item gets one slot of the page at most.

        Args:
            items: The recommended items.
            on_page: Items that take no slot beside the list, because the page shows them already.
        """
        sold: list[SoldSlot] = []
        page_sales: list[Sale] = []
        for name, slots, reserve, pricing, relevance in self._plan.placements if self.bidders else ():
            is_beside = bool(slots) and slots[0].positions == BESIDE
            shown = {slot.item_id for slot in sold}
            if is_beside:
                shown.update(on_page)
            bidders = [
                bidder
                for bidder in self.bidders
                if bidder.campaign.item_id not in shown
                and (not bidder.campaign.placements or name in bidder.campaign.placements)
            ]
            admits = None if is_beside else make_admission(items, self._quality, relevance)
            limit = None if self.allowed is None else self.allowed - len(sold)
            sales = list(islice(sell(bidders, slots, reserve, pricing, admits=admits, earlier=page_sales), limit))
            page_sales += sales
            sold += [self._sold_slot(name, sale) for sale in sales]
        return sold

    def _sold_slot(self, placement: str, sale: Sale) -> SoldSlot:
        """Return a sale as a decision states it; a machine is not charged."""
        campaign = sale.bidder.campaign
        is_charged = self._request.client < FIRST_MACHINE
        multiplier = self.budgets.get(campaign.campaign_id)
        return SoldSlot(
            placement=placement,
            slot=sale.slot.number,
            position=sale.position,
            campaign_id=campaign.campaign_id,
            item_id=campaign.item_id,
            bid=round_score(campaign.bid),
            bid_per=campaign.bid_per,
            probability=sale.bidder.probability,
            quality=sale.bidder.quality,
            exposure=sale.slot.exposure,
            price=round_score(sale.price) if is_charged else 0.0,
            runner_up=sale.runner_up.campaign.campaign_id if sale.runner_up else None,
            multiplier=msgspec.UNSET if multiplier is None else multiplier,
            view_window_ms=campaign.view_window_ms or msgspec.UNSET,
            purchase_window_ms=(
                msgspec.UNSET if campaign.purchase_window_ms == PURCHASE_WINDOW_MS else campaign.purchase_window_ms
            ),
        )

    def reason(self, sold: Sequence[SoldSlot], target: str) -> str:
        """Return in words why the ads are shown, or why none is.

        Args:
            sold: Sold slots.
            target: What the campaigns do: match, or match the current item.
        """
        if sold:
            charge = "; a machine is not charged" if self._request.client >= FIRST_MACHINE else ""
            return f"most valuable of {len(self.bidders)} that {target}{charge}"
        if not self.matching:
            return "no campaign matches"
        if not self.bidders:
            return "no campaign that matches may be shown"
        if self.allowed == 0 and not may_count(self._request):
            return "the policy limits the ads of a session, which may not be counted without consent"
        if self.allowed == 0:
            return "the session has as many ads as the policy allows"
        return "no campaign that may be shown wins a slot"


def count_causes(excluded: Sequence[tuple[Campaign, ExclusionCause]]) -> dict[ExclusionCause, int]:
    """Return the number of campaigns by cause; the causes are always in the same order, so decisions are byte-equal."""
    causes = [cause for _, cause in excluded]
    return {cause: count for cause in _CAUSES if (count := causes.count(cause))}


def open_auction(
    request: Request, scores: Scores | None, catalogue: AnyCatalogue, policy: Policy
) -> tuple[PageAuction, Scores | None]:
    """Return the auctions of a page, and the scores that may count in them.

    Args:
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: The campaigns, and the state of their items.
        policy: Filters, placements and limits.
    """
    if request.withheld & ADS:
        request, scores = without_behaviour(request), None
    return PageAuction(request, scores, catalogue, policy), scores


def choose_ads(
    request: Request,
    scores: Scores | None,
    catalogue: AnyCatalogue,
    policy: Policy,
    items: Sequence[Choice] = (),
    *,
    on_page: Collection[str] = (),
) -> Ad:
    """Return the decision on the ads of a page: an auction for each placement of the policy.

    Without consent to ads by behaviour the ads follow from the current item alone: no earlier item, no purchase and no
    probability of the model counts.

    Args:
        request: The event, with the user's session.
        scores: The model's output; absent where no model scores the request.
        catalogue: The campaigns, and the state of their items.
        policy: Filters, placements and limits.
        items: The recommended items, for placements within the list.
        on_page: Items that take no slot beside the list, because the page shows them already.
    """
    event = request.event
    target = "match the current item" if request.withheld & ADS else "match"
    auction, scores = open_auction(request, scores, catalogue, policy)
    sold = auction.sell(items, on_page)
    first = sold[0] if sold else None
    return Ad(
        decision_id=f"{request.decision_id}{AD_SUFFIX}",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=policy.bundle if scores is not None else None,
        policy=policy.label,
        variant=request.variant,
        session_id=request.session_id,
        campaign_id=first.campaign_id if first else None,
        item_id=first.item_id if first else None,
        bid=first.bid if first else None,
        purchase=scores.purchase if scores is not None else None,
        propensity=1.0,
        reason=auction.reason(sold, target),
        withheld=WITHHELD[request.withheld],
        client=CLIENT_FIELDS[request.client],
        client_reason=REASON_FIELDS[request.client],
        slots=tuple(sold),
        budgets=auction.budgets or msgspec.UNSET,
        click_factors=auction.click_factors or msgspec.UNSET,
        excluded=count_causes(auction.excluded) if auction.excluded else msgspec.UNSET,
    )
