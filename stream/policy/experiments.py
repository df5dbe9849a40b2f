"""Experiments: which variant of the A/B test a user gets."""

import hashlib
from functools import lru_cache

MODEL, CONTROL = "model", "popular"
"""Variants of the A/B test, and the reason that a choice states."""


def variant_of(user_id: str, experiment: str, control_share: float) -> str:
    """Return a user's arm of the A/B test: by a hash of both, so the same everywhere and for good."""
    return _assign(user_id, experiment, control_share) if control_share else MODEL


@lru_cache(maxsize=100_000)
def _assign(user_id: str, experiment: str, control_share: float) -> str:
    digest = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), digest_size=8).digest()
    return CONTROL if int.from_bytes(digest) < control_share * 2**64 else MODEL
