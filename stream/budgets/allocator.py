"""Allocator: divide the budget of each campaign among the partitions by leases, and pace it.

The allocator is a part of the state of partition 0, so whichever worker owns that partition is the allocator. It reads
reports of the partitions from its log and answers each with a lease. For a partition it counts the larger of what the
partition has confirmed and what was granted since: this is the claim. All claims of a day add up to the day's budget at
most, whatever is lost, repeated or late. So nothing is charged above the budget.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign, Pacing
from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.leases import (
    BudgetLease,
    CampaignLease,
    CampaignSpend,
    SpendReport,
    is_next,
    to_micros,
    unit_price,
)
from clickscore.stream.budgets import pacing
from clickscore.stream.budgets.pacing import PacerState, Progress, target_share
from clickscore.stream.budgets.traffic_shape import TrafficShape

STEP_MS = MINUTE_MS
"""Event time between two steps of the controllers, ms."""
TERM_MS = 10 * MINUTE_MS
"""Term of a lease in event time, ms: reports renew it, and a partition without an allocator goes on for so long."""
HORIZON_MS = TERM_MS
"""Event time for which a lease should suffice, ms: its term.

With less, a campaign that is some clicks ahead of its plan has no lease, and misses good pages: the multiplier paces
it, and leases only bound it.
"""
SURPLUS = 1.5
"""What a partition is granted beyond its share of the plan: traffic moves between partitions."""
OPEN_DAYS = 2
"""Days with open books: the newest one, and the one before for partitions that are behind."""


class Budget(NamedTuple):
    """Budget of a campaign; amounts in millionths."""

    daily: int | None
    total: int | None
    unit: int
    """Highest price for what is paid: a click, an impression or an order."""
    pacing: Pacing = "even"
    starts_at: int = 0
    """First event time of the campaign, ms."""
    ends_at: int | None = None
    """End of the campaign in event time, ms; None for no end."""


def make_budget(campaign: Campaign | None) -> Budget | None:
    """Return the budget of a campaign; None without a budget, and for an unknown campaign."""
    if campaign is None or not campaign.has_budget:
        return None
    daily, total = campaign.daily_budget, campaign.total_budget
    return Budget(
        daily=None if daily is None else to_micros(daily),
        total=None if total is None else to_micros(total),
        unit=to_micros(unit_price(campaign.bid, campaign.bid_per)),
        pacing=campaign.pacing or "even",
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
    )


class Share(msgspec.Struct, array_like=True, gc=False):
    """Part of a partition in the day of a campaign; amounts in millionths."""

    limit: int = 0
    """Limit that the partition has confirmed."""
    spent: int = 0
    """What is spent or owed."""
    expected: int = 0
    """Expected spend of the sold slots."""
    entries: int = 0
    """Number of auctions."""
    granted: int = 0
    """Largest limit of the grants that the partition has not confirmed."""
    number: int = 0
    """Number of the newest of these grants; 0 for none."""

    @property
    def claim(self) -> int:
        """The most that the partition can have spent on the day when all records are read."""
        return max(self.limit, self.granted)


class Book(msgspec.Struct, array_like=True):
    """Day of a campaign."""

    begin: int = 0
    """Time of the day from which the budget is spent, ms after midnight."""
    shares: dict[int, Share] = {}
    """Part of each partition."""

    @property
    def claims(self) -> int:
        """The most that the campaign can have spent on the day when all records are read, millionths."""
        return sum([share.claim for share in self.shares.values()])

    @property
    def spent(self) -> int:
        """What the partitions have reported as spent or owed, millionths."""
        return sum([share.spent for share in self.shares.values()])


class CampaignBooks(msgspec.Struct, array_like=True):
    """Books of a campaign."""

    pacer: PacerState = msgspec.field(default_factory=PacerState)
    days: dict[int, Book] = {}
    """Books of the open days."""
    closed: int = 0
    """Claims of the days before, millionths."""


FindBudget = Callable[[str], Budget | None]
"""Returns the budget of a campaign; None without a budget, and for an unknown campaign."""


class Allocator(msgspec.Struct, array_like=True):
    """State of the allocator."""

    shape: TrafficShape = msgspec.field(default_factory=TrafficShape)
    stepped_at: int = -1
    """Number of the newest step: event time over `STEP_MS`."""
    reports: dict[int, int] = {}
    """Number of the newest report of each partition."""
    leases: dict[int, int] = {}
    """Number of the newest lease of each partition."""
    campaigns: dict[str, CampaignBooks] = {}

    def receive(self, report: SpendReport, find_budget: FindBudget) -> BudgetLease | None:
        """Book a report and step the controllers; return the lease that answers the report, if any.

        A partition gets a lease for the campaigns that could have taken part in its auctions since the report before.

        Args:
            report: Report of a partition; a repeat and a number far beyond the last one change nothing.
            find_budget: Returns the budget of a campaign.
        """
        partition = report.partition
        if not is_next(report.number, self.reports.get(partition, 0)):
            return None
        self.reports[partition] = report.number
        if report.day <= self.shape.day - OPEN_DAYS:
            return None  # the books of the day are closed
        self._turn_day(report, find_budget)
        demanding = [
            spend.campaign_id
            for spend in report.campaigns
            if (spend.campaign_id in self.campaigns or find_budget(spend.campaign_id)) and self._book(report, spend)
        ]
        if report.is_final:
            return None
        if report.ts // STEP_MS > self.stepped_at:
            self.stepped_at = report.ts // STEP_MS
            for campaign_id, books in self.campaigns.items():
                self._pace(books, find_budget(campaign_id), report.ts)
        grants = [
            CampaignLease(campaign_id, self._limit(books, budget, report), books.pacer.multiplier)
            for campaign_id in demanding
            if (budget := find_budget(campaign_id)) is not None and (books := self.campaigns[campaign_id])
        ]
        return self._lease(report, grants) if grants else None

    def _turn_day(self, report: SpendReport, find_budget: FindBudget) -> None:
        """Count the pages of a report; with a new day, close the old books and begin the day of the controllers."""
        former_day = self.shape.day
        self.shape.count(report.ts, report.pages)
        if self.shape.day == former_day:
            return
        for campaign_id, books in list(self.campaigns.items()):
            pacing.begin_day(books.pacer)
            for day in [day for day in books.days if day <= self.shape.day - OPEN_DAYS]:
                books.closed += books.days.pop(day).claims
            if not books.days and find_budget(campaign_id) is None:
                del self.campaigns[campaign_id]

    def _book(self, report: SpendReport, spend: CampaignSpend) -> bool:
        """Note what a partition reports on a campaign; return whether the partition needs a lease.

        A campaign without books is new: its day begins with the report.
        """
        books = self.campaigns.get(spend.campaign_id)
        begin = report.ts % DAY_MS if books is None else 0
        if books is None:
            books = self.campaigns[spend.campaign_id] = CampaignBooks()
        book = books.days.get(report.day)
        if book is None:
            book = books.days[report.day] = Book(begin=begin)
        share = book.shares.setdefault(report.partition, Share())
        needs_lease = spend.entries > share.entries or spend.spent > spend.limit
        share.limit, share.spent = spend.limit, spend.spent
        share.expected, share.entries = spend.expected, spend.entries
        if report.is_final or report.lease >= share.number:
            share.granted = share.number = 0
        return needs_lease

    def _pace(self, books: CampaignBooks, budget: Budget | None, ts: int) -> None:
        """Step the controller of a campaign with books of the day.

        Args:
            books: Books of the campaign.
            budget: Budget of the campaign; None where it has none any more.
            ts: Event time, ms.
        """
        book = books.days.get(ts // DAY_MS)
        if book is None or budget is None:
            return
        if budget.pacing == "asap":
            books.pacer.multiplier = 1.0
            return
        amount = day_budget(budget, books, ts // DAY_MS)
        share, next_share = (self._traffic_share(budget, book, time) for time in (ts, ts + STEP_MS))
        target = amount * target_share(budget.pacing, share)
        shares = book.shares.values()
        progress = Progress(
            budget=amount,
            unit=budget.unit,
            target=target,
            planned=amount * target_share(budget.pacing, next_share) - target,
            rest=(next_share - share) / (1 - share) if share < 1 else 1.0,
            spent=book.spent,
            expected=sum([share.expected for share in shares]),
            entries=sum([share.entries for share in shares]),
        )
        pacing.step(books.pacer, progress)

    def _traffic_share(self, budget: Budget, book: Book, ts: int) -> float:
        """Return the share of the traffic of a campaign's present day that comes before an event time, 0 to 1.

        Args:
            budget: Budget of the campaign.
            book: The day.
            ts: Event time, ms; a time after the day counts as its end.
        """
        midnight = self.shape.day * DAY_MS
        begin = max(book.begin, budget.starts_at - midnight)
        end = DAY_MS if budget.ends_at is None else min(DAY_MS, budget.ends_at - midnight)
        return self.shape.share_between(begin, end, ts - midnight) if begin < end else 1.0

    def _limit(self, books: CampaignBooks, budget: Budget, report: SpendReport) -> int:
        """Return what a partition may spend on its day: what it needs, and no more than others leave of the budget.

        Args:
            books: Books of the campaign.
            budget: Budget of the campaign.
            report: Report of the partition.
        """
        book = books.days[report.day]
        share = book.shares[report.partition]
        amount = day_budget(budget, books, report.day)
        rivals = [rival for rival in book.shares.values() if rival is not share]
        limit = amount - sum([rival.claim for rival in rivals])
        free = amount - sum([max(rival.claim, rival.spent) for rival in rivals]) - share.spent
        if free > 0:
            demand = self._demand(book, share, budget, report, amount)
            # The other partitions need some of the rest, too, except of less than a unit.
            return share.spent + min(demand, max(free // 2, min(free, budget.unit)))
        return max(0, min(limit, share.spent))

    def _demand(self, book: Book, share: Share, budget: Budget, report: SpendReport, amount: int) -> int:
        """Return what a partition needs for the horizon of a lease, as far as the plan of the day allows, millionths.

        Args:
            book: Day of the campaign.
            share: Part of the partition.
            budget: Budget of the campaign.
            report: Report of the partition.
            amount: Budget of the day, millionths.
        """
        if report.day < self.shape.day:
            planned = amount - book.spent
        else:
            traffic_share = self._traffic_share(budget, book, report.ts + HORIZON_MS)
            planned = int(amount * target_share(budget.pacing, traffic_share)) + budget.unit - book.spent
        if planned <= 0:
            return 0
        entries = sum([part.entries for part in book.shares.values()])
        portion = planned * share.entries / entries if entries else planned
        return max(int(SURPLUS * portion), min(planned, budget.unit))

    def _lease(self, report: SpendReport, grants: list[CampaignLease]) -> BudgetLease:
        """Return a lease with grants, and note them as claims of the partition."""
        number = self.leases[report.partition] = self.leases.get(report.partition, 0) + 1
        for grant in grants:
            share = self.campaigns[grant.campaign_id].days[report.day].shares[report.partition]
            share.granted, share.number = max(share.granted, grant.limit), number
        ends_at = report.ts + TERM_MS
        return BudgetLease(ts=report.ts, number=number, day=report.day, ends_at=ends_at, campaigns=tuple(grants))


def day_budget(budget: Budget, books: CampaignBooks, day: int) -> int:
    """Return the budget of a campaign on a day, millionths: the daily budget, or less where the total is used up.

    A total budget is divided evenly among the days up to the end of the campaign, unless the pacing is `asap`.

    Args:
        budget: Budget of the campaign.
        books: Books of the campaign.
        day: The day, days since 1970.
    """
    amounts = [] if budget.daily is None else [budget.daily]
    if budget.total is not None:
        open_claims = sum([book.claims for open_day, book in books.days.items() if open_day != day])
        remaining = max(0, budget.total - books.closed - open_claims)
        if budget.ends_at is not None and budget.pacing != "asap":
            days = max(1, -(-budget.ends_at // DAY_MS) - day)
            remaining = -(-remaining // days)
        amounts.append(remaining)
    return min(amounts)
