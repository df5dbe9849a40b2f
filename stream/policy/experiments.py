"""Experiments: assign each user to a variant of the A/B test, or to the challenger, by a hash of the user id."""

import hashlib
from functools import lru_cache

import xxhash

MODEL = "model"
"""Variant with the model's candidates; also the `reason` stated with a candidate of the model."""

CONTROL = "popular"
"""Control variant, with popular items only; also the `reason` stated with a popular item."""

SIMILAR = "similar"
"""The `reason` stated with an item of the same category and brand as a current item that the bundle does not know."""

CHALLENGER = "challenger"
"""Variant with the candidates of the challenger, the bundle that a rollout tries on a share of the users."""


def assign_challenger(user_id: str, challenger: str, share: float) -> str:
    """Return the variant of a user outside the control: the users of a share are among those of any larger share.

    Args:
        user_id: The user.
        challenger: Content hash of the challenger; another challenger gets other users.
        share: Share of the users who get the challenger, 0 to 1.
    """
    return CHALLENGER if unit_hash(challenger, user_id) < share else MODEL


def unit_hash(salt: str, text: str) -> float:
    """Return a number from 0 to below 1 that is spread evenly over texts.

    Args:
        salt: Another salt gives other numbers.
        text: Text to hash.
    """
    return (xxhash.xxh3_64_intdigest(f"{salt}\0{text}".encode()) >> 11) / 2**53  # as many bits as a float holds


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
