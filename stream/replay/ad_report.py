"""Ad report: winners and losers of the auctions in published ad decisions, in memory for campaigns alone."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from clickscore.schemas.decisions import Ad, BidUnit, SoldSlot
from clickscore.schemas.leases import unit_price
from clickscore.stream.decision_ids import parse_decision_id
from clickscore.stream.errors import SettingsError
from clickscore.stream.replay.rivals import Rival, Rivals


class CampaignReport(msgspec.Struct, frozen=True, kw_only=True):
    """Won and lost slots of a campaign."""

    campaign_id: str
    won: int
    """Number of slots."""
    share: float
    """Share of all sold slots."""
    bid_per: BidUnit | None
    """Unit of the price; null for a campaign without a won slot."""
    mean_bid: float | None
    mean_price: float | None
    """Mean price of the charged slots; null without any."""
    expected_spend: float
    """Price times the probability of the payment, over the charged slots. No clicks are counted."""
    placements: dict[str, int]
    """Number of won slots by placement."""
    lost: int
    """Number of slots with the campaign as the runner-up."""
    lost_to: tuple[Rival, ...]
    """Winners of these slots."""


class AdReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of published ad decisions."""

    pages: int
    """Number of ad decisions."""
    pages_with_ads: int
    slots: int
    """Number of sold slots."""
    uncontested: int
    """Number of sold slots without a runner-up."""
    expected_spend: float
    machine_pages: int
    """Number of decisions for bots and agents: free of charge."""
    excluded: dict[str, int]
    """Number of matching campaigns without a part in the auction, by cause."""
    empty_pages: dict[str, int]
    """Number of pages without ads, by reason in words."""
    campaigns: tuple[CampaignReport, ...]
    """Campaigns, the largest expected spend first."""
    repeats: int
    """Number of repeats of earlier decisions, as a crash may leave; they are not counted."""


MAX_REASONS = 50
"""Number of reasons counted by name: a worker writes five."""


class _CampaignTally:
    def __init__(self) -> None:
        self.won = self.charged = 0
        self.bids = self.prices = self.expected_spend = 0.0
        self.bid_per: BidUnit | None = None
        self.placements = Counter[str]()
        self.rivals = Rivals()

    def win(self, slot: SoldSlot, *, is_charged: bool) -> float:
        """Count a won slot; return the expected spend."""
        self.won += 1
        self.bids += slot.bid
        self.bid_per = slot.bid_per
        self.placements[slot.placement] += 1
        if not is_charged:
            return 0.0
        spend = expected_spend(slot)
        self.charged += 1
        self.prices += slot.price
        self.expected_spend += spend
        return spend

    def report(self, campaign_id: str, slots: int) -> CampaignReport:
        """Return the counts.

        Args:
            campaign_id: The campaign.
            slots: Number of sold slots of all campaigns.
        """
        return CampaignReport(
            campaign_id=campaign_id,
            won=self.won,
            share=self.won / slots if slots else 0.0,
            bid_per=self.bid_per,
            mean_bid=self.bids / self.won if self.won else None,
            mean_price=self.prices / self.charged if self.charged else None,
            expected_spend=self.expected_spend,
            placements=dict(sorted(self.placements.items())),
            lost=self.rivals.total,
            lost_to=self.rivals.ranked(),
        )


def expected_spend(slot: SoldSlot) -> float:
    """Return the price of a slot times the probability of the payment: once the slot is seen, and clicked or bought."""
    return unit_price(slot.price, slot.bid_per) * slot.probability * slot.exposure


class AdTally:
    """Counts of ad decisions."""

    def __init__(self) -> None:
        self._campaigns: dict[str, _CampaignTally] = {}
        self._newest: dict[tuple[str, int], int] = {}
        self._pages = self._pages_with_ads = self._slots = self._uncontested = self._machines = self._repeats = 0
        self._spend = 0.0
        self._excluded, self._empty = Counter[str](), Counter[str]()

    def add(self, ad: Ad) -> None:
        """Count a decision, except for a repeat: decisions of a partition come in the order of events."""
        if self._is_repeat(ad.decision_id):
            self._repeats += 1
            return
        is_machine = ad.client in ("bot", "agent")
        self._pages += 1
        self._machines += is_machine
        self._excluded.update(ad.excluded or {})
        if not ad.slots:
            reason = ad.reason if ad.reason in self._empty or len(self._empty) < MAX_REASONS else "another reason"
            self._empty[reason] += 1
            return
        self._pages_with_ads += 1
        for slot in ad.slots:
            self._slots += 1
            self._spend += self._campaign(slot.campaign_id).win(slot, is_charged=not is_machine)
            if slot.runner_up is None:
                self._uncontested += 1
            else:
                self._campaign(slot.runner_up).rivals.add(slot.campaign_id, slot.price, is_charged=not is_machine)

    def report(self) -> AdReport:
        """Return the counts."""
        return AdReport(
            pages=self._pages,
            pages_with_ads=self._pages_with_ads,
            slots=self._slots,
            uncontested=self._uncontested,
            expected_spend=self._spend,
            machine_pages=self._machines,
            excluded=dict(self._excluded.most_common()),
            empty_pages=dict(self._empty.most_common()),
            campaigns=tuple(
                sorted(self._campaign_reports(), key=lambda part: (-part.expected_spend, part.campaign_id))
            ),
            repeats=self._repeats,
        )

    def _campaign_reports(self) -> Iterator[CampaignReport]:
        for campaign_id, tally in self._campaigns.items():
            yield tally.report(campaign_id, self._slots)

    def _campaign(self, campaign_id: str) -> _CampaignTally:
        tally = self._campaigns.get(campaign_id)
        if tally is None:
            tally = self._campaigns[campaign_id] = _CampaignTally()
        return tally

    def _is_repeat(self, text: str) -> bool:
        try:
            decision_id = parse_decision_id(text)
        except SettingsError:
            return False  # an id of another program
        partition = decision_id.topic, decision_id.partition
        newest = self._newest.get(partition, -1)
        self._newest[partition] = max(newest, decision_id.offset)
        return decision_id.offset <= newest
