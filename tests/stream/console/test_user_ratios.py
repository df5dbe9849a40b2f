"""Ratios with intervals over users."""

import numpy as np
import pytest

from clickscore.stream.console.user_ratios import MIN_USERS, UserRatios


def test_interval_is_that_of_the_delta_method_over_users() -> None:
    rng = np.random.default_rng(3)
    bases = rng.integers(1, 20, 200).astype(float)
    values = rng.binomial(bases.astype(int), 0.2).astype(float)
    ratios = UserRatios()
    for user, (base, value) in enumerate(zip(bases, values, strict=True)):
        for _ in range(int(base)):
            ratios.add(str(user), 1, 0)
        ratios.add(str(user), 0, value)
    ratio = values.sum() / bases.sum()
    deviation = np.sqrt(((values - ratio * bases) ** 2).sum()) / bases.sum()
    estimate = ratios.estimate()
    assert estimate is not None
    assert estimate == pytest.approx((ratio, ratio - 1.96 * deviation, ratio + 1.96 * deviation))


def test_few_users_have_no_interval() -> None:
    ratios = UserRatios()
    assert ratios.estimate() is None
    for user in range(MIN_USERS - 1):
        ratios.add(str(user), 1, 1)
    assert ratios.estimate() == (1.0, None, None)


def test_value_without_a_base_counts_once_there_is_one() -> None:
    ratios = UserRatios()
    ratios.add("anna", 0, 1)
    assert ratios.estimate() is None
    ratios.add("anna", 2, 0)
    assert ratios.estimate() == (0.5, None, None)
    assert ratios.sums.users == 1


def test_users_are_bounded() -> None:
    ratios = UserRatios(max_users=10)
    for user in range(1000):
        ratios.add(str(user), 1, 0)
    assert len(ratios._users) == 10
    assert ratios.sums.users == 1000
    ratios.forget("999")
    assert len(ratios._users) == 9
