"""Rollout steps: promote a challenger, or roll back."""

from clickscore.schemas.manifest import version_of
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.errors import RolloutError


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
        changed_at=now_ms,
        reason=f"back from {version_of(rollout.champion)} to {version_of(rollout.former)}: {reason}",
    )
