"""Budget tally: spend of campaigns today, the rest of their leases, and the course of pacing over the day.

Reports and leases are records of the log. Days are days of event time in UTC, as for the budgets themselves.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.leases import MAX_STEP, MICROS, BudgetLease, CampaignSpend, SpendReport, is_next
from clickscore.stream.console.bounded import bounded_entry

MAX_CAMPAIGNS = 500
"""Number of campaigns; the campaign without a record for the longest time goes first."""
STEP_MS = 10 * MINUTE_MS
"""Time between two points of a curve, ms: 144 points a day."""


class PartitionShare(msgspec.Struct):
    """Part of a partition in the day of a campaign; amounts in millionths."""

    spent: int = 0
    limit: int = 0
    """What the partition may spend on the day, what is spent included."""


class BudgetDay(msgspec.Struct):
    """Day of a campaign."""

    day: int = -1
    """Days since 1970."""
    shares: dict[int, PartitionShare] = {}
    """Part of each partition."""
    multiplier: float | None = None
    """Factor on the bid in the newest lease; absent before the first lease of the day."""
    curve: dict[int, tuple[int, float | None]] = {}
    """Spend and multiplier at the end of each step of the day with a record, by number of the step."""

    def share(self, day: int, partition: int) -> PartitionShare | None:
        """Return the part of a partition in a day; absent for a day that is over. A new day begins with nothing spent.

        Args:
            day: Day of a record.
            partition: Partition of the record.
        """
        if day < self.day:
            return None
        if day > self.day:
            self.day, self.shares, self.multiplier, self.curve = day, {}, None, {}
        return self.shares.setdefault(partition, PartitionShare())

    @property
    def spent(self) -> int:
        """What all partitions have spent."""
        return sum([share.spent for share in self.shares.values()])

    def note(self, ts: int) -> None:
        """Note a point of the curve at an event time, ms."""
        self.curve[ts % DAY_MS // STEP_MS] = self.spent, self.multiplier

    def report(self) -> dict[str, Any]:
        """Return the day for the JSON of an answer; amounts in the shop's currency. Curves have a value each step."""
        spends: list[float] = []
        multipliers: list[float | None] = []
        for step in range(min(self.curve), max(self.curve) + 1):
            if step in self.curve:
                spent, multiplier = self.curve[step]
                spends.append(spent / MICROS)
                multipliers.append(multiplier)
            else:
                spends.append(spends[-1])
                multipliers.append(multipliers[-1])
        return {
            "day_ms": self.day * DAY_MS,
            "begin_ms": self.day * DAY_MS + min(self.curve) * STEP_MS,
            "spent": self.spent / MICROS,
            "leased": sum([max(0, share.limit - share.spent) for share in self.shares.values()]) / MICROS,
            "multiplier": self.multiplier,
            "spends": spends,
            "multipliers": multipliers,
        }


class BudgetTally:
    """Days of campaigns with budgets."""

    def __init__(self) -> None:
        self._campaigns: OrderedDict[str, BudgetDay] = OrderedDict()
        self._reports: dict[int, int] = {}  # number of the newest report, by partition
        self._leases: dict[int, int] = {}  # number of the newest lease, by partition

    def add_report(self, report: SpendReport) -> None:
        """Take a report of a partition, unless the report is a repeat, or forged as the workers see."""
        if not _is_news(report.number, self._reports.get(report.partition)):
            return
        self._reports[report.partition] = report.number
        for spend in report.campaigns:
            self._add_spend(report, spend)

    def _add_spend(self, report: SpendReport, spend: CampaignSpend) -> None:
        campaign = self._campaign(spend.campaign_id)
        share = campaign.share(report.day, report.partition)
        if share is None:
            return
        share.spent = spend.spent
        if report.lease >= self._leases.get(report.partition, 0):
            share.limit = spend.limit
        campaign.note(report.ts)

    def add_lease(self, partition: int, lease: BudgetLease) -> None:
        """Take a lease, unless the lease is a repeat.

        Args:
            partition: Partition that may spend the lease.
            lease: The lease.
        """
        if not _is_news(lease.number, self._leases.get(partition)):
            return
        self._leases[partition] = lease.number
        for grant in lease.campaigns:
            campaign = self._campaign(grant.campaign_id)
            share = campaign.share(lease.day, partition)
            if share is not None:
                share.limit, campaign.multiplier = grant.limit, grant.multiplier
                campaign.note(lease.ts)

    def campaigns(self) -> dict[str, Any]:
        """Return the newest known day of each campaign."""
        return {name: self._campaigns[name].report() for name in sorted(self._campaigns)}

    def _campaign(self, name: str) -> BudgetDay:
        return bounded_entry(self._campaigns, name, BudgetDay, MAX_CAMPAIGNS)


def _is_news(number: int, newest: int | None) -> bool:
    """Return whether a record with a number counts after the newest record of the partition.

    A console may begin in the middle of the log, so the first number is any number. One far beyond the next was forged.

    Args:
        number: Number of the record.
        newest: Number of the newest record that counted; None for none.
    """
    return newest is None or is_next(number, newest) or number < newest - MAX_STEP
