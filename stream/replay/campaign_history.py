"""Campaign history: the fate of a campaign on each page of a replay, counted by cause."""

from collections import Counter

import msgspec

from clickscore.schemas.decisions import Ad, SoldSlot
from clickscore.schemas.leases import unit_price
from clickscore.stream.due_decisions import DecidedPage, DueDecision
from clickscore.stream.policy.ad_plan import AdPlan
from clickscore.stream.policy.ads import PageAuction, open_auction
from clickscore.stream.policy.auction import Bidder
from clickscore.stream.policy.shelves import main_policy
from clickscore.stream.replay.ad_report import expected_spend
from clickscore.stream.replay.rivals import Rival, Rivals
from clickscore.stream.request import Scores


class CampaignHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Fate of a campaign."""

    campaign_id: str
    pages: int
    """Number of pages with an ad decision."""
    other_pages: int
    """Number of pages without an ad decision: no campaign at all, or no ads in the policy."""
    absent: int
    """Number of pages at whose time no campaign had this id."""
    no_match: int
    """Number of pages outside the campaign's targets."""
    excluded: dict[str, int]
    """Number of pages where the campaign did not enter the auctions, by cause."""
    entered: int
    """Number of pages where the campaign entered the auctions."""
    won: int
    """Number of won slots."""
    mean_price: float | None
    """Mean price of the charged slots; null without any."""
    expected_spend: float
    """Price times the probability of the payment, over the charged slots. No clicks are counted."""
    placements: dict[str, int]
    """Number of won slots by placement."""
    unplaced: dict[str, int]
    """Number of pages with an entry, and without a slot for another reason than a higher score, by cause."""
    lost: int
    """Number of pages with an entry where a campaign with a higher score got the slot."""
    lost_to: tuple[Rival, ...]
    """Winners of the last possible slot, the most slots first."""
    mean_bid: float | None
    """Mean bid on the lost pages; null without any."""
    winning_bid: float | None
    """Mean bid with the winner's score on the lost pages, before the campaign's pacing; null without any."""


class CampaignWatch:
    """Counts the fate of a campaign. An instance is a `DecisionWatch`."""

    def __init__(self, campaign_id: str) -> None:
        """Watch a campaign.

        Args:
            campaign_id: The campaign.
        """
        self._campaign_id = campaign_id
        self._pages = self._other_pages = self._absent = self._no_match = self._entered = 0
        self._won = self._charged = self._lost = 0
        self._prices = self._spend = self._bids = self._winning_bids = 0.0
        self._excluded, self._placements, self._unplaced = Counter[str](), Counter[str](), Counter[str]()
        self._rivals = Rivals()

    def __call__(self, case: DueDecision, scores: Scores | None, page: DecidedPage) -> None:
        """Count a decision."""
        if page.ad is None:
            self._other_pages += 1
            return
        self._pages += 1
        if case.catalogue.campaign(self._campaign_id) is None:
            self._absent += 1
            return
        policy = main_policy(case.decider.policy, case.request)
        auction, _ = open_auction(case.request, scores, case.catalogue, policy)
        for campaign, cause in auction.excluded:
            if campaign.campaign_id == self._campaign_id:
                self._excluded[cause] += 1
                return
        bidder = next((entry for entry in auction.bidders if entry.campaign.campaign_id == self._campaign_id), None)
        if bidder is None:
            self._no_match += 1
        else:
            self._entered += 1
            self._judge(bidder, auction, policy.ad_plan, page.ad)

    def _judge(self, bidder: Bidder, auction: PageAuction, plan: AdPlan, ad: Ad) -> None:
        """Count whether the campaign got a slot of a page, or why not.

        Args:
            bidder: The campaign.
            auction: The auctions of the page.
            plan: Ad placements of the policy.
            ad: The decision.
        """
        campaign, is_charged = bidder.campaign, ad.client not in ("bot", "agent")
        won = [slot for slot in ad.slots if slot.campaign_id == campaign.campaign_id]
        if won:
            self._win(won[0], is_charged=is_charged)
            return
        placements = [part for part in plan.placements if not campaign.placements or part.name in campaign.placements]
        names = {part.name for part in placements}
        sold = [slot for slot in ad.slots if slot.placement in names]
        winner = next((slot for slot in sold if slot.item_id == campaign.item_id), sold[-1] if sold else None)
        if not placements:
            self._unplaced["placement"] += 1
        elif auction.allowed == 0:
            self._unplaced["ad_load"] += 1
        elif winner is not None and _score(winner) >= bidder.score:
            self._lose(bidder, winner, is_charged=is_charged)
        elif all(bidder.score * slot.exposure < part.reserve for part in placements for slot in part.slots):
            self._unplaced["reserve"] += 1
        else:
            self._unplaced["position"] += 1

    def _win(self, slot: SoldSlot, *, is_charged: bool) -> None:
        self._won += 1
        self._placements[slot.placement] += 1
        if is_charged:
            self._charged += 1
            self._prices += slot.price
            self._spend += expected_spend(slot)

    def _lose(self, bidder: Bidder, winner: SoldSlot, *, is_charged: bool) -> None:
        self._lost += 1
        campaign = bidder.campaign
        self._rivals.add(winner.campaign_id, winner.price, is_charged=is_charged)
        self._bids += campaign.bid
        factor = bidder.bid / campaign.bid if campaign.bid else 1.0
        score = bidder.weight * factor  # for a bid of 1 before pacing
        self._winning_bids += _score(winner) / score if score else campaign.bid

    def history(self) -> CampaignHistory:
        """Return the counts."""
        return CampaignHistory(
            campaign_id=self._campaign_id,
            pages=self._pages,
            other_pages=self._other_pages,
            absent=self._absent,
            no_match=self._no_match,
            excluded=dict(self._excluded.most_common()),
            entered=self._entered,
            won=self._won,
            mean_price=self._prices / self._charged if self._charged else None,
            expected_spend=self._spend,
            placements=dict(sorted(self._placements.items())),
            unplaced=dict(self._unplaced.most_common()),
            lost=self._lost,
            lost_to=self._rivals.ranked(),
            mean_bid=self._bids / self._lost if self._lost else None,
            winning_bid=self._winning_bids / self._lost if self._lost else None,
        )


def _score(slot: SoldSlot) -> float:
    """Return the winning score of a slot, with the winner's pacing."""
    factor = 1.0 if slot.multiplier is msgspec.UNSET else slot.multiplier
    return unit_price(slot.bid, slot.bid_per) * factor * slot.probability * slot.quality
