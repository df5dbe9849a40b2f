"""Rollout guard: what rolls a challenger back, what lets a ramp go on, and that its bounds hold at every look."""

import numpy as np
import pytest

from clickscore.schemas.outcome_counts import PartitionReport, RatioSums, VariantCounts
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.policy.rollout_guard import (
    MIN_CALLS,
    MIN_DECISIONS,
    MIN_USERS,
    add_up,
    compare,
    find_problem,
    judge,
    summarise,
)
from clickscore.stream.policy.rollout_steps import RAMP_STEPS, advance, start_ramp

OLD, NEW = "a" * 64, "b" * 64


def sums(rate: float, users: int = 2_000, decisions: int = 10, seed: int = 0) -> RatioSums:
    """Return sums over users whose numerators are binomial."""
    rng = np.random.default_rng(seed)
    made = RatioSums()
    for value in rng.binomial(decisions, rate, users).tolist():
        made.move_user((0, 0), (decisions, value))
    return made


def counts(**changes: object) -> VariantCounts:
    fields: dict[str, object] = {
        "decisions": 20_000,
        "model_items": 190_000,
        "popular_items": 10_000,
        "clicks": sums(0.1),
        "purchases": sums(0.01),
        "calls": 1_000,
        "call_seconds": 5.0,
    }
    return VariantCounts(**(fields | changes))  # pyright: ignore[reportArgumentType]


def ramped(now_ms: int = 0) -> Rollout:
    return start_ramp(Rollout(name="default", champion=OLD), NEW, RAMP_STEPS, 60_000, now_ms)


def test_equal_bundles_have_no_problem():
    assert find_problem(counts(), counts(clicks=sums(0.1, seed=1), purchases=sums(0.01, seed=1))) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failed": 200}, "its graph failed for 200 of 20000 decisions"),
        ({"call_seconds": 50.0}, "a call of its graph takes 50.0 ms, the champion's 5.0 ms"),
        ({"popular_items": 190_000, "model_items": 10_000}, "popular items fill 95% of its places, and 5% of"),
        ({"clicks": sums(0.05)}, "clicks per 100 decisions: "),
        ({"purchases": sums(0.002)}, "purchases per 100 decisions: "),
    ],
)
def test_bad_challenger_is_named(changes: dict[str, object], reason: str):
    assert reason in find_problem(counts(), counts(**changes))


def test_worse_heads_are_named():
    good, bad = RatioSums(), RatioSums()
    for made, score in ((good, -0.5), (bad, -2.0)):
        for user in range(500):
            made.move_user((0, 0), (4, 4 * score + 0.01 * (user % 7)))
    assert "the log probability of the next action" in find_problem(
        counts(action_scores=good), counts(action_scores=bad)
    )


@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_predictions_far_from_the_champions_are_named(factor: float):
    usual, tried = counts(purchase_predictions=sums(0.1)), counts(purchase_predictions=sums(0.1 * factor))
    assert "it predicts purchases with" in find_problem(usual, tried)


def test_predictions_that_differ_a_little_are_no_problem():
    assert find_problem(counts(purchase_predictions=sums(0.1)), counts(purchase_predictions=sums(0.12))) == ""


def test_too_little_is_known_for_a_comparison():
    few = counts(
        decisions=MIN_DECISIONS - 1,
        popular_items=10,
        model_items=0,
        calls=MIN_CALLS - 1,
        call_seconds=50.0,
        failed=3,
        clicks=sums(0.0, users=MIN_USERS - 1),
        purchases=RatioSums(),
    )
    assert find_problem(counts(), few) == ""


def test_challenger_without_clicks_in_either_arm_is_unknown():
    assert compare(sums(0.0), sums(0.0), 0.1, 0.01).upper == float("inf")
    assert find_problem(VariantCounts(), VariantCounts()) == ""


def test_ramp_waits_for_decisions_and_time_then_goes_on():
    rollout = ramped()
    assert judge(rollout, counts(), counts(decisions=10), 90_000).reason == "10 of 200 decisions are made"
    assert judge(rollout, counts(), counts(), 30_000).reason == "the step goes on for 30 s"
    assert judge(rollout, counts(), counts(), 60_000).action == "advance"


def test_canary_without_a_ramp_stays_and_is_guarded():
    canary = Rollout(name="default", champion=OLD, challenger=NEW, share=0.05)
    assert judge(canary, counts(), counts(), 60_000).action == "wait"
    assert judge(canary, counts(), counts(clicks=sums(0.03)), 60_000).action == "roll back"


def test_ramp_goes_through_its_steps_and_ends_with_a_new_champion():
    rollout, shares = ramped(), []
    while rollout.challenger:
        shares.append(rollout.share)
        rollout = advance(rollout, 1)
    assert tuple(shares) == RAMP_STEPS
    assert (rollout.champion, rollout.former, rollout.share) == (NEW, OLD, 0.0)


def test_reports_of_partitions_are_added_and_summarised():
    champion, challenger = add_up([PartitionReport(changed_at=1, champion=counts(), challenger=counts())] * 2)
    assert (champion.decisions, challenger.calls) == (40_000, 2_000)
    assert summarise(champion)["ms per call"] == 5.0
    assert "predicted purchase" not in summarise(champion)


def test_bounds_hold_at_every_look():
    """Of 200 pairs of equal variants, at most a few are ever called different at 100 looks each."""
    errors = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        arms = RatioSums(), RatioSums()
        for _ in range(100):
            for arm in arms:
                for value in rng.binomial(5, 0.1, 20).tolist():
                    arm.move_user((0, 0), (5, value))
            if compare(*arms, 0.02, 0.05).upper < 0:
                errors += 1
                break
    assert errors <= 10
