"""Budget accounts of a partition: leases, charges and reports."""

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.leases import MAX_CAMPAIGNS, BudgetLease, CampaignLease, CampaignSpend, to_micros
from clickscore.stream.budgets.accounts import MAX_OWED, RESERVED_REPORTS, BudgetAccounts
from tests.stream.budgets.charges import make_charge

DAY = 20_000
MIDNIGHT = DAY * DAY_MS


def make_lease(number: int, limit: int, multiplier: float = 1.0, *, ends_at: int = 10, day: int = DAY) -> BudgetLease:
    grants = (CampaignLease("tea", limit, multiplier),)
    return BudgetLease(ts=MIDNIGHT, number=number, day=day, ends_at=MIDNIGHT + ends_at * MINUTE_MS, campaigns=grants)


def pay(accounts: BudgetAccounts, amount: int) -> int:
    """Charge a campaign; return what was charged, in millionths."""
    return to_micros(accounts.charge(make_charge(amount)).net)


def open_accounts(limit: int = 0) -> BudgetAccounts:
    """Return accounts at midnight; with a limit they have a lease of 10 minutes."""
    accounts = BudgetAccounts(3)
    accounts.advance(MIDNIGHT)
    if limit:
        accounts.apply(make_lease(1, limit))
    return accounts


def minute(number: int) -> int:
    return MIDNIGHT + number * MINUTE_MS


def test_partition_without_budgets_reports_nothing():
    accounts = open_accounts()
    assert accounts.advance(minute(1)) == []
    assert accounts.advance(minute(2 * 1_440)) == []


def test_pages_of_a_campaign_ask_for_a_lease():
    accounts = open_accounts()
    accounts.enter(["tea"])
    accounts.enter(["tea", "mugs"])
    assert accounts.multiplier("tea") is None
    (report,) = accounts.advance(minute(1))
    assert (report.partition, report.number, report.day, report.lease, report.pages) == (3, 1, DAY, 0, 2)
    assert report.campaigns == (CampaignSpend("mugs", 0, 0, 0, 1), CampaignSpend("tea", 0, 0, 0, 2))
    assert accounts.advance(minute(1) + 59_999) == []
    assert accounts.advance(minute(2)) == []  # nothing has changed


def test_page_without_a_budgeted_campaign_counts_for_the_shape():
    accounts = open_accounts()
    accounts.enter([])
    (report,) = accounts.advance(minute(1))
    assert (report.pages, report.campaigns) == (1, ())


def test_nothing_is_charged_above_the_lease_and_the_rest_is_owed():
    accounts = open_accounts(limit=100)
    assert pay(accounts, 70) == 70
    assert pay(accounts, 70) == 30
    account = accounts.campaigns["tea"]
    assert (account.spent, account.owed) == (100, 40)
    assert accounts.multiplier("tea") is None
    (first,) = accounts.apply(make_lease(2, 120, 0.5))
    assert (account.spent, account.owed) == (120, 20)
    (second,) = accounts.apply(make_lease(3, 150, 0.5))
    assert [(charge.charge_id, to_micros(charge.net), charge.reason) for charge in (first, second)] == [
        ("decision/0/0/2", 20, "charged"),
        ("decision/0/0/3", 20, "charged"),
    ]
    assert (account.spent, account.owed) == (140, 0)
    assert accounts.multiplier("tea") == 0.5


def test_campaign_without_a_lease_owes_everything():
    accounts = open_accounts()
    assert pay(accounts, 70) == 0
    assert accounts.campaigns["tea"].owed == 70


def test_expected_clicks_are_reserved_for_some_minutes():
    accounts = open_accounts(limit=100)
    accounts.reserve("tea", 60)
    accounts.reserve("tea", 30)
    assert accounts.campaigns["tea"].remaining == 10
    accounts.reserve("tea", 10)
    assert accounts.multiplier("tea") is None
    for number in range(1, RESERVED_REPORTS + 1):
        assert accounts.multiplier("tea") is None
        accounts.advance(minute(number))
    assert accounts.campaigns["tea"].remaining == 100
    assert accounts.campaigns["tea"].expected == 100
    accounts.advance(minute(RESERVED_REPORTS + 1))
    assert accounts.campaigns["tea"].reserved == []


def test_repeated_and_older_leases_change_nothing():
    accounts = open_accounts(limit=100)
    assert accounts.apply(make_lease(1, 500)) == []
    assert accounts.campaigns["tea"].limit == 100


def test_lease_with_a_forged_number_does_not_end_the_leases():
    accounts = open_accounts(limit=100)
    assert accounts.apply(make_lease(2**53, 500)) == []
    assert accounts.campaigns["tea"].limit == 100
    accounts.apply(make_lease(2, 500))
    assert accounts.campaigns["tea"].limit == 500


def test_lease_may_take_back_what_is_not_spent():
    accounts = open_accounts(limit=100)
    pay(accounts, 60)
    accounts.apply(make_lease(2, 10))
    assert accounts.campaigns["tea"].limit == 60


def test_lease_ends_with_its_term():
    accounts = open_accounts(limit=100)
    pay(accounts, 30)
    accounts.advance(minute(9))
    assert accounts.multiplier("tea") == 1.0
    (report,) = accounts.advance(minute(10))
    assert report.campaigns == (CampaignSpend("tea", 30, 30, 0, 0),)
    assert accounts.multiplier("tea") is None
    assert pay(accounts, 1) == 0


def test_day_ends_with_a_final_report_and_a_lease_of_it_is_void():
    accounts = open_accounts(limit=100)
    pay(accounts, 30)
    pay(accounts, 80)
    accounts.advance(minute(1))
    accounts.enter(["tea"])
    (final,) = accounts.advance(MIDNIGHT + DAY_MS)
    assert (final.day, final.is_final, final.ts) == (DAY, True, MIDNIGHT + DAY_MS - 1)
    assert final.campaigns == (CampaignSpend("tea", 100, 100, 0, 1),)
    assert (accounts.day, accounts.campaigns) == (DAY + 1, {})
    assert accounts.apply(make_lease(2, 500)) == []
    assert accounts.campaigns == {}
    assert accounts.lease == 2


def test_many_campaigns_take_several_reports():
    accounts = open_accounts()
    accounts.enter([f"campaign-{number}" for number in range(MAX_CAMPAIGNS + 1)])
    first, second = accounts.advance(minute(1))
    assert (len(first.campaigns), len(second.campaigns)) == (MAX_CAMPAIGNS, 1)
    assert (first.number, second.number, first.pages, second.pages) == (1, 2, 1, 0)


def test_charges_that_wait_are_bounded():
    accounts = open_accounts()
    for _ in range(MAX_OWED + 5):
        pay(accounts, 2)
    assert accounts.campaigns["tea"].owed == 2 * MAX_OWED
    assert len(accounts.apply(make_lease(1, 1_000))) == MAX_OWED


def test_time_between_two_reports_changes_no_account():
    accounts = open_accounts(limit=10)
    assert accounts.changed_by_time(minute(0) + 59_999) == []
    assert accounts.changed_by_time(minute(1)) == ["tea"]
