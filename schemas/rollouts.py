"""Rollouts: the bundles that decide, as records of the compacted topic `rollouts`, and as part of each epoch."""

from typing import Annotated

import msgspec

ContentHash = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""Content hash of a bundle, 64 hexadecimal digits: its name in the bundle store."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class EpochRollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The bundles that decide in an epoch. All that a decision depends on is here."""

    champion: ContentHash
    """Bundle that decides for all users but those of the challenger."""
    challenger: ContentHash | None = None
    """Bundle that decides for a share of the users; null while no user gets it."""
    share: Share = 0.0
    """Share of the users who get the challenger, by a hash of the user id."""

    @property
    def bundles(self) -> tuple[str, ...]:
        """Content hashes of the bundles."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)
