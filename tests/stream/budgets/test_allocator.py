"""Allocator of leases: no budget is exceeded, whatever is lost, repeated or late."""

import random

import msgspec
import pytest

from clickscore.schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS
from clickscore.schemas.leases import BudgetLease, CampaignSpend, SpendReport
from clickscore.stream.budgets.accounts import BudgetAccounts
from clickscore.stream.budgets.allocator import TERM_MS, Allocator, Book, Budget, CampaignBooks, day_budget
from tests.stream.budgets.charges import make_charge

DAY = 20_000
MIDNIGHT = DAY * DAY_MS
UNIT = 10
TEA = Budget(daily=1_000, total=None, unit=UNIT, pacing="asap")


class Shop:
    """Partitions and their allocator, with instant records."""

    def __init__(self, budget: Budget | None, partitions: int = 2) -> None:
        self.budget = budget
        self.accounts = [BudgetAccounts(partition) for partition in range(partitions)]
        self.allocator = Allocator()
        for accounts in self.accounts:
            accounts.advance(MIDNIGHT)

    def find(self, campaign_id: str) -> Budget | None:
        return self.budget if campaign_id == "tea" else None

    def enter(self, partition: int) -> None:
        self.accounts[partition].enter(["tea"])

    def pass_minute(self, number: int, partitions: tuple[int, ...] | None = None) -> list[BudgetLease]:
        """Let a minute of the day begin in the partitions; return the leases."""
        leases: list[BudgetLease] = []
        for partition in partitions if partitions is not None else range(len(self.accounts)):
            accounts = self.accounts[partition]
            for report in accounts.advance(MIDNIGHT + number * MINUTE_MS):
                lease = self.allocator.receive(report, self.find)
                if lease is not None:
                    accounts.apply(lease)
                    leases.append(lease)
        return leases

    def limits(self) -> list[int]:
        return [accounts.campaigns["tea"].limit for accounts in self.accounts]

    @property
    def spent(self) -> int:
        return sum(accounts.campaigns["tea"].spent for accounts in self.accounts if "tea" in accounts.campaigns)


def open_shop(budget: Budget = TEA, partitions: int = 2) -> Shop:
    """Return a shop whose partitions have leases."""
    shop = Shop(budget, partitions)
    for partition in range(partitions):
        shop.enter(partition)
    shop.pass_minute(1)
    return shop


def test_partitions_share_a_budget():
    shop = open_shop()
    assert all(shop.limits())
    assert sum(shop.limits()) <= 1_000
    for minute in range(2, 40):
        for partition, accounts in enumerate(shop.accounts):
            shop.enter(partition)
            accounts.charge(make_charge(40))
        shop.pass_minute(minute)
    assert shop.spent == 1_000


def test_partition_without_pages_gets_no_lease():
    shop = Shop(TEA)
    shop.enter(1)
    (lease,) = shop.pass_minute(1)
    assert lease.ends_at == MIDNIGHT + MINUTE_MS + TERM_MS
    assert [grant.campaign_id for grant in lease.campaigns] == ["tea"]
    assert shop.pass_minute(2) == []


def test_campaign_without_a_budget_gets_no_lease():
    shop = Shop(None)
    shop.enter(0)
    assert shop.pass_minute(1) == []


def test_unspent_lease_of_a_dead_worker_returns_after_its_term():
    shop = open_shop()
    shop.accounts[0].charge(make_charge(20))
    lease = shop.limits()[0]
    for minute in range(2, 15):  # nobody reads partition 0
        shop.enter(1)
        shop.accounts[1].charge(make_charge(1_000))
        shop.pass_minute(minute, (1,))
    assert shop.spent == 1_000 - lease + 20
    shop.pass_minute(15, (0,))  # another worker takes it over
    assert shop.limits()[0] == 20
    shop.enter(1)
    shop.pass_minute(16, (1,))
    shop.enter(1)
    shop.pass_minute(17, (1,))
    assert shop.spent == 1_000


def test_owed_clicks_come_before_the_plans_of_others():
    shop = open_shop()
    shop.accounts[0].charge(make_charge(900))
    owed = shop.accounts[0].campaigns["tea"].owed
    shop.enter(1)
    shop.pass_minute(2, (1,))
    assert shop.limits()[1] < owed
    shop.pass_minute(3)
    shop.pass_minute(4)
    assert shop.accounts[0].campaigns["tea"].owed < owed


def test_lower_budget_takes_unspent_leases_back():
    shop = open_shop()
    shop.budget = TEA._replace(daily=5)
    for minute in (2, 3):
        for partition in (0, 1):
            shop.enter(partition)
        shop.pass_minute(minute)
    assert sum(shop.limits()) <= 5


def test_repeated_report_changes_nothing():
    shop = Shop(TEA)
    report = SpendReport(
        ts=MIDNIGHT, partition=0, number=1, day=DAY, pages=1, campaigns=(CampaignSpend("tea", 0, 0, 0, 1),)
    )
    assert shop.allocator.receive(report, shop.find) is not None
    assert shop.allocator.receive(report, shop.find) is None
    assert shop.allocator.shape.counts[0] == 1


def test_report_with_a_forged_number_does_not_silence_the_partition():
    shop = Shop(TEA)
    spends = (CampaignSpend("tea", 0, 0, 0, 1),)
    forged = SpendReport(ts=MIDNIGHT, partition=0, number=2**53, day=DAY, campaigns=spends)
    assert shop.allocator.receive(forged, shop.find) is None
    assert shop.allocator.receive(msgspec.structs.replace(forged, number=1), shop.find) is not None


def test_invented_campaign_has_no_books():
    shop = Shop(TEA)
    spends = (CampaignSpend("invented", 0, 0, 0, 1),)
    shop.allocator.receive(SpendReport(ts=MIDNIGHT, partition=0, number=1, day=DAY, campaigns=spends), shop.find)
    assert shop.allocator.campaigns == {}


def test_report_of_a_day_with_closed_books_is_ignored():
    shop = Shop(TEA)
    late = SpendReport(ts=MIDNIGHT, partition=0, number=1, day=DAY, campaigns=(CampaignSpend("tea", 0, 0, 0, 1),))
    newest = SpendReport(ts=MIDNIGHT + 2 * DAY_MS, partition=1, number=1, day=DAY + 2)
    shop.allocator.receive(newest, shop.find)
    assert shop.allocator.receive(late, shop.find) is None


def test_partition_that_is_a_day_behind_gets_what_its_day_has_left():
    shop = open_shop()
    shop.accounts[1].enter(["tea"])
    shop.pass_minute(1_440, (1,))
    shop.accounts[1].enter(["tea"])
    shop.pass_minute(1_441, (1,))
    assert shop.allocator.shape.day == DAY + 1
    shop.enter(0)
    shop.pass_minute(2, (0,))
    shop.accounts[0].charge(make_charge(1_000))
    for minute in (3, 4, 5):
        shop.enter(0)
        shop.pass_minute(minute, (0,))
    assert shop.accounts[0].campaigns["tea"].spent == 1_000 - shop.allocator.campaigns["tea"].days[DAY].shares[1].claim


def test_even_pacing_grants_along_the_day():
    shop = open_shop(TEA._replace(daily=144_000, pacing="even"))
    assert sum(shop.limits()) < 5_000
    multipliers, minute = [], 1
    for minute in range(2, 100):
        for partition, accounts in enumerate(shop.accounts):
            shop.enter(partition)
            if accounts.multiplier("tea") is not None:
                accounts.reserve("tea", 300)
                accounts.charge(make_charge(300))
        multipliers += [grant.multiplier for lease in shop.pass_minute(minute) for grant in lease.campaigns]
    while shop.spent > 144_000 * minute / 1_440 / 0.95:  # ahead: nothing more is granted
        minute += 1
        shop.enter(0)
        shop.pass_minute(minute, (0,))
        assert sum(shop.limits()) < 20_000
    assert min(multipliers) < 0.5  # the spend does not react to the bid here
    assert shop.spent < 144_000 * 110 / 1_440 / 0.95 + 10 * UNIT


def test_campaign_that_is_ahead_of_its_plan_gets_nothing_more():
    shop = open_shop(TEA._replace(daily=144_000, pacing="even"), 1)
    shop.accounts[0].charge(make_charge(20_000))
    shop.enter(0)
    shop.pass_minute(2)
    owed = shop.accounts[0].campaigns["tea"].owed
    shop.enter(0)
    shop.pass_minute(3)
    assert (owed, shop.limits()) == (0, [20_000])  # what is owed is paid, and no more is granted


def test_budget_starts_and_ends_with_its_campaign():
    begin, end = MIDNIGHT + 6 * HOUR_MS, MIDNIGHT + 7 * HOUR_MS
    shop = Shop(TEA._replace(daily=60_000, pacing="even", starts_at=begin, ends_at=end), 1)
    shop.enter(0)
    shop.pass_minute(6 * 60)
    early = shop.limits()[0]
    shop.enter(0)
    shop.pass_minute(7 * 60)
    assert early < 16_000  # the plan of ten minutes and half as much again
    assert shop.limits()[0] == 30_000  # half of the rest, at once: the plan is behind


def test_campaign_that_has_ended_keeps_its_budget():
    shop = Shop(TEA._replace(pacing="even", starts_at=MIDNIGHT, ends_at=MIDNIGHT), 1)
    shop.enter(0)
    shop.pass_minute(1)
    assert shop.limits()[0] > 0  # the auction says whether a campaign runs; late clicks may be charged


def test_new_day_has_a_new_budget():
    shop = open_shop()
    for minute in range(2, 20):
        for partition, accounts in enumerate(shop.accounts):
            shop.enter(partition)
            accounts.charge(make_charge(100))
        shop.pass_minute(minute)
    assert shop.spent == 1_000
    shop.pass_minute(1_440)
    shop.enter(0)
    shop.pass_minute(1_441)
    assert shop.accounts[0].campaigns["tea"].limit > 0
    assert shop.allocator.campaigns["tea"].days[DAY].spent == 1_000


def test_campaign_without_a_budget_is_forgotten_when_its_books_close():
    shop = open_shop()
    shop.budget = None
    shop.accounts[0].enter([])
    shop.pass_minute(2 * 1_440 + 1)
    shop.accounts[0].enter([])
    shop.pass_minute(2 * 1_440 + 2)
    assert shop.allocator.campaigns == {}


def test_total_budget_counts_all_days():
    shop = open_shop(TEA._replace(daily=None, total=1_500))
    for day in range(4):
        for minute in range(2, 30):
            for partition, accounts in enumerate(shop.accounts):
                shop.enter(partition)
                accounts.charge(make_charge(20))
            shop.pass_minute(day * 1_440 + minute)
        books = shop.allocator.campaigns["tea"]
        assert books.closed + sum(book.claims for book in books.days.values()) <= 1_500
    assert shop.allocator.campaigns["tea"].closed > 1_000


@pytest.mark.parametrize(
    ("budget", "amount"),
    [
        (Budget(300, 1_000, UNIT), 300),
        (Budget(None, 1_000, UNIT), 800),
        (Budget(None, 1_000, UNIT, ends_at=MIDNIGHT + 4 * DAY_MS), 200),
        (Budget(None, 1_000, UNIT, "asap", ends_at=MIDNIGHT + 4 * DAY_MS), 800),
        (Budget(None, 1_000, UNIT, ends_at=MIDNIGHT - DAY_MS), 800),
        (Budget(None, 100, UNIT), 0),
    ],
)
def test_budget_of_a_day(budget: Budget, amount: int):
    books = CampaignBooks(closed=150, days={DAY: Book()})
    books.days[DAY - 1] = Shop(TEA).allocator.campaigns.get("tea", CampaignBooks()).days.get(DAY, Book())
    books.closed = 200
    assert day_budget(budget, books, DAY) == amount


def test_no_budget_is_exceeded_whatever_is_lost_repeated_or_late():
    """Records of a partition come in order, but at any time, more than once, and some partitions stand still."""
    for seed in range(5):
        rng = random.Random(seed)
        budget = Budget(rng.randrange(50, 3_000), None, rng.randrange(1, 60), rng.choice(["even", "asap"]))
        shop = Shop(budget, 3)
        inbox: list[SpendReport] = []
        logs: list[list[BudgetLease]] = [[], [], []]
        clocks, spent = [0, 0, 0], [[0] * 3 for _ in range(3)]  # by partition and day
        for _ in range(800):
            partition = rng.choice([0, 0, 0, 1, 1, 2])
            accounts = shop.accounts[partition]
            clocks[partition] = min(clocks[partition] + rng.choice([0, 1, 1, 30]), 3 * 1_440 - 1)
            inbox += accounts.advance(MIDNIGHT + clocks[partition] * MINUTE_MS)
            shop.enter(partition)
            accounts.charge(make_charge(rng.randrange(1, 200)))
            while inbox and rng.random() < 0.5:
                report = inbox[0] if rng.random() < 0.2 else inbox.pop(0)  # some are read again
                lease = shop.allocator.receive(report, shop.find)
                if lease is not None:
                    logs[report.partition].append(lease)
            while logs[partition] and rng.random() < 0.4:
                accounts.apply(logs[partition][0] if rng.random() < 0.2 else logs[partition].pop(0))
            spent[partition][accounts.day - DAY] = accounts.campaigns["tea"].spent
        assert budget.daily is not None
        assert all(sum(row[day] for row in spent) <= budget.daily for day in range(3))
        assert sum(map(sum, spent)) > 0


def test_campaign_that_loses_its_budget_during_the_day_gets_no_new_lease():
    shop = open_shop()
    granted = sum(shop.limits())
    assert granted > 0
    shop.budget = None
    for minute in range(5, 40):
        shop.enter(0)
        for lease in shop.pass_minute(minute):
            assert all(grant.limit == 0 for grant in lease.campaigns)
    assert shop.spent == 0
