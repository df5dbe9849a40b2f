"""Rollouts: the bundles that decide, as records of the compacted topic `rollouts`, and as part of each epoch."""

from typing import Annotated

import msgspec

from clickscore.schemas.json_depth import bounded_depth

ContentHash = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""Content hash of a bundle, 64 hexadecimal digits: its name in the bundle store."""
RolloutName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
PolicyLabel = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""Version and content hash of a policy, as in the field `policy` of decisions: its name in the bundle store."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class EpochRollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The bundles that decide in an epoch, and for whom."""

    champion: ContentHash
    """Bundle that decides for all users but those of the challenger."""
    challenger: ContentHash | None = None
    """Bundle that decides for a share of the users; null while no user gets it."""
    share: Share = 0.0
    """Share of the users who get the challenger, by a hash of the user id."""
    policy: PolicyLabel | None = None
    """Policy of all decisions; null where each worker decides with the policy of its own settings."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Content hashes of the bundles, and the label of the policy: all that a worker must have loaded."""
        return tuple(part for part in (self.champion, self.challenger, self.policy) if part is not None)


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rollout: the bundles that workers take from the bundle store. The key of the record is the name.

    A tombstone ends the rollout: workers decide with the bundle of their own settings.
    """

    name: RolloutName
    champion: ContentHash
    """Bundle that decides for all users but those of the challenger."""
    challenger: ContentHash | None = None
    """Bundle that is tried on a share of the users; null for none."""
    share: Share = 0.0
    """Share of the users who get the challenger."""
    shadow_share: Share = 0.0
    """Share of the events that the challenger scores without deciding."""
    steps: tuple[Share, ...] = ()
    """Shares of the ramp that are still to come; the challenger becomes champion after the last of them."""
    step_ms: Milliseconds = 0
    """Shortest time between two steps of the ramp, ms; 0 without a ramp."""
    policy: PolicyLabel | None = None
    """Policy of all decisions; null where each worker decides with the policy of its own settings."""
    former: ContentHash | None = None
    """Champion before the last promotion; null before the first."""
    changed_at: Milliseconds = 0
    """Wall-clock time of this change, ms."""
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    """Why the rollout was changed, in words."""

    @property
    def deciding(self) -> EpochRollout:
        """The part that decisions depend on: an epoch has it."""
        if self.challenger is None or not self.share:
            return EpochRollout(champion=self.champion, policy=self.policy)
        return EpochRollout(champion=self.champion, challenger=self.challenger, share=self.share, policy=self.policy)

    @property
    def parts(self) -> tuple[str, ...]:
        """Content hashes of the bundles, and the label of the policy: all that a worker must have loaded."""
        return tuple(part for part in (self.champion, self.challenger, self.policy) if part is not None)


decode_rollout = bounded_depth(msgspec.json.Decoder(Rollout).decode)
encode_rollout = msgspec.json.Encoder().encode
