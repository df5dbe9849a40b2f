"""Hand-over guard: a hand-over counts once, and brings back nobody who was erased since."""

from collections.abc import Iterable

import xxhash

from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.events import Erase
from clickscore.schemas.handover import Handover

MAX_ERASURES = 256
"""Erased users in the memory of a partition at most: 20 bytes each, in the partition's snapshot of every batch."""
_UNKNOWN_USER = b""
"""Stands in a snapshot for the hash of the users whose erasures were pushed out; no user has this hash."""


class HandoverGuard:
    """The newest applied hand-over of each source partition, and the newest erasures of a partition."""

    def __init__(self, applied: dict[int, int] | None = None, erasures: Iterable[tuple[bytes, int]] = ()) -> None:
        """Start with what a snapshot remembers.

        Args:
            applied: Offset of the newest applied hand-over, by source partition.
            erasures: Hash of the user id and event time (ms) of each erasure, the oldest first; an empty hash for the
                newest pushed-out erasure.
        """
        self.applied = {} if applied is None else applied
        """Offset of the newest applied hand-over, by source partition."""
        self._erasures = dict(erasures)
        self._pushed_out_at = self._erasures.pop(_UNKNOWN_USER, -1)  # newest event time, ms; -1 without any

    @property
    def erasures(self) -> list[tuple[bytes, int]]:
        """Hash of the user id and event time (ms) of each erasure, the oldest first, as `__init__` takes erasures."""
        unknown = [(_UNKNOWN_USER, self._pushed_out_at)] if self._pushed_out_at >= 0 else []
        return unknown + list(self._erasures.items())

    def is_applied(self, handover: Handover) -> bool:
        """Return whether a hand-over repeats one that was applied: a source partition writes its own in order."""
        return handover.offset <= self.applied.get(handover.partition, -1)

    def is_erased(self, handover: Handover) -> bool:
        """Return whether the user or the anonymous id was erased since the `identify` event, or may have been erased.

        The time of a pushed-out erasure is known and the user is not, so any user may be the erased user.
        """
        ids = (handover.user_id, handover.anonymous_id)
        erased_at = max(self._erasures.get(user_hash(user_id), -1) for user_id in ids)
        return handover.ts <= max(erased_at, self._pushed_out_at)

    def apply(self, handover: Handover) -> None:
        """Note a hand-over as applied."""
        self.applied[handover.partition] = handover.offset

    def erase(self, event: Erase) -> None:
        """Note an erasure; too many erasures push the oldest out, and the time remains."""
        hashed = user_hash(event.user_id)
        self._erasures[hashed] = max(event.ts, self._erasures.pop(hashed, event.ts))
        if len(self._erasures) > MAX_ERASURES:
            oldest = next(iter(self._erasures))
            self._pushed_out_at = max(self._pushed_out_at, self._erasures.pop(oldest))

    def forget(self, watermark: int) -> None:
        """Forget the erasures of more than a day before the full minute: no hand-over is on its way for so long."""
        oldest = watermark // MINUTE_MS * MINUTE_MS - DAY_MS
        for hashed in [hashed for hashed, ts in self._erasures.items() if ts < oldest]:
            del self._erasures[hashed]
        if self._pushed_out_at < oldest:
            self._pushed_out_at = -1


def user_hash(user_id: str) -> bytes:
    """Return the hash of a user id: xxh3, 64 bits."""
    return xxhash.xxh3_64_digest(user_id.encode())
