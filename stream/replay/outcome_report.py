"""Outcome report: impressions, clicks, orders and money by variant, placement and campaign, with intervals over users.

Pure sums over the records of `decision-outcomes`. Of each decision the record with the largest revision counts, so a
repeat and a correction change nothing twice. The intervals are 95 % intervals of a ratio by the delta method, with the
users as the independent units (Deng, Knoblich and Lu, KDD 2018): events of one user are alike.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from clickscore.schemas.outcome_counts import MIN_USERS, RatioSums
from clickscore.schemas.outcomes import DecisionOutcome, LineOutcome

NORMAL_95 = 1.96
"""Standard errors on either side of a 95 % interval."""

Group = Literal["variant", "placement", "campaign"]
"""What a row is about."""


class ReportedRatio(msgspec.Struct, frozen=True):
    """A ratio with its interval; null bounds for too few users, and for a ratio of 0, where all users are alike."""

    value: float
    low: float | None
    high: float | None


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a variant, of a placement in a variant, or of a campaign."""

    group: Group
    variant: str | None
    """Null for a campaign, which is the same in all variants."""
    name: str
    """Variant, placement or campaign."""
    users: int
    """Users with an impression, a click or an order; for a variant, users with a decision."""
    decisions: int
    """Decisions of the variant; 0 for placements and campaigns."""
    impressions: int
    clicks: int
    valid_clicks: int
    carts: int
    purchases: int
    revenue: float
    gross: float
    net: float
    clicks_per_impression: ReportedRatio | None
    """Valid clicks per impression; null without an impression."""
    orders_per_decision: ReportedRatio | None
    """Null for placements and campaigns."""
    revenue_per_decision: ReportedRatio | None
    """Null for placements and campaigns."""


class _UserSums(NamedTuple):
    """Sums of a user in a row."""

    decisions: int = 0
    impressions: int = 0
    clicks: int = 0
    """Valid clicks."""
    orders: int = 0
    revenue: float = 0.0


class _Sums:
    """Sums of a row."""

    def __init__(self) -> None:
        self.decisions = self.impressions = self.clicks = self.valid_clicks = self.carts = self.purchases = 0
        self.revenue = self.gross = self.net = 0.0
        self.users: dict[str, _UserSums] = {}

    def add(self, user_id: str, lines: Sequence[LineOutcome], decisions: int) -> None:
        """Add lines of a decision.

        Args:
            user_id: User of the decision.
            lines: Lines that belong to the row.
            decisions: 1 where the decision itself counts in the row, else 0.
        """
        former = self.users.get(user_id, _UserSums())
        self.decisions += decisions
        for line in lines:
            for name in ("impressions", "clicks", "valid_clicks", "carts", "purchases", "revenue", "gross", "net"):
                setattr(self, name, getattr(self, name) + getattr(line, name))
        self.users[user_id] = _UserSums(
            former.decisions + decisions,
            former.impressions + sum([line.impressions for line in lines]),
            former.clicks + sum([line.valid_clicks for line in lines]),
            former.orders + sum([line.purchases for line in lines]),
            former.revenue + sum([line.revenue for line in lines]),
        )

    def row(self, group: Group, variant: str | None, name: str) -> ReportRow:
        """Return the sums as a row.

        Args:
            group: What the row is about.
            variant: Variant of the row, if any.
            name: Name of the row.
        """
        users = self.users.values()
        return ReportRow(
            group=group,
            variant=variant,
            name=name,
            users=len(users),
            decisions=self.decisions,
            impressions=self.impressions,
            clicks=self.clicks,
            valid_clicks=self.valid_clicks,
            carts=self.carts,
            purchases=self.purchases,
            revenue=round(self.revenue, 6),
            gross=round(self.gross, 6),
            net=round(self.net, 6),
            clicks_per_impression=_ratio((user.impressions, user.clicks) for user in users),
            orders_per_decision=_ratio((user.decisions, user.orders) for user in users),
            revenue_per_decision=_ratio((user.decisions, user.revenue) for user in users),
        )


class OutcomeReport:
    """Report on outcomes, in the order in which they come."""

    def __init__(self) -> None:
        self._newest: dict[str, DecisionOutcome] = {}

    def add(self, outcome: DecisionOutcome) -> None:
        """Take a record: an outcome or a correction."""
        newest = self._newest.get(outcome.decision_id)
        if newest is None or outcome.revision >= newest.revision:
            self._newest[outcome.decision_id] = outcome

    def rows(self) -> list[ReportRow]:
        """Return the rows: variants, then placements, then campaigns, each by name."""
        sums: dict[tuple[Group, str, str], _Sums] = {}
        for outcome in self._newest.values():
            for key, lines in _divide(outcome):
                sums.setdefault(key, _Sums()).add(outcome.user_id, lines, int(key[0] == "variant"))
        order = ("variant", "placement", "campaign")
        return [
            sums[group, variant, name].row(group, variant or None, name)
            for group, variant, name in sorted(sums, key=lambda key: (order.index(key[0]), *key[1:]))
        ]


def _divide(outcome: DecisionOutcome) -> Iterator[tuple[tuple[Group, str, str], list[LineOutcome]]]:
    """Yield the rows to which a decision belongs, with its lines for each."""
    yield ("variant", outcome.variant, outcome.variant), list(outcome.lines)
    for placement in {line.placement: None for line in outcome.lines}:
        lines = [line for line in outcome.lines if line.placement == placement]
        yield ("placement", outcome.variant, placement), lines
    for campaign in {line.campaign_id: None for line in outcome.lines if line.campaign_id}:
        lines = [line for line in outcome.lines if line.campaign_id == campaign]
        yield ("campaign", "", campaign), lines


def _ratio(users: Iterable[tuple[float, float]]) -> ReportedRatio | None:
    """Return the ratio of two sums over users; None where the denominator is 0.

    Args:
        users: Denominator and numerator of each user.
    """
    sums = RatioSums()
    for base, value in users:
        if base:
            sums.move_user((0, 0), (base, value))
    if not sums.base:
        return None
    ratio = sums.value / sums.base
    if sums.users < MIN_USERS or not sums.value:  # the variance of zeros says nothing
        return ReportedRatio(round(ratio, 6), None, None)
    spread = sums.value_value - 2 * ratio * sums.base_value + ratio * ratio * sums.base_base
    error = math.sqrt(max(spread, 0.0) * sums.users / (sums.users - 1)) / sums.base
    low, high = (round(ratio + sign * NORMAL_95 * error, 6) for sign in (-1, 1))
    return ReportedRatio(round(ratio, 6), max(low, 0.0), high)
