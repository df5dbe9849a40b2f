"""Purposes: the uses of a user's behaviour that need the user's consent, as words and as bits."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Purpose = Literal["personalisation", "ads", "training"]
"""A use of a user's behaviour that needs the user's consent."""

PURPOSES: tuple[Purpose, ...] = ("personalisation", "ads", "training")
"""Purposes in the order of their bits. Snapshots contain the bits, so new purposes go to the end."""

PERSONALISATION, ADS, TRAINING = 1, 2, 4
"""Bits of the purposes."""


def purpose_bits(purposes: Iterable[Purpose]) -> int:
    """Return the bits of purposes."""
    return sum(1 << PURPOSES.index(purpose) for purpose in set(purposes))


def purposes_of_bits(bits: int) -> tuple[Purpose, ...]:
    """Return the purposes of bits, in order."""
    return tuple(purpose for index, purpose in enumerate(PURPOSES) if bits >> index & 1)


WITHHELD: tuple[tuple[Purpose, ...] | msgspec.UnsetType, ...] = (
    msgspec.UNSET,
    *(purposes_of_bits(bits) for bits in range(1, 1 << len(PURPOSES))),
)
"""Purposes without consent by their bits, as decisions state them; unset for 0."""
