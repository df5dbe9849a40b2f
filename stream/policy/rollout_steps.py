"""Rollout steps: how a rollout changes, from a challenger's first users to its promotion or its rollback."""

from collections.abc import Sequence

import msgspec

from clickscore.schemas.manifest import version_of
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.errors import RolloutError

RAMP_STEPS = (0.01, 0.05, 0.25, 1.0)
"""Usual shares of a ramp."""
MAX_RAMP_STEPS = 4
"""Largest number of steps of a ramp: the guard's bound for false alarms is divided among so many."""


def start_ramp(rollout: Rollout, challenger: str, steps: Sequence[float], step_ms: int, now_ms: int) -> Rollout:
    """Return the rollout with the first step of a ramp.

    Args:
        rollout: The rollout so far.
        challenger: Content hash of the challenger.
        steps: Rising shares of the users, each above 0 and at most 1.
        step_ms: Shortest time between two steps, ms.
        now_ms: Wall-clock time, ms.

    Raises:
        RolloutError: The shares do not rise from above 0 to at most 1, there are more than `MAX_RAMP_STEPS`, or the
            challenger is the champion.
    """
    if challenger == rollout.champion:
        message = f"{version_of(challenger)} is the champion already"
        raise RolloutError(message)
    if not steps or list(steps) != sorted(set(steps)) or not all(0 < step <= 1 for step in steps):  # also for NaN
        shares = ", ".join(f"{100 * step:g}" for step in steps)
        message = f"the steps of a ramp are rising shares from above 0 to at most 100 %, not {shares or 'empty'}"
        raise RolloutError(message)
    if len(steps) > MAX_RAMP_STEPS:
        message = f"a ramp has at most {MAX_RAMP_STEPS} steps, not {len(steps)}: the guard's bound holds for so many"
        raise RolloutError(message)
    return msgspec.structs.replace(
        rollout,
        challenger=challenger,
        share=steps[0],
        steps=tuple(steps[1:]),
        step_ms=step_ms,
        changed_at=now_ms,
        reason=f"ramp of {version_of(challenger)} starts at {100 * steps[0]:g} %",
    )


def advance(rollout: Rollout, now_ms: int) -> Rollout:
    """Return the rollout with the next step of its ramp; after the last step the challenger becomes champion.

    Args:
        rollout: A rollout with a challenger and a ramp.
        now_ms: Wall-clock time, ms.
    """
    if not rollout.steps:
        return promote(rollout, now_ms, "the ramp has ended")
    share, *steps = rollout.steps
    reason = f"ramp goes on at {100 * share:g} %"
    return msgspec.structs.replace(rollout, share=share, steps=tuple(steps), changed_at=now_ms, reason=reason)


def promote(rollout: Rollout, now_ms: int, reason: str) -> Rollout:
    """Return the rollout with the challenger as champion, for all users.

    Args:
        rollout: The rollout so far.
        now_ms: Wall-clock time, ms.
        reason: Why, in words.

    Raises:
        RolloutError: There is no challenger.
    """
    if rollout.challenger is None:
        message = f"the rollout {rollout.name} has no challenger to promote"
        raise RolloutError(message)
    return Rollout(
        name=rollout.name,
        champion=rollout.challenger,
        policy=rollout.policy,
        former=rollout.champion,
        changed_at=now_ms,
        reason=f"{version_of(rollout.challenger)} is promoted: {reason}",
    )


def roll_back(rollout: Rollout, now_ms: int, reason: str) -> Rollout:
    """Return the rollout without its challenger; without a challenger, the former champion comes back.

    Args:
        rollout: The rollout so far.
        now_ms: Wall-clock time, ms.
        reason: Why, in words.

    Raises:
        RolloutError: There is neither a challenger nor a former champion.
    """
    if rollout.challenger is not None:
        return Rollout(
            name=rollout.name,
            champion=rollout.champion,
            policy=rollout.policy,
            former=rollout.former,
            changed_at=now_ms,
            reason=f"{version_of(rollout.challenger)} is rolled back: {reason}",
        )
    if rollout.former is None:
        message = f"the rollout {rollout.name} has no challenger and no former champion, so nothing can be rolled back"
        raise RolloutError(message)
    return Rollout(
        name=rollout.name,
        champion=rollout.former,
        policy=rollout.policy,
        changed_at=now_ms,
        reason=f"back from {version_of(rollout.champion)} to {version_of(rollout.former)}: {reason}",
    )
