"""Experiments: assign each user to a variant of the A/B test by a hash bucket of the user id."""

import hashlib
from functools import lru_cache

MODEL = "model"
"""Variant with the model's candidates; also the `reason` stated with a candidate of the model."""

CONTROL = "popular"
"""Control variant, with popular items only; also the `reason` stated with a popular item."""


def assign_variant(user_id: str, experiment: str, control_share: float) -> str:
    """Return the variant of a user: the same for all workers, partitions and restarts.

    Args:
        user_id: The user.
        experiment: Name of the A/B test; another name re-randomises the users.
        control_share: Share of users in the control variant, 0 to 1.
    """
    return _assign(user_id, experiment, control_share) if control_share else MODEL


def forget_variants() -> None:
    """Forget the remembered variants, which are kept under the ids of users; they are computed again when needed."""
    _assign.cache_clear()


@lru_cache(maxsize=100_000)  # users whose variant is remembered: about 20 MB, and a hash saved for each event
def _assign(user_id: str, experiment: str, control_share: float) -> str:
    """Return the variant of the user's bucket: the lowest `control_share` of all 64-bit hashes is the control."""
    digest = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), digest_size=8).digest()
    return CONTROL if int.from_bytes(digest) < control_share * 2**64 else MODEL
