"""Pacing: spend a budget along a target curve, by a multiplier on the bid of a campaign.

A factor on the bid keeps the best impressions and gives up the dearest, where leaving auctions out at random would give
up both (Balseiro and Gur, Learning in repeated auctions with budgets, Management Science 65(9), 2019). The step is
multiplicative and bounded, and the multiplier is the only state that a step adds to: at a bound nothing winds up.
A campaign that can pay for few clicks a day would follow the noise of single clicks. So its multiplier moves between
buckets, with hysteresis, and only after an observation of some length.
"""

from typing import NamedTuple

import msgspec

from clickscore.schemas.catalogue import Pacing
from clickscore.schemas.durations import DAY_MS, MINUTE_MS

DECIMALS = 6
"""Decimals of a multiplier."""
MIN_MULTIPLIER = 0.001
"""Smallest multiplier: an unbudgeted rival whose price is a thousandth of the bid can still be met."""
RESERVE_SHARE = 0.02
"""Share of the day's traffic that the plan leaves over: what is late until then can still be spent.

In these pages most campaigns have nothing left, so they are cheap: a larger share gives value away.
"""
START_FLOOR = 0.1
"""Smallest multiplier before there is evidence: what the first pages bring says little of the day."""
EVIDENCE_ENTRIES = 100
"""Auctions of a day that count as evidence."""
MAX_CUT, MAX_RAISE = 0.85, 1.15
"""Bounds of the factor of a step. A deeper cut would stop a campaign before its spend is known."""
GAIN = 0.3
"""Part of the relative error that a step corrects."""
SMOOTHING = 0.3
"""Weight of the newest step in the rate of spend."""
STEPS_A_DAY = DAY_MS // MINUTE_MS
"""Steps of a day: one a minute."""
RECOVERY_STEPS = 30
"""Steps in which a distance to the target curve is made up for."""
CALIBRATION_CLICKS = 30
"""Paid units (clicks) from which the ratio of spend to expected spend counts; before, chance decides it."""
MAX_CALIBRATION = 4.0
"""Largest correction of the expected spend, up or down."""
SMALL_UNITS = 100
"""A budget that pays for fewer units (clicks) on a day is small."""
BUCKET = 0.8
"""Factor between the multipliers of two buckets."""
BUCKETS = 31
"""Number of buckets; the last one is `MIN_MULTIPLIER`, within a quarter."""
HYSTERESIS = 1.2
"""Relative error that changes no bucket. A change of bucket is larger, so the multiplier does not swing."""
DOUBLE_MOVE = 2.0
"""Relative error from which the multiplier moves by two buckets."""
OBSERVED_UNITS = 0.5
"""Planned units (clicks) of an observation that may change the bucket."""
MAX_OBSERVED_STEPS = 20
"""Steps of an observation at most."""
SMALL_RECOVERY_STEPS = 60
"""Steps in which a small budget makes up for a distance: longer, since a single click is a distance."""


class PacerState(msgspec.Struct, array_like=True):
    """State of the controller of a campaign."""

    multiplier: float = 1.0
    """Factor on the bid."""
    rate: float = 0.0
    """Smoothed expected spend of a step, millionths."""
    expected: int = 0
    """Expected spend of the day at the last step, millionths."""
    entries: int = 0
    """Auctions of the day at the last step."""
    bucket: int = 0
    """Bucket of the multiplier of a small budget."""
    observed: float = 0.0
    """Expected spend of the present observation, millionths."""
    planned: float = 0.0
    """Planned spend of the present observation, millionths."""
    steps: int = 0
    """Steps of the present observation."""


class Progress(NamedTuple):
    """Where a campaign stands on its day; amounts in millionths."""

    budget: int
    unit: int
    """Highest price for what is paid: a click, an impression or an order."""
    target: float
    """Planned spend up to now."""
    planned: float
    """Planned spend of the step that begins."""
    rest: float
    """Traffic of this step, as a share of the rest of the day's."""
    spent: int
    """Spend up to now."""
    expected: int
    """Expected spend of the sold slots up to now."""
    entries: int
    """Auctions up to now."""


def target_share(pacing: Pacing, share: float) -> float:
    """Return the share of a budget that is to be spent once a share of the day's traffic has come.

    Args:
        pacing: How the budget is spent.
        share: Share of the day's traffic, 0 to 1.
    """
    if pacing == "asap":
        return 1.0
    share = min(1.0, share / (1 - RESERVE_SHARE))
    return share if pacing == "even" else share * (3 - share) / 2  # 1.5 times the even rate, falling to a half


def begin_day(state: PacerState) -> None:
    """Begin a day: the multiplier stays, since yesterday's is the best guess, and the counts begin anew."""
    state.expected = state.entries = state.steps = 0
    state.observed = state.planned = 0.0


def step(state: PacerState, progress: Progress) -> None:
    """Set the multiplier for the next step. A step without auctions says nothing, so the multiplier stays.

    Args:
        state: State of the controller.
        progress: Where the campaign stands.
    """
    entries, expected = progress.entries - state.entries, progress.expected - state.expected
    state.entries, state.expected = progress.entries, progress.expected
    if entries <= 0:
        return
    calibration = _calibration(progress)
    is_small = progress.budget < SMALL_UNITS * progress.unit
    planned = _planned(progress, SMALL_RECOVERY_STEPS if is_small else RECOVERY_STEPS)
    if is_small:
        _move_bucket(state, progress, expected * calibration, planned)
    else:
        _adjust(state, expected * calibration, planned)
    floor = START_FLOOR if progress.entries < EVIDENCE_ENTRIES else MIN_MULTIPLIER
    state.multiplier = round(min(1.0, max(floor, state.multiplier)), DECIMALS)


def _planned(progress: Progress, recovery_steps: int) -> float:
    """Return the planned spend of a step, millionths: with the distance to the target made up for, and no haste.

    A campaign that is behind spends at twice its rate at most, or as fast as the rest of the day needs.

    Args:
        progress: Where the campaign stands.
        recovery_steps: Steps in which the distance is made up for.
    """
    distance = progress.target - progress.spent
    haste = max(progress.planned, progress.budget / STEPS_A_DAY)
    planned = max(0.0, progress.planned + min(haste, distance / recovery_steps))
    return max(planned, (progress.budget - progress.spent) * progress.rest) if distance > 0 else planned


def _calibration(progress: Progress) -> float:
    """Return the ratio of spend to expected spend, once there is enough of both."""
    if progress.spent < CALIBRATION_CLICKS * progress.unit or not progress.expected:
        return 1.0
    return min(MAX_CALIBRATION, max(1 / MAX_CALIBRATION, progress.spent / progress.expected))


def _adjust(state: PacerState, expected: float, planned: float) -> None:
    """Move the multiplier of a large budget by a part of the relative error of the rate.

    Args:
        state: State of the controller.
        expected: Expected spend of the step, millionths.
        planned: Planned spend of a step, millionths.
    """
    state.rate = expected if not state.rate else state.rate + SMOOTHING * (expected - state.rate)
    factor = 1 + GAIN * (planned / state.rate - 1) if state.rate else MAX_RAISE
    state.multiplier *= min(MAX_RAISE, max(MAX_CUT, factor))


def _move_bucket(state: PacerState, progress: Progress, expected: float, planned: float) -> None:
    """Move the multiplier of a small budget to another bucket, after an observation that says enough.

    Args:
        state: State of the controller.
        progress: Where the campaign stands.
        expected: Expected spend of the step, millionths.
        planned: Planned spend of a step, millionths.
    """
    state.observed += expected
    state.planned += planned
    state.steps += 1
    if max(state.planned, state.observed) < OBSERVED_UNITS * progress.unit and state.steps < MAX_OBSERVED_STEPS:
        return
    if state.observed > HYSTERESIS * state.planned:
        state.bucket += 2 if state.observed > DOUBLE_MOVE * state.planned else 1
    elif state.planned > HYSTERESIS * state.observed:
        state.bucket -= 2 if state.planned > DOUBLE_MOVE * state.observed else 1
    state.bucket = min(BUCKETS - 1, max(0, state.bucket))
    state.observed = state.planned = 0.0
    state.steps = 0
    state.multiplier = LADDER[state.bucket]


def _ladder() -> tuple[float, ...]:
    """Return the multiplier of each bucket, by multiplication alone: equal numbers on every machine."""
    multipliers = [1.0]
    while len(multipliers) < BUCKETS:
        multipliers.append(round(multipliers[-1] * BUCKET, DECIMALS))
    return tuple(multipliers)


LADDER = _ladder()
