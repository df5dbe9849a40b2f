"""Rhythm: arrival times of shoppers over a day, and times between two actions of a visit."""

import numpy as np

from clickscore.schemas.durations import DAY_MS
from clickscore.stream.simulator.shop.assortment import Floats, Ints

HOURS = 24
_VISITS = (45, 30, 20, 15, 15, 25, 45, 70, 95, 110, 115, 120, 125, 120, 115, 115, 120, 125, 140, 165, 180, 170, 130, 80)
_BY_HOUR = np.array(_VISITS) / np.mean(_VISITS)

THINK_MS = 25_000
"""Median time between two actions of a visit."""
_THINK_SIGMA = 0.9
_THINK_MOST = 20 * 60_000  # 20 min: below the session gap of 30 min


def rhythm(ts: int, day_ms: int = DAY_MS) -> float:
    """Return the traffic at a time relative to the daily average.

    Args:
        ts: Time, ms.
        day_ms: Length of a day, ms.
    """
    hour = ts % day_ms / day_ms * HOURS
    return float(np.interp(hour, np.arange(HOURS + 1), np.append(_BY_HOUR, _BY_HOUR[0])))


def draw_starts(start: int, days: int, count: int, rng: np.random.Generator) -> Ints:
    """Return the start times of visits in ms, unsorted, distributed by the daily rhythm.

    Args:
        start: Start of the first day, ms since the epoch.
        days: Number of days.
        count: Number of visits.
        rng: Source of randomness.
    """
    day = rng.integers(0, days, count)
    hour = rng.choice(HOURS, count, p=_BY_HOUR / HOURS)
    within = rng.integers(0, DAY_MS // HOURS, count)
    return start + day * DAY_MS + hour * (DAY_MS // HOURS) + within


def draw_thinking(count: int, rng: np.random.Generator, pace: float = 1.0) -> Ints:
    """Return times between two actions, ms.

    Args:
        count: Number of times to draw.
        rng: Source of randomness.
        pace: Speed factor; 10 is ten times as fast as a real shopper.
    """
    times: Floats = np.exp(rng.normal(np.log(THINK_MS), _THINK_SIGMA, count))
    return (np.clip(times, 1_000, _THINK_MOST) / pace).astype(np.int64)
