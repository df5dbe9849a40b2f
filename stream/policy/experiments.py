"""Experiments: the A/B test, which assigns each user to a variant by a hash bucket of the user id."""

import hashlib
from functools import lru_cache

MODEL = "model"
"""Variant whose users see the model's candidates; also the `reason` of such a choice."""

CONTROL = "popular"
"""Control variant, whose users see popular items only; also the `reason` of such a choice."""


def assign_variant(user_id: str, experiment: str, control_share: float) -> str:
    """Return the variant of a user: the same for all workers, partitions and restarts.

    Args:
        user_id: The user.
        experiment: Name of the A/B test; another name re-randomises the users.
        control_share: Share of users in the control variant, 0 to 1.
    """
    return _assign(user_id, experiment, control_share) if control_share else MODEL


@lru_cache(maxsize=100_000)  # users whose variant is remembered: about 20 MB, and a hash saved for each event
def _assign(user_id: str, experiment: str, control_share: float) -> str:
    """Return the variant of the user's bucket: a 64-bit hash, of which the lowest `control_share` is the control."""
    digest = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), digest_size=8).digest()
    return CONTROL if int.from_bytes(digest) < control_share * 2**64 else MODEL
