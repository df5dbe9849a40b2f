"""Budgets of a partition: accounts, allocator and click rates as records of the ledger, for the changelog.

The accounts and the click rates are in every partition. The allocator is in partition 0, where all reports are written.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.decisions import SoldSlot
from clickscore.schemas.leases import BudgetLease, SpendReport, to_micros, unit_price
from clickscore.schemas.open_decisions import LEDGER_PREFIX, UserLedger
from clickscore.schemas.outcomes import AdCharge
from clickscore.schemas.snapshots import UserState, changed_by, decode_user, encode, is_outdated
from clickscore.stream.budgets.accounts import Account, BudgetAccounts
from clickscore.stream.budgets.allocator import Allocator, CampaignBooks, FindBudget
from clickscore.stream.budgets.click_rates import ClickHistory, ClickRates

BUDGET_PREFIX = LEDGER_PREFIX + "b"
"""Beginning of the keys of budget records in `session-snapshots`."""
_ACCOUNT, _BOOKS, _CLICKS = (BUDGET_PREFIX + kind for kind in "acr")
# followed by the campaign; without one for what is shared

_decode_accounts = msgspec.msgpack.Decoder(BudgetAccounts).decode
_decode_account = msgspec.msgpack.Decoder(Account).decode
_decode_allocator = msgspec.msgpack.Decoder(Allocator).decode
_decode_books = msgspec.msgpack.Decoder(CampaignBooks).decode
_decode_history = msgspec.msgpack.Decoder(ClickHistory).decode


def check_budget(key: str, value: bytes) -> None:
    """Check the value of a budget record.

    Args:
        key: Key of the record.
        value: Field `budget` of the ledger in the record.

    Raises:
        msgspec.DecodeError: The value cannot be read.
    """
    kind, name = key[: len(_ACCOUNT)], key[len(_ACCOUNT) :]
    if kind == _ACCOUNT:
        (_decode_account if name else _decode_accounts)(value)
    elif kind == _CLICKS:
        _decode_history(value)
    else:
        (_decode_books if name else _decode_allocator)(value)


class AdOutcome(NamedTuple):
    """Outcome of a seen ad that is paid by clicks."""

    campaign_id: str
    day: int
    """Day of the decision, days since 1970, UTC."""
    expected: float
    """Probability of a click as the model expected it, without learned factors."""
    is_clicked: bool


class BudgetChange(msgspec.Struct, frozen=True):
    """A changed budget record; a tombstone where `value` is absent."""

    key: str
    value: bytes | None
    offset: int


class PartitionBudgets:
    """Accounts of a partition, the allocator, and how often ads are clicked."""

    def __init__(self, partition: int) -> None:
        """Start without budgets.

        Args:
            partition: Number of the partition.
        """
        self.accounts = BudgetAccounts(partition)
        self.allocator = Allocator()
        self.click_rates = ClickRates()
        self.has_leases = False
        """Whether any lease has something left, as of the last report: it returns as time passes."""
        self._offset = -1  # source offset of the present record
        self._touched: dict[str, int] = {}  # offset of the last change, by key
        self._records: dict[str, bytes] = {}
        self._overlaid: set[str] = set()

    def advance(self, max_ts: int, offset: int) -> list[SpendReport]:
        """Begin a record; return the reports that are due.

        Args:
            max_ts: Largest event time of the partition, ms.
            offset: Source offset of the record.
        """
        self._offset = offset
        if not self.accounts.is_due(max_ts):
            return []
        has_accounts, reported_at = bool(self.accounts.campaigns), self.accounts.reported_at
        changed = self.accounts.changed_by_time(max_ts)
        reports = self.accounts.advance(max_ts)
        if (has_accounts or reports) and self.accounts.reported_at > reported_at:
            self._touch(_ACCOUNT, "", *changed)
            self.has_leases = any(account.limit > account.spent for account in self.accounts.campaigns.values())
        return reports

    def multiplier(self, campaign_id: str) -> float | None:
        """Return the factor on the bid of a campaign with a budget; None where no lease lets it spend."""
        return self.accounts.multiplier(campaign_id)

    def note_page(self, entrants: Sequence[str], slots: Iterable[SoldSlot]) -> None:
        """Count a page, and reserve the expected spend of its sold slots.

        Args:
            entrants: Campaigns with a budget that could take part, with or without a lease.
            slots: Sold slots of the page.
        """
        self.accounts.enter(entrants)
        for slot in slots:
            if slot.multiplier is not msgspec.UNSET:
                price = unit_price(slot.price, slot.bid_per)
                self.accounts.reserve(slot.campaign_id, to_micros(price * slot.probability * slot.exposure))
        self._touch(_ACCOUNT, "", *entrants)

    def learn(self, outcome: AdOutcome, offset: int) -> None:
        """Learn from the outcome of a seen ad.

        Args:
            outcome: The outcome.
            offset: Source offset of the record with which the outcome is known.
        """
        campaigns = self.click_rates.add(*outcome[:3], is_clicked=outcome.is_clicked)
        for name in ("", *campaigns):
            self._touched[_CLICKS + name] = offset

    def find_click_factor(self) -> Callable[[str], float] | None:
        """Return a function from a campaign to the factor on its click probability; None before there are enough."""
        level = self.click_rates.level
        return None if level is None else lambda campaign_id: self.click_rates.factor(campaign_id, level)

    def charge(self, charge: AdCharge) -> AdCharge:
        """Charge a campaign with a budget; return the charge with what its leases can pay.

        A credit is paid back, and does not open the budget of the day again.
        """
        if charge.net <= 0:
            return charge
        self._touch(_ACCOUNT, "", charge.campaign_id)
        return self.accounts.charge(charge)

    def cancel(self, campaign_id: str, decision_id: str, slot: int) -> None:
        """Give up the debt of a campaign for a slot.

        Args:
            campaign_id: Campaign of the slot.
            decision_id: Id of the recommendation of the page.
            slot: Index of the slot in the decision on ads.
        """
        self._touch(_ACCOUNT, "", campaign_id)
        self.accounts.cancel(campaign_id, decision_id, slot)

    def apply(self, lease: BudgetLease) -> list[AdCharge]:
        """Apply a lease; return the charges of what was owed."""
        self.has_leases = True
        charges = self.accounts.apply(lease)
        self._touch(_ACCOUNT, "", *(grant.campaign_id for grant in lease.campaigns))
        return charges

    def receive(self, report: SpendReport, find_budget: FindBudget) -> BudgetLease | None:
        """Give a report to the allocator; return the lease that answers the report, if any.

        Args:
            report: The report.
            find_budget: Returns the budget of a campaign.
        """
        campaigns, stepped_at = set(self.allocator.campaigns), self.allocator.stepped_at
        day = self.allocator.shape.day
        lease = self.allocator.receive(report, find_budget)
        if (stepped_at, day) != (self.allocator.stepped_at, self.allocator.shape.day):
            campaigns.update(self.allocator.campaigns)
        else:
            campaigns = {spend.campaign_id for spend in report.campaigns}.intersection(self.allocator.campaigns)
        self._touch(_BOOKS, "", *sorted(campaigns))
        return lease

    def _touch(self, kind: str, *names: str) -> None:
        for name in names:
            self._touched[kind + name] = self._offset

    def _encode(self, key: str) -> bytes | None:
        """Return the value of a record; None where there is nothing to remember."""
        kind, name = key[: len(_ACCOUNT)], key[len(_ACCOUNT) :]
        part: object
        if kind == _ACCOUNT:
            accounts = self.accounts
            part = accounts.campaigns.get(name) if name else msgspec.structs.replace(accounts, campaigns={})
        elif kind == _CLICKS:
            part = self.click_rates.campaigns.get(name) if name else self.click_rates.total
        else:
            allocator = self.allocator
            part = allocator.campaigns.get(name) if name else msgspec.structs.replace(allocator, campaigns={})
        return None if part is None else msgspec.msgpack.encode(part)

    def flush(self, offset: int) -> list[BudgetChange]:
        """End a batch; return the changed records.

        Args:
            offset: Source offset of the last record of the batch.
        """
        changes: list[BudgetChange] = []
        for key, touched_by in self._touched.items():
            value = self._encode(key)
            if value is None:
                self._records.pop(key, None)
                changes.append(BudgetChange(key, None, touched_by))
            else:
                self._records[key] = encode(UserState(offset=touched_by, ledger=UserLedger(budget=value)))
                changes.append(BudgetChange(key, self._records[key], touched_by))
        for key in sorted(self._overlaid.difference(self._touched)):
            record = self._records.get(key)
            changes.append(BudgetChange(key, record, changed_by(record, offset)))
        self._touched.clear()
        self._overlaid.clear()
        return changes

    def load(self, key: str, record: bytes) -> None:
        """Restore a record.

        Args:
            key: Key of the record.
            record: Its value.
        """
        self._records[key] = record
        kind, name = key[: len(_ACCOUNT)], key[len(_ACCOUNT) :]
        value = (decode_user(record).ledger or UserLedger()).budget or b""
        if kind == _ACCOUNT and name:
            account = self.accounts.campaigns[name] = _decode_account(value)
            self.has_leases = self.has_leases or account.limit > account.spent
        elif kind == _ACCOUNT:
            self.accounts = msgspec.structs.replace(_decode_accounts(value), campaigns=self.accounts.campaigns)
        elif kind == _CLICKS and name:
            self.click_rates.campaigns[name] = _decode_history(value)
        elif kind == _CLICKS:
            self.click_rates.total = _decode_history(value)
        elif name:
            self.allocator.campaigns[name] = _decode_books(value)
        else:
            self.allocator = msgspec.structs.replace(_decode_allocator(value), campaigns=self.allocator.campaigns)

    def contents(self) -> dict[str, bytes]:
        """Return all records by key, as of the last flush."""
        return dict(self._records)

    def is_overlaid(self, key: str, offset: int, *, is_tombstone: bool) -> bool:
        """Return whether a record of the changelog is older than what is here.

        Args:
            key: Key of the record.
            offset: Source offset of the record.
            is_tombstone: Whether the record has no value.
        """
        return is_outdated(self._records.get(key), offset, is_tombstone=is_tombstone)

    def rewrite(self, keys: Iterable[str]) -> None:
        """Write these records again with the next flush; a tombstone where nothing is remembered."""
        self._overlaid.update(keys)

    @property
    def needs_flush(self) -> bool:
        """Whether records wait to be written again."""
        return bool(self._overlaid)
