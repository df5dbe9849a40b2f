"""Pacing: the controller of a campaign, and the traps in which others were caught."""

import pytest

from clickscore.schemas.leases import MICROS
from clickscore.stream.budgets.pacing import (
    BUCKETS,
    EVIDENCE_ENTRIES,
    LADDER,
    MAX_CUT,
    MAX_RAISE,
    MIN_MULTIPLIER,
    RESERVE_SHARE,
    START_FLOOR,
    PacerState,
    Progress,
    begin_day,
    step,
    target_share,
)

STEPS = 1_440


class Market:
    """A day in which spend rises with the square of the multiplier."""

    def __init__(self, budget: int, unit: int, spend_at_bid: float, entries: int = 50) -> None:
        """Begin the day.

        Args:
            budget: Budget of the day.
            unit: Highest price of a click.
            spend_at_bid: Spend of the day with the whole bid, as a multiple of the budget.
            entries: Auctions of a step.
        """
        self.state = PacerState()
        self.budget, self.unit, self.entries = budget, unit, entries
        self.full_rate = spend_at_bid * budget / STEPS
        self.expected = self.spent = 0.0
        self.steps = self.count = 0

    def step(self, *, entries: int | None = None, wins: bool = True) -> float:
        """Run a step; clicks come evenly."""
        entries = self.entries if entries is None else entries
        self.count += entries
        if entries and wins:
            self.expected += self.full_rate * self.state.multiplier**2
        self.spent = min(self.budget, self.expected // self.unit * self.unit)
        self.steps += 1
        target = self.budget * self.steps / STEPS
        step(
            self.state,
            Progress(
                budget=self.budget,
                unit=self.unit,
                target=target,
                planned=self.budget / STEPS,
                rest=1 / max(1, STEPS - self.steps),
                spent=int(self.spent),
                expected=int(self.expected),
                entries=self.count,
            ),
        )
        return self.spent / self.budget - self.steps / STEPS

    def run(self, steps: int) -> list[float]:
        return [self.step() for _ in range(steps)]


LARGE = (5_000 * MICROS, MICROS)
SMALL = (40 * MICROS, MICROS)


@pytest.mark.parametrize("spend_at_bid", [1.3, 3.0, 30.0])
def test_large_budget_follows_the_target(spend_at_bid: float):
    distances = Market(*LARGE, spend_at_bid).run(STEPS)
    assert max(map(abs, distances)) < 0.1  # leases bound what is spent before the multiplier is low
    assert max(map(abs, distances[300:])) < 0.01


@pytest.mark.parametrize("spend_at_bid", [1.3, 3.0, 30.0])
def test_small_budget_follows_the_target_within_some_clicks(spend_at_bid: float):
    market = Market(*SMALL, spend_at_bid)
    distances = market.run(STEPS)
    assert max(map(abs, distances)) < 0.15
    assert market.state.multiplier in LADDER


def test_small_budget_does_not_swing_between_buckets():
    """A controller that follows every click would change the bid with every click."""
    market = Market(*SMALL, 3.0)
    market.run(STEPS // 3)
    multipliers = {market.state.multiplier for _ in range(STEPS // 3) if market.step()}
    assert len(multipliers) <= 3


def test_small_campaign_does_not_run_out_beside_a_large_one():
    """One controller for all campaigns would pace their sum: the small one is out at 0.6 of the day."""
    small, large = Market(*SMALL, 20.0), Market(*LARGE, 1.2)
    small.run(int(0.6 * STEPS))
    large.run(int(0.6 * STEPS))
    assert small.spent < 0.75 * small.budget
    assert large.state.multiplier > small.state.multiplier


def test_cut_is_bounded():
    """A cut of 39 % in a tick left a site dark for half a day."""
    market = Market(*LARGE, 500.0)
    previous = market.state.multiplier
    for _ in range(50):
        market.step()
        assert market.state.multiplier >= MAX_CUT * previous - 1e-6
        previous = market.state.multiplier
    assert previous < 0.2


def test_nothing_winds_up_while_the_multiplier_is_at_a_bound():
    """After half a day that no bid could fill, the first hour of cheap traffic is paced at once."""
    market = Market(*LARGE, 0.2)
    market.run(STEPS // 2)
    assert market.state.multiplier == 1
    market.full_rate *= 50
    market.run(30)
    assert market.state.multiplier < 0.6


def test_multiplier_returns_after_overspend():
    market = Market(*LARGE, 30.0)
    market.run(20)
    low = market.state.multiplier
    market.full_rate /= 60
    market.run(150)
    assert low < 0.2
    assert market.state.multiplier == 1


def test_step_without_auctions_says_nothing():
    """A controller that takes silence for a market without ads lowers or raises the bid all night."""
    market = Market(*LARGE, 3.0)
    market.run(STEPS // 2)
    multiplier = market.state.multiplier
    for _ in range(120):
        market.step(entries=0)
    assert market.state.multiplier == multiplier


def test_auctions_without_spend_raise_the_bid():
    """No spend yet is no proof that there is nothing to buy."""
    market = Market(*LARGE, 3.0)
    market.state.multiplier = 0.3
    market.step(wins=False)
    assert market.state.multiplier == pytest.approx(0.3 * MAX_RAISE)


def test_small_budget_without_spend_raises_the_bid_by_two_buckets():
    market = Market(*SMALL, 3.0)
    market.state.bucket, market.state.multiplier = 10, LADDER[10]
    for _ in range(21):
        market.step(wins=False)
    assert market.state.multiplier == LADDER[8]


def test_there_is_a_floor_before_there_is_evidence():
    market = Market(*LARGE, 5_000.0, entries=1)
    market.run(EVIDENCE_ENTRIES - 1)
    assert market.state.multiplier == START_FLOOR
    market.run(60)
    assert MIN_MULTIPLIER <= market.state.multiplier < START_FLOOR


def test_small_budget_ends_in_the_last_bucket():
    market = Market(*SMALL, 1e9)
    market.run(200)
    assert market.state.bucket == BUCKETS - 1
    assert market.state.multiplier == pytest.approx(LADDER[-1], abs=1e-6)


def test_spend_corrects_wrong_probabilities():
    """Where twice as many users click as expected, the plan of the day still holds."""
    state, spent, expected = PacerState(multiplier=0.5), 0.0, 0.0
    for number in range(1, STEPS + 1):
        expected += 2 * LARGE[0] / STEPS * state.multiplier
        spent = min(LARGE[0], 2 * expected)
        target = LARGE[0] * number / STEPS
        progress = Progress(*LARGE, target, LARGE[0] / STEPS, 0.0, int(spent), int(expected), 50 * number)
        step(state, progress)
        if number == 1_000:
            assert spent / LARGE[0] == pytest.approx(1_000 / STEPS, abs=0.02)
            assert state.multiplier == pytest.approx(0.25, abs=0.03)


def test_new_day_keeps_the_multiplier():
    market = Market(*LARGE, 3.0)
    market.run(200)
    multiplier = market.state.multiplier
    begin_day(market.state)
    assert (market.state.multiplier, market.state.entries, market.state.expected) == (multiplier, 0, 0)


def test_target_of_each_pacing():
    end = 1 - RESERVE_SHARE
    assert target_share("asap", 0.0) == 1
    assert target_share("even", end / 2) == pytest.approx(0.5)
    assert target_share("front_loaded", end / 2) == pytest.approx(0.625)
    assert target_share("even", end) == target_share("front_loaded", 1.0) == pytest.approx(1.0)
