"""Experiments: each user stays in one variant, and the variants have their shares."""

from clickscore.stream.policy.experiments import CONTROL, MODEL, assign_variant


def test_every_user_keeps_a_variant():
    assert {assign_variant("ann", "test", 0.5) for _ in range(3)} == {assign_variant("ann", "test", 0.5)}


def test_control_share_is_kept():
    control = sum(assign_variant(f"user-{number}", "test", 0.3) == CONTROL for number in range(10_000))
    assert 2_800 < control < 3_200  # 4 standard deviations are 183


def test_without_a_control_share_all_get_the_model():
    assert assign_variant("ann", "test", 0.0) == MODEL
