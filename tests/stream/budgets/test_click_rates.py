"""Click rates: factors learned from outcomes, by campaign, for some days."""

import msgspec
import pytest

from clickscore.schemas.open_decisions import LEDGER_PREFIX
from clickscore.stream.budgets.click_rates import DAYS, ENOUGH_CLICKS, MAX_CAMPAIGNS, PRIOR_CLICKS, ClickRates
from clickscore.stream.budgets.partition_budgets import BUDGET_PREFIX, AdOutcome, PartitionBudgets, check_budget

DAY = 20_000


def learned(rates: ClickRates, campaign_id: str, clicks: int, *, ads: int = 0, expected: float, day: int = DAY) -> None:
    """Add outcomes of a campaign.

    Args:
        rates: Receive the outcomes.
        campaign_id: The campaign.
        clicks: Number of clicked ads.
        ads: Number of further ads.
        expected: Expected clicks of each ad.
        day: Day of the decisions.
    """
    for number in range(clicks + ads):
        rates.add(campaign_id, day, expected, is_clicked=number < clicks)


def test_factors_begin_with_enough_clicks():
    rates = ClickRates()
    learned(rates, "tea", ENOUGH_CLICKS - 1, expected=0.5)
    assert rates.level is None
    learned(rates, "tea", 1, expected=0.5)
    assert rates.level == pytest.approx(2.0)


def test_campaign_without_outcomes_has_the_level_of_all():
    rates = ClickRates()
    learned(rates, "tea", ENOUGH_CLICKS, expected=0.5)
    assert rates.factor("mugs", 2.0) == 2.0


def test_factor_of_a_campaign_moves_from_the_level_to_its_own_rate():
    rates = ClickRates()
    learned(rates, "tea", ENOUGH_CLICKS, expected=0.25)
    few, many = PRIOR_CLICKS // 10, 100 * PRIOR_CLICKS
    learned(rates, "few", few, expected=1.0)
    learned(rates, "many", many, expected=1.0)
    assert 3.0 < rates.factor("few", 4.0) < 4.0
    assert rates.factor("many", 4.0) == pytest.approx(1.0, abs=0.01)


def test_campaign_that_is_never_clicked_keeps_a_chance():
    rates = ClickRates()
    learned(rates, "tea", ENOUGH_CLICKS, expected=1.0)
    learned(rates, "dull", 0, ads=1_000, expected=1.0)
    assert 0 < rates.factor("dull", 1.0) < 0.02


def test_outcomes_of_old_days_are_forgotten():
    rates = ClickRates()
    learned(rates, "old", ENOUGH_CLICKS, expected=0.1)
    learned(rates, "new", ENOUGH_CLICKS, expected=0.5, day=DAY + DAYS)
    assert rates.level == pytest.approx(2.0)
    assert rates.factor("old", 2.0) == 2.0, "its outcomes count no more"
    learned(rates, "late", 1, expected=0.5, day=DAY)
    assert rates.level == pytest.approx(2.0), "an outcome of a forgotten day changes nothing"
    assert [row.day for row in rates.total.days] == [DAY + DAYS]


def test_days_out_of_order_are_kept_in_order():
    rates = ClickRates()
    for day in (DAY, DAY + 2, DAY + 1):
        learned(rates, "tea", 1, expected=0.5, day=day)
    assert [row.day for row in rates.total.days] == [DAY, DAY + 1, DAY + 2]


def test_campaigns_are_bounded_and_the_oldest_goes_first():
    rates = ClickRates()
    for number in range(MAX_CAMPAIGNS):
        rates.add(f"c{number}", DAY + (number != 7), 0.5, is_clicked=False)
    assert rates.add("another", DAY + 1, 0.5, is_clicked=False) == ["another", "c7"]
    assert (len(rates.campaigns), "c7" in rates.campaigns) == (MAX_CAMPAIGNS, False)


def test_click_rates_are_restored_from_their_records():
    budgets = PartitionBudgets(3)
    for number in range(ENOUGH_CLICKS):
        budgets.learn(AdOutcome("tea", DAY, 0.3, is_clicked=True), number)
    changes = budgets.flush(ENOUGH_CLICKS)
    assert [(change.key, change.offset) for change in changes] == [
        (f"{BUDGET_PREFIX}r", ENOUGH_CLICKS - 1),
        (f"{BUDGET_PREFIX}rtea", ENOUGH_CLICKS - 1),
    ]
    restored = PartitionBudgets(3)
    for change in changes:
        restored.load(change.key, change.value or b"")
    assert msgspec.msgpack.encode(restored.click_rates) == msgspec.msgpack.encode(budgets.click_rates)
    assert restored.contents() == budgets.contents()
    find, find_again = budgets.find_click_factor(), restored.find_click_factor()
    assert find is not None
    assert find_again is not None
    assert find("tea") == find_again("tea") > 1


def test_forgotten_campaign_leaves_a_tombstone():
    budgets = PartitionBudgets(0)
    for number in range(MAX_CAMPAIGNS + 1):
        budgets.learn(AdOutcome(f"c{number:05}", DAY, 0.3, is_clicked=False), number)
    changes = {change.key: change.value for change in budgets.flush(MAX_CAMPAIGNS)}
    assert changes[f"{BUDGET_PREFIX}rc00000"] is None
    assert changes[f"{BUDGET_PREFIX}rc00001"] is not None


def test_no_factor_before_there_are_enough_outcomes():
    assert PartitionBudgets(0).find_click_factor() is None


def test_damaged_record_of_click_rates_is_refused():
    assert BUDGET_PREFIX.startswith(LEDGER_PREFIX)
    with pytest.raises(msgspec.DecodeError):
        check_budget(f"{BUDGET_PREFIX}rtea", b"\xc1")
