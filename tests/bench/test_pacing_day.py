"""Simulated day of budgets: small versions of `python -m bench.pacing`."""

import pytest

from bench.pacing import Day, judge, simulate
from clickscore.stream.budgets.allocator import TERM_MS


@pytest.fixture(scope="module")
def day() -> Day:
    return simulate(4_000, 3, 2, 0, share=0.3, takeover_ms=2 * TERM_MS)


def test_no_budget_is_exceeded(day: Day):
    for run in (day.calm, day.killed):
        assert judge(run, day.budgets).overspend == 0
        assert run.spent[-1].sum() > 0


def test_budgets_are_used_though_a_worker_dies_at_noon(day: Day):
    verdict = judge(day.killed, day.budgets)
    assert verdict.spendable.any()
    assert verdict.use[verdict.spendable].mean() > 0.7  # the whole budget pays for some clicks
