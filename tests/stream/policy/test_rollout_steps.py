"""Rollout steps: what a promotion and a rollback leave."""

import pytest

from clickscore.schemas.rollouts import Rollout
from clickscore.stream.errors import RolloutError
from clickscore.stream.policy.rollout_steps import promote, roll_back, start_ramp

OLD, NEW, OLDER = "a" * 64, "b" * 64, "c" * 64


def canary() -> Rollout:
    return Rollout(name="default", champion=OLD, challenger=NEW, share=0.05, former=OLDER)


def test_challenger_becomes_champion():
    assert promote(canary(), 7, "more clicks") == Rollout(
        name="default",
        champion=NEW,
        former=OLD,
        changed_at=7,
        reason="bbbbbbbbbbbb is promoted: more clicks",
    )


def test_challenger_is_taken_back_and_the_champion_stays():
    rolled_back = roll_back(canary(), 7, "fewer clicks")
    assert rolled_back.deciding.parts == (OLD,)
    assert rolled_back.former == OLDER
    assert rolled_back.reason == "bbbbbbbbbbbb is rolled back: fewer clicks"


def test_promotion_is_taken_back_by_a_rollback():
    assert roll_back(promote(canary(), 7, "x"), 8, "strange items").champion == OLD


def test_nothing_to_promote_or_to_roll_back_is_an_error():
    alone = Rollout(name="default", champion=OLD)
    with pytest.raises(RolloutError, match="no challenger to promote"):
        promote(alone, 7, "x")
    with pytest.raises(RolloutError, match="nothing can be rolled back"):
        roll_back(alone, 7, "x")


def test_challenger_without_a_share_decides_nothing():
    rollout = Rollout(name="default", champion=OLD, challenger=NEW)
    assert (rollout.deciding.parts, rollout.parts) == ((OLD,), (OLD, NEW))


@pytest.mark.parametrize("steps", [(), (0.0, 0.5), (0.5, 0.1), (0.5, 0.5), (0.5, 1.5), (float("nan"),)])
def test_steps_of_a_ramp_rise(steps: tuple[float, ...]):
    with pytest.raises(RolloutError, match="rising shares from above 0 to at most 100 %"):
        start_ramp(canary(), NEW, steps, 1, 7)


def test_ramp_has_no_more_steps_than_the_guard_allows_for():
    steps = (0.1, 0.2, 0.3, 0.4)
    assert start_ramp(canary(), NEW, steps, 1, 7).share == 0.1
    with pytest.raises(RolloutError, match="a ramp has at most 4 steps, not 5"):
        start_ramp(canary(), NEW, (*steps, 0.5), 1, 7)


def test_champion_is_no_challenger():
    with pytest.raises(RolloutError, match="aaaaaaaaaaaa is the champion already"):
        start_ramp(canary(), OLD, (0.5,), 1, 7)
