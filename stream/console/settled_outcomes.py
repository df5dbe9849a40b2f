"""Settled outcomes: the exact outcomes of decisions whose click window has closed, from `decision-outcomes`."""

from collections import OrderedDict
from typing import Any

import msgspec

from clickscore.schemas.outcomes import DecisionOutcome
from clickscore.stream.console.bounded import bounded_entry
from clickscore.stream.console.outcome_tally import MAX_PLACEMENTS, MAX_VARIANTS
from clickscore.stream.console.user_ratios import UserRatios

MAX_SETTLED = 30_000
"""Decisions whose correction replaces the earlier record. Corrections of older decisions are left out."""


class SettledCounts(msgspec.Struct):
    """Sums over lines of outcomes."""

    impressions: int = 0
    clicks: int = 0
    valid_clicks: int = 0
    carts: int = 0
    purchases: int = 0
    revenue: float = 0.0

    def add(self, other: "SettledCounts", sign: int = 1) -> None:
        """Add sums, or take them away with the sign -1.

        Args:
            other: Sums to add.
            sign: 1 or -1.
        """
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + sign * getattr(other, field))


class _SettledVariant:
    """Sums of a variant."""

    def __init__(self) -> None:
        self.decisions = 0
        self.counts = SettledCounts()
        self.clicks = UserRatios()
        self.orders = UserRatios()
        self.revenue = UserRatios()


class _Settled(msgspec.Struct):
    """The record of a decision that counts at present."""

    revision: int
    placements: dict[str, SettledCounts]
    total: SettledCounts


class SettledOutcomes:
    """Sums of settled outcomes by variant and by placement."""

    def __init__(self, max_settled: int = MAX_SETTLED) -> None:
        """Start empty.

        Args:
            max_settled: Decisions whose correction replaces the earlier record.
        """
        self._max_settled = max_settled
        self._settled: OrderedDict[str, _Settled] = OrderedDict()
        self._variants: OrderedDict[str, _SettledVariant] = OrderedDict()
        self._placements: OrderedDict[str, SettledCounts] = OrderedDict()

    def add(self, outcome: DecisionOutcome) -> None:
        """Count an outcome. A correction replaces the earlier record of the decision; a repeat changes nothing."""
        former = self._settled.get(outcome.decision_id)
        if outcome.revision <= former.revision if former else outcome.revision > 0:
            return
        placements: dict[str, SettledCounts] = {}
        total = SettledCounts()
        for line in outcome.lines:
            counts = msgspec.convert(line, SettledCounts, from_attributes=True)
            placements.setdefault(line.placement, SettledCounts()).add(counts)
            total.add(counts)
        self._settled[outcome.decision_id] = _Settled(outcome.revision, placements, total)
        if len(self._settled) > self._max_settled:
            self._settled.popitem(last=False)
        change = msgspec.structs.replace(total)
        if former:
            change.add(former.total, -1)
            for name, counts in former.placements.items():
                self._placement(name).add(counts, -1)
        for name, counts in placements.items():
            self._placement(name).add(counts)
        self._count(outcome, change, is_new=former is None)

    def forget(self, user_id: str) -> None:
        """Forget the id of a user."""
        for variant in self._variants.values():
            for ratios in (variant.clicks, variant.orders, variant.revenue):
                ratios.forget(user_id)

    def report(self) -> dict[str, Any]:
        """Return the sums for the JSON of an answer."""
        return {
            "variants": {name: _describe(self._variants[name]) for name in sorted(self._variants)},
            "placements": {name: msgspec.to_builtins(self._placements[name]) for name in sorted(self._placements)},
        }

    def _count(self, outcome: DecisionOutcome, change: SettledCounts, *, is_new: bool) -> None:
        variant = bounded_entry(self._variants, outcome.variant, _SettledVariant, MAX_VARIANTS)
        variant.decisions += is_new
        variant.counts.add(change)
        variant.clicks.add(outcome.user_id, change.impressions, change.valid_clicks)
        variant.orders.add(outcome.user_id, is_new, change.purchases)
        variant.revenue.add(outcome.user_id, is_new, change.revenue)

    def _placement(self, name: str) -> SettledCounts:
        return bounded_entry(self._placements, name, SettledCounts, MAX_PLACEMENTS)


def _describe(variant: _SettledVariant) -> dict[str, Any]:
    return msgspec.to_builtins(variant.counts) | {
        "decisions": variant.decisions,
        "users": variant.orders.sums.users,
        "clicks_per_impression": variant.clicks.estimate(),
        "orders_per_decision": variant.orders.estimate(),
        "revenue_per_decision": variant.revenue.estimate(),
    }
