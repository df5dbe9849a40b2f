"""What the console says about budgets, from reports and leases of the log."""

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.leases import BudgetLease, CampaignLease, CampaignSpend, SpendReport
from clickscore.stream.console.budget_tally import MAX_CAMPAIGNS, BudgetTally

DAY = 20_000


def report(number: int, minute: int, spent: int, limit: int = 0, *, partition: int = 0, day: int = DAY, **changes: int):
    spend = CampaignSpend("tea", limit, spent, 0, 0)
    ts = day * DAY_MS + minute * MINUTE_MS
    return SpendReport(ts=ts, partition=partition, number=number, day=day, campaigns=(spend,), **changes)


def lease(number: int, minute: int, limit: int, multiplier: float = 1.0, day: int = DAY) -> BudgetLease:
    ts = day * DAY_MS + minute * MINUTE_MS
    grants = (CampaignLease("tea", limit, multiplier),)
    return BudgetLease(ts=ts, number=number, day=day, ends_at=ts + 10 * MINUTE_MS, campaigns=grants)


def test_spend_and_leases_are_sums_over_the_partitions() -> None:
    tally = BudgetTally()
    tally.add_report(report(1, 0, 0))
    tally.add_lease(0, lease(1, 0, 3_000_000, 0.5))
    tally.add_lease(2, lease(1, 1, 1_500_000, 0.25))
    tally.add_report(report(2, 25, 2_000_000, 3_000_000, lease=1))
    tally.add_report(report(1, 31, 250_000, 1_500_000, partition=2, lease=1))
    assert tally.campaigns()["tea"] == {
        "day_ms": DAY * DAY_MS,
        "begin_ms": DAY * DAY_MS,
        "spent": 2.25,
        "leased": 2.25,
        "multiplier": 0.25,
        "spends": [0.0, 0.0, 2.0, 2.25],
        "multipliers": [0.25] * 4,
    }


def test_repeats_and_days_that_are_over_change_nothing() -> None:
    tally = BudgetTally()
    tally.add_report(report(4, 0, 700_000))
    tally.add_report(report(3, 1, 100_000))
    tally.add_report(report(1, 2, 500_000, partition=1, day=DAY - 1))
    tally.add_lease(0, lease(6, 3, 900_000))
    tally.add_lease(0, lease(6, 4, 100_000))
    tally.add_lease(1, lease(1, 4, 100_000, day=DAY - 1))
    tally.add_report(report(5, 5, 800_000, 700_000, lease=5))  # written before the lease was applied
    assert [tally.campaigns()["tea"][name] for name in ("spent", "leased")] == [0.8, 0.1]


def test_new_day_begins_with_nothing_spent() -> None:
    tally = BudgetTally()
    tally.add_lease(0, lease(1, 1_430, 900_000, 0.5))
    tally.add_report(report(1, 1_439, 900_000, 900_000, lease=1))
    tally.add_report(report(2, 7, 0, day=DAY + 1, lease=1))
    tea = tally.campaigns()["tea"]
    assert (tea["day_ms"], tea["spent"], tea["leased"], tea["multipliers"]) == ((DAY + 1) * DAY_MS, 0.0, 0.0, [None])


def test_forged_numbers_hide_no_true_record() -> None:
    tally = BudgetTally()
    tally.add_report(report(2**53, 0, 999_000_000))  # the first that is read
    tally.add_report(report(7, 1, 100_000))
    tally.add_report(report(2**53, 2, 999_000_000))
    tally.add_lease(0, lease(3, 2, 300_000))
    tally.add_lease(0, lease(2**53, 3, 999_000_000))
    tally.add_lease(0, lease(4, 4, 500_000))
    tally.add_report(report(8, 5, 200_000, 500_000, lease=4))
    assert [tally.campaigns()["tea"][name] for name in ("spent", "leased")] == [0.2, 0.3]


def test_number_of_campaigns_is_bounded() -> None:
    tally = BudgetTally()
    for start in range(0, MAX_CAMPAIGNS + 100, 100):
        spends = tuple(CampaignSpend(f"c{number}", 1, 1, 0, 0) for number in range(start, start + 100))
        tally.add_report(SpendReport(ts=0, partition=0, number=start + 1, day=0, campaigns=spends))
    assert len(tally.campaigns()) == MAX_CAMPAIGNS
