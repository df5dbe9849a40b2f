"""When shoppers come and how long they think: a day's rhythm, and times between two acts."""

import numpy as np

from clickscore.schemas.topics import DAY_MS
from clickscore.stream.simulator.shop.assortment import Floats, Ints

HOURS = 24
_VISITS = (45, 30, 20, 15, 15, 25, 45, 70, 95, 110, 115, 120, 125, 120, 115, 115, 120, 125, 140, 165, 180, 170, 130, 80)
_BY_HOUR = np.array(_VISITS) / np.mean(_VISITS)

THINK_MS = 25_000
"""Median time between two acts of a visit."""
_THINK_SIGMA = 0.9
_THINK_MOST = 20 * 60_000  # below the 30 min of silence that end a session


def rhythm(at: int, day_ms: int = DAY_MS) -> float:
    """Return how busy the shop is at a time (ms), 1 on the day's average, for a day of the given length."""
    hour = at % day_ms / day_ms * HOURS
    return float(np.interp(hour, np.arange(HOURS + 1), np.append(_BY_HOUR, _BY_HOUR[0])))


def draw_starts(start: int, days: int, count: int, rng: np.random.Generator) -> Ints:
    """Return when visits begin (ms), in no order, spread over the days as the rhythm says."""
    day = rng.integers(0, days, count)
    hour = rng.choice(HOURS, count, p=_BY_HOUR / HOURS)
    within = rng.integers(0, DAY_MS // HOURS, count)
    return start + day * DAY_MS + hour * (DAY_MS // HOURS) + within


def draw_thinking(count: int, rng: np.random.Generator, pace: float = 1.0) -> Ints:
    """Return times from one act to the next, ms; a pace of 10 is ten times as fast."""
    times: Floats = np.exp(rng.normal(np.log(THINK_MS), _THINK_SIGMA, count))
    return (np.clip(times, 1_000, _THINK_MOST) / pace).astype(np.int64)
