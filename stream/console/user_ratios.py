"""User ratios: a ratio such as clicks per impression, with its interval over users."""

import math
from collections import OrderedDict
from typing import NamedTuple

from clickscore.schemas.outcome_counts import MIN_USERS, RatioSums

MAX_USERS = 20_000
"""Users with remembered sums, at most. A forgotten user who comes back counts as a new user."""
NORMAL_95 = 1.96
"""Standard deviations on each side of a mean that hold 95 % of a normal distribution."""


class RatioEstimate(NamedTuple):
    """A ratio, with the bounds of the 95 % interval; without bounds for few users."""

    value: float
    low: float | None
    high: float | None


class UserRatios:
    """Sums of a ratio over users."""

    def __init__(self, max_users: int = MAX_USERS) -> None:
        """Start empty.

        Args:
            max_users: Users with remembered sums, at most.
        """
        self.sums = RatioSums()
        self._max_users = max_users
        self._users: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, user_id: str, base: float, value: float) -> None:
        """Add to the sums of a user. A value without a base counts once the user has a base.

        Args:
            user_id: The user.
            base: Increase of the denominator.
            value: Increase of the numerator.
        """
        former = self._users.get(user_id, (0.0, 0.0))
        changed = former[0] + base, former[1] + value
        self._users[user_id] = changed
        self._users.move_to_end(user_id)
        if changed[0] > 0:
            self.sums.move_user(former if former[0] > 0 else (0.0, 0.0), changed)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Forget the id of a user; the sums keep no id."""
        self._users.pop(user_id, None)

    def estimate(self) -> RatioEstimate | None:
        """Return the ratio with an interval by the delta method; absent without a base."""
        sums = self.sums
        if not sums.base:
            return None
        ratio = sums.value / sums.base
        if sums.users < MIN_USERS or not sums.value:  # without a value the variance is 0, which says nothing
            return RatioEstimate(ratio, None, None)
        squares = sums.value_value - 2 * ratio * sums.base_value + ratio * ratio * sums.base_base
        radius = NORMAL_95 * math.sqrt(max(squares, 0.0)) / sums.base
        return RatioEstimate(ratio, max(0.0, ratio - radius), ratio + radius)
