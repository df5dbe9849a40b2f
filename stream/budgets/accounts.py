"""Budget accounts: what a partition may spend for each campaign today, what it has spent, and its reports.

The accounts change record by record in the order of the log. Nothing is charged above the leases: the rest of a charge
is owed until the next lease of the day, and is given up with the day.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import msgspec

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.leases import (
    MAX_CAMPAIGNS,
    MICROS,
    MONEY_DECIMALS,
    BudgetLease,
    CampaignSpend,
    SpendReport,
    is_next,
)
from clickscore.schemas.outcomes import AdCharge

REPORT_MS = MINUTE_MS
"""Event time between two reports of a partition, ms."""
MAX_OWED = 100
"""Charges of a campaign that wait for a lease, at most; further ones are given up."""
RESERVED_REPORTS = 3
"""Reports after which the expected spend of a sold slot is no longer reserved: later clicks are few."""


def round_up(price: float) -> int:
    """Return a price in millionths, rounded up: the spend of an account is never below the sum of the charges."""
    return -(-round(price * 10**MONEY_DECIMALS) // (10**MONEY_DECIMALS // MICROS))


class Account(msgspec.Struct, array_like=True, gc=False):
    """Account of a campaign in a partition on a day; amounts in millionths."""

    limit: int = 0
    """What the partition may spend on the day, what is spent included."""
    ends_at: int = 0
    """End of the term of the lease in event time, ms."""
    spent: int = 0
    """What was charged; never above the limit."""
    owed: int = 0
    """What is to be charged with the next lease."""
    owed_charges: list[AdCharge] = []
    """The same by charge, oldest first."""
    expected: int = 0
    """Expected spend of all sold slots: price times probability."""
    entries: int = 0
    """Auctions that the campaign entered, or would have entered with a lease."""
    multiplier: float = 1.0
    """Factor on the bid."""
    reserved: list[int] = []
    """Expected spend of the newest sold slots, by time between reports, the newest last."""
    is_changed: bool = False
    """Whether anything changed since the last report."""

    @property
    def remaining(self) -> int:
        """What the campaign may still spend, less the reservations for clicks still to come; may be below 0."""
        return self.limit - self.spent - self.owed - sum(self.reserved)


class BudgetAccounts(msgspec.Struct, array_like=True):
    """Accounts of a partition."""

    partition: int
    day: int = -1
    """Present day of the partition, days since 1970; -1 before the first report."""
    reported_at: int = -1
    """Number of the time between reports that was reported last: event time over `REPORT_MS`."""
    report: int = 0
    """Number of the newest report."""
    lease: int = 0
    """Number of the newest applied lease."""
    pages: int = 0
    """Pages with a matching campaign since the last report."""
    campaigns: dict[str, Account] = {}

    def is_due(self, ts: int) -> bool:
        """Return whether reports may be due at a time (ms)."""
        return ts // REPORT_MS > self.reported_at

    def changed_by_time(self, ts: int) -> list[str]:
        """Return the campaigns whose accounts change as the newest event time moves to a time (ms)."""
        if not self.is_due(ts):
            return []
        if ts // DAY_MS > self.day:
            return list(self.campaigns)
        return [
            campaign_id
            for campaign_id, account in self.campaigns.items()
            if account.is_changed or account.reserved or (account.limit > account.spent and ts >= account.ends_at)
        ]

    def advance(self, ts: int) -> list[SpendReport]:
        """Move to the newest event time of the partition, ms; return the reports that are due.

        Without pages and changes there is no report. A lease ends with the first report after its term.
        """
        if not self.is_due(ts):
            return []
        reports: list[SpendReport] = []
        self.reported_at = ts // REPORT_MS
        if ts // DAY_MS > self.day:
            if self.campaigns:
                reports += self._reports((self.day + 1) * DAY_MS - 1, self._end_day())
                self.campaigns = {}
            self.day = ts // DAY_MS
        spends = list(self._changes(ts))
        if spends or self.pages:
            reports += self._reports(ts, spends)
        return reports

    def _end_day(self) -> list[CampaignSpend]:
        """Return the last figures of the day: what was not spent returns, and what is owed is given up."""
        return [
            CampaignSpend(campaign_id, account.spent, account.spent, account.expected, account.entries)
            for campaign_id, account in sorted(self.campaigns.items(), key=itemgetter(0))
        ]

    def _changes(self, ts: int) -> Iterator[CampaignSpend]:
        """Yield the figures of the changed accounts; end the leases and the reservations whose time is over."""
        for campaign_id, account in sorted(self.campaigns.items(), key=itemgetter(0)):
            if account.limit > account.spent and ts >= account.ends_at:
                account.limit = account.spent
                account.is_changed = True
            if account.reserved:
                account.reserved = [*account.reserved, 0][-RESERVED_REPORTS:] if any(account.reserved) else []
            if account.is_changed:
                account.is_changed = False
                spent = account.spent + account.owed
                yield CampaignSpend(campaign_id, account.limit, spent, account.expected, account.entries)

    def _reports(self, ts: int, spends: Sequence[CampaignSpend]) -> Iterator[SpendReport]:
        """Yield reports with the figures of campaigns; those of a day that is over are final.

        Args:
            ts: Event time of the reports, ms.
            spends: Figures of the changed campaigns.
        """
        for start in range(0, max(1, len(spends)), MAX_CAMPAIGNS):
            self.report += 1
            yield SpendReport(
                ts=ts,
                partition=self.partition,
                number=self.report,
                day=self.day,
                lease=self.lease,
                pages=self.pages,
                is_final=ts // REPORT_MS < self.reported_at,
                campaigns=tuple(spends[start : start + MAX_CAMPAIGNS]),
            )
            self.pages = 0

    def apply(self, lease: BudgetLease) -> list[AdCharge]:
        """Apply a lease, unless its number is not the next one; return the charges of what was owed."""
        charges: list[AdCharge] = []
        if not is_next(lease.number, self.lease):
            return charges
        self.lease = lease.number
        if lease.day == self.day:
            for grant in lease.campaigns:
                account = self.campaigns.setdefault(grant.campaign_id, Account())
                account.limit = max(account.spent, grant.limit)
                account.ends_at = lease.ends_at
                account.multiplier = grant.multiplier
                account.is_changed = True
                charges += self._settle(account)
        return charges

    def _settle(self, account: Account) -> Iterator[AdCharge]:
        """Charge what is owed, as far as the lease reaches; yield the charges."""
        while account.owed_charges and account.limit > account.spent:
            oldest = account.owed_charges[0]
            amount = min(round_up(oldest.net), account.limit - account.spent)
            account.spent += amount
            account.owed -= amount
            net = min(oldest.net, amount / MICROS)
            charge_id = f"{oldest.charge_id}/{self.lease}"
            yield msgspec.structs.replace(oldest, charge_id=charge_id, gross=0.0, net=net, reason="charged")
            rest = round(oldest.net - net, MONEY_DECIMALS)
            account.owed_charges = account.owed_charges[1:]
            if rest:
                account.owed_charges = [msgspec.structs.replace(oldest, net=rest), *account.owed_charges]

    def cancel(self, campaign_id: str, decision_id: str, slot: int) -> None:
        """Give up the debt for a slot.

        Args:
            campaign_id: Campaign of the slot.
            decision_id: Id of the recommendation of the page.
            slot: Index of the slot in the decision on ads.
        """
        account = self.campaigns.get(campaign_id)
        if account is None:
            return
        charges = account.owed_charges
        account.owed_charges = [c for c in charges if (c.decision_id, c.slot) != (decision_id, slot)]
        if len(account.owed_charges) < len(charges):
            account.owed = sum([round_up(charge.net) for charge in account.owed_charges])
            account.is_changed = True

    def multiplier(self, campaign_id: str) -> float | None:
        """Return the factor on the bid of a campaign; None where no lease lets it spend."""
        account = self.campaigns.get(campaign_id)
        return account.multiplier if account is not None and account.remaining > 0 else None

    def enter(self, campaign_ids: Sequence[str]) -> None:
        """Count a page of which the campaigns with budgets could take part, with or without a lease."""
        self.pages += 1
        for campaign_id in campaign_ids:
            account = self.campaigns.setdefault(campaign_id, Account())
            account.entries += 1
            account.is_changed = True

    def reserve(self, campaign_id: str, amount: int) -> None:
        """Reserve the expected spend (millionths) of a sold slot, for a while."""
        account = self.campaigns.setdefault(campaign_id, Account())
        account.expected += amount
        account.reserved = [*account.reserved[:-1], (account.reserved[-1] if account.reserved else 0) + amount]

    def charge(self, charge: AdCharge) -> AdCharge:
        """Charge a campaign; return the charge with what the leases can pay. The rest is owed.

        Args:
            charge: The charge; its `net` is above 0.
        """
        account = self.campaigns.setdefault(charge.campaign_id, Account())
        amount = round_up(charge.net)
        charged = min(amount, account.limit - account.spent)
        account.spent += charged
        account.is_changed = True
        if charged == amount:
            return charge
        if len(account.owed_charges) < MAX_OWED:
            account.owed += amount - charged
            owed = msgspec.structs.replace(charge, net=round(charge.net - charged / MICROS, MONEY_DECIMALS))
            account.owed_charges = [*account.owed_charges, owed]
        return msgspec.structs.replace(charge, net=charged / MICROS, reason="budget")
