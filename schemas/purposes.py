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

PURPOSES_OF_BITS: tuple[tuple[Purpose, ...] | msgspec.UnsetType, ...] = (
    msgspec.UNSET,
    *(tuple(purpose for bit, purpose in enumerate(PURPOSES) if bits >> bit & 1) for bits in range(1, 1 << len(PURPOSES))),
)
"""Purposes of each number of bits, as decisions state them; unset for 0."""


def purpose_bits(purposes: Iterable[Purpose]) -> int:
    """Return the bits of purposes."""
    return sum(1 << PURPOSES.index(purpose) for purpose in set(purposes))
