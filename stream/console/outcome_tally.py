"""Outcome tally: impressions, clicks, orders and revenue by variant, placement and campaign.

An event counts for the decision in its `decision_id`. The tally covers the records on the console's way alone;
`decision-outcomes` has the exact numbers.
"""

from collections import Counter, OrderedDict
from typing import Any

import msgspec

from clickscore.schemas.decisions import Ad, Recommendation
from clickscore.schemas.events import Cart, Click, Event, Impression, ItemEvent, Purchase
from clickscore.schemas.outcomes import AdCharge
from clickscore.stream.console.bounded import bounded_entry
from clickscore.stream.console.decision_traces import DecisionTrace
from clickscore.stream.console.user_ratios import UserRatios

MAX_VARIANTS = 12
MAX_PLACEMENTS = 40
MAX_CAMPAIGNS = 500
"""Number of campaigns; the campaign without a record for the longest time goes first."""
MAX_CHARGE_IDS = 20_000
"""Newest charges whose repeats are recognised: a worker publishes some seconds again after a crash."""
CURVE_MINUTES = 60
"""Length of the curve of a campaign's spend, minutes."""
MINUTE_S = 60


def revenue_of(purchase: Purchase) -> float:
    """Return the price of all pieces of a purchase; 0 where no price is named."""
    return (purchase.price or 0.0) * purchase.quantity


class ReactionCounts(msgspec.Struct):
    """ReactionCounts of users to what was shown."""

    impressions: int = 0
    clicks: int = 0
    carts: int = 0
    orders: int = 0
    revenue: float = 0.0

    def add(self, event: ItemEvent) -> None:
        """Count an event."""
        if isinstance(event, Impression):
            self.impressions += 1
        elif isinstance(event, Click):
            self.clicks += 1
        elif isinstance(event, Cart):
            self.carts += 1
        elif isinstance(event, Purchase):
            self.orders += 1
            self.revenue += revenue_of(event)


class VariantTally:
    """Counts of a variant."""

    def __init__(self) -> None:
        self.decisions = 0
        self.reactions = ReactionCounts()
        self.clicks = UserRatios()
        self.orders = UserRatios()
        self.revenue = UserRatios()

    def add_decision(self, user_id: str) -> None:
        """Count a decision for a user."""
        self.decisions += 1
        self.orders.add(user_id, 1, 0)
        self.revenue.add(user_id, 1, 0)

    def add_event(self, event: ItemEvent) -> None:
        """Count a reaction to a decision."""
        self.reactions.add(event)
        if isinstance(event, Impression):
            self.clicks.add(event.user_id, 1, 0)
        elif isinstance(event, Click):
            self.clicks.add(event.user_id, 0, 1)
        elif isinstance(event, Purchase):
            self.orders.add(event.user_id, 0, 1)
            self.revenue.add(event.user_id, 0, revenue_of(event))

    def report(self) -> dict[str, Any]:
        """Return the counts for the JSON of an answer."""
        return msgspec.to_builtins(self.reactions) | {
            "decisions": self.decisions,
            "users": self.orders.sums.users,
            "clicks_per_impression": self.clicks.estimate(),
            "orders_per_decision": self.orders.estimate(),
            "revenue_per_decision": self.revenue.estimate(),
        }


class CampaignTally:
    """Counts of a campaign."""

    def __init__(self) -> None:
        self.won = 0
        """Number of won slots."""
        self.priced = 0
        """Number of won slots with a price: a machine's slot is free."""
        self.price_sum = 0.0
        """Sum of their prices."""
        self.bid = 0.0
        self.unit = ""
        """What the campaign bids for, and pays for."""
        self.item_id = ""
        self.runners_up: Counter[str] = Counter()
        self.placements: Counter[str] = Counter()
        self.reactions = ReactionCounts()
        self.gross = 0.0
        """Price of all clicks, impressions or orders, invalid traffic included."""
        self.net = 0.0
        """Amount to pay."""
        self.charges: Counter[str] = Counter()
        """Number of charges, by reason."""
        self.curve: dict[int, float] = {}
        """Amount to pay by minute since the epoch."""

    def charge(self, charge: AdCharge, now_s: float) -> None:
        """Add a charge or a credit.

        Args:
            charge: The charge.
            now_s: Time, s.
        """
        self.gross += charge.gross
        self.net += charge.net
        self.charges[charge.reason] += 1
        minute = int(now_s) // MINUTE_S
        self.curve[minute] = self.curve.get(minute, 0.0) + charge.net
        if len(self.curve) > CURVE_MINUTES:
            del self.curve[min(self.curve)]

    def report(self, now_s: float) -> dict[str, Any]:
        """Return the counts for the JSON of an answer.

        Args:
            now_s: Time, s.
        """
        minute = int(now_s) // MINUTE_S
        return msgspec.to_builtins(self.reactions) | {
            "won": self.won,
            "mean_price": self.price_sum / self.priced if self.priced else None,
            "bid": self.bid,
            "unit": self.unit,
            "item_id": self.item_id,
            "runners_up": self.runners_up.most_common(3),
            "placements": self.placements.most_common(5),
            "gross": self.gross,
            "net": self.net,
            "charges": dict(self.charges),
            "curve": [self.curve.get(minute - ago, 0.0) for ago in reversed(range(CURVE_MINUTES))],
        }


class OutcomeTally:
    """Counts by variant, placement and campaign."""

    def __init__(self) -> None:
        self._variants: OrderedDict[str, VariantTally] = OrderedDict()
        self._placements: OrderedDict[str, ReactionCounts] = OrderedDict()
        self._campaigns: OrderedDict[str, CampaignTally] = OrderedDict()
        self._charge_ids: OrderedDict[str, None] = OrderedDict()

    def add_decision(self, decision: Recommendation, variant: str) -> None:
        """Count a recommendation.

        Args:
            decision: The recommendation.
            variant: Variant to count for.
        """
        self._variant(variant).add_decision(decision.user_id)

    def add_ad(self, ad: Ad) -> None:
        """Count the sold slots of an ad decision."""
        for slot in ad.slots:
            campaign = self._campaign(slot.campaign_id)
            campaign.won += 1
            campaign.priced += ad.client not in ("bot", "agent")
            campaign.price_sum += slot.price
            campaign.bid, campaign.unit, campaign.item_id = slot.bid, slot.bid_per, slot.item_id
            campaign.placements[slot.placement] += 1
            if slot.runner_up is not None and (
                slot.runner_up in campaign.runners_up or len(campaign.runners_up) < MAX_PLACEMENTS
            ):
                campaign.runners_up[slot.runner_up] += 1

    def add_event(self, event: Event, trace: DecisionTrace) -> None:
        """Count an event with a known decision.

        Args:
            event: The event.
            trace: The decision.
        """
        if not isinstance(event, ItemEvent):
            return
        self._placement(trace.placement(event.item_id, event.campaign_id)).add(event)
        if trace.variant:
            self._variant(trace.variant).add_event(event)
        if event.campaign_id:
            self._campaign(event.campaign_id).reactions.add(event)

    def add_charge(self, charge: AdCharge, now_s: float) -> None:
        """Count a charge or a credit, unless the charge is a repeat.

        Args:
            charge: The charge.
            now_s: Time, s.
        """
        if charge.charge_id in self._charge_ids:
            return
        self._charge_ids[charge.charge_id] = None
        if len(self._charge_ids) > MAX_CHARGE_IDS:
            self._charge_ids.popitem(last=False)
        self._campaign(charge.campaign_id).charge(charge, now_s)

    def forget(self, user_id: str) -> None:
        """Forget the id of a user."""
        for variant in self._variants.values():
            for ratios in (variant.clicks, variant.orders, variant.revenue):
                ratios.forget(user_id)

    def variants(self) -> dict[str, Any]:
        """Return the counts of each variant."""
        return {name: self._variants[name].report() for name in sorted(self._variants)}

    def placements(self) -> dict[str, Any]:
        """Return the counts of each placement."""
        return {name: msgspec.to_builtins(self._placements[name]) for name in sorted(self._placements)}

    def campaigns(self, now_s: float) -> dict[str, Any]:
        """Return the counts of each campaign.

        Args:
            now_s: Time, s.
        """
        return {name: self._campaigns[name].report(now_s) for name in sorted(self._campaigns)}

    def _variant(self, name: str) -> VariantTally:
        return bounded_entry(self._variants, name, VariantTally, MAX_VARIANTS)

    def _placement(self, name: str) -> ReactionCounts:
        return bounded_entry(self._placements, name, ReactionCounts, MAX_PLACEMENTS)

    def _campaign(self, name: str) -> CampaignTally:
        return bounded_entry(self._campaigns, name, CampaignTally, MAX_CAMPAIGNS)
