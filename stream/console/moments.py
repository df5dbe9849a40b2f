"""Moments: the newest events with their decisions, by user and by id, bounded by bytes."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import msgspec

OVERHEAD_BYTES = 900
"""Memory of a moment besides the values, about: the object, the id, and two entries of indexes."""


class Moment(msgspec.Struct, gc=False):
    """An event of a user, with the decisions on the event."""

    log_id: str
    """`TOPIC-PARTITION-OFFSET` of the event, and id of the decision."""
    user_id: str
    number: int = 0
    """Place in the order of completed moments; 0 while the event or the decision is missing."""
    event: bytes | None = None
    """The event as JSON; absent before the read."""
    stored_at: int = 0
    """Append time of the event, ms."""
    decision: bytes | None = None
    """The recommendation as JSON; absent before the read."""
    decided_at: int = 0
    """Append time of the recommendation, ms."""
    ad: bytes | None = None
    """The ad decision as JSON; absent before the ad is read, and for a page without ads."""

    def encode(self) -> dict[str, Any]:
        """Return the moment for the JSON of an answer, with its values as they were published."""
        return {
            "id": self.log_id,
            "user_id": self.user_id,
            "stored_at": self.stored_at,
            "decided_at": self.decided_at,
            "event": _raw(self.event),
            "decision": _raw(self.decision),
            "ad": _raw(self.ad),
        }


class Moments:
    """Remembers the newest moments. With too many bytes, the oldest moment goes."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: Most bytes of all moments, about.
        """
        self._max_bytes = max_bytes
        self._bytes = 0
        self._completed = 0
        self._by_id: OrderedDict[str, Moment] = OrderedDict()
        self._by_user: dict[str, deque[Moment]] = {}

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self._by_id)

    def by_id(self, log_id: str) -> Moment | None:
        """Return a moment; absent for an unknown id."""
        return self._by_id.get(log_id)

    def newest(self, user_id: str) -> Iterator[Moment]:
        """Return the moments of a user, the newest first."""
        return reversed(self._by_user.get(user_id, ()))

    def add_event(self, log_id: str, user_id: str, value: bytes, stored_at: int) -> Moment:
        """Remember an event.

        Args:
            log_id: `TOPIC-PARTITION-OFFSET` of the event.
            user_id: User of the event.
            value: The event as JSON.
            stored_at: Append time of the event, ms.
        """
        moment = self._moment(log_id, user_id)
        self._bytes += len(value) - len(moment.event or b"")
        moment.event, moment.stored_at = value, stored_at
        return self._finish(moment)

    def add_decision(self, log_id: str, user_id: str, value: bytes, decided_at: int) -> Moment:
        """Remember a recommendation. The recommendation may be read before the event.

        Args:
            log_id: Id of the decision.
            user_id: User of the decision.
            value: The recommendation as JSON.
            decided_at: Append time of the recommendation, ms.
        """
        moment = self._moment(log_id, user_id)
        self._bytes += len(value) - len(moment.decision or b"")
        moment.decision, moment.decided_at = value, decided_at
        return self._finish(moment)

    def add_ad(self, log_id: str, user_id: str, value: bytes) -> Moment:
        """Remember an ad decision.

        Args:
            log_id: Id of the recommendation on the same event.
            user_id: User of the decision.
            value: The ad decision as JSON.
        """
        moment = self._moment(log_id, user_id)
        self._bytes += len(value) - len(moment.ad or b"")
        moment.ad = value
        return self._finish(moment)

    def forget(self, user_id: str) -> None:
        """Forget all moments of a user."""
        for moment in self._by_user.pop(user_id, ()):
            self._bytes -= _size(self._by_id.pop(moment.log_id))

    def _moment(self, log_id: str, user_id: str) -> Moment:
        """Return a moment; a new moment for an unknown id.

        Args:
            log_id: `TOPIC-PARTITION-OFFSET` of the event.
            user_id: User of the event.
        """
        moment = self._by_id.get(log_id)
        if moment is None:
            moment = self._by_id[log_id] = Moment(log_id, user_id)
            self._by_user.setdefault(user_id, deque()).append(moment)
            self._bytes += OVERHEAD_BYTES
        return moment

    def _finish(self, moment: Moment) -> Moment:
        if not moment.number and moment.event is not None and moment.decision is not None:
            self._completed += 1
            moment.number = self._completed
        while self._bytes > self._max_bytes and len(self._by_id) > 1:
            self._drop_oldest()
        return moment

    def _drop_oldest(self) -> None:
        _, moment = self._by_id.popitem(last=False)
        self._bytes -= _size(moment)
        moments = self._by_user[moment.user_id]
        moments.popleft()  # moments of a user are in the order of all
        if not moments:
            del self._by_user[moment.user_id]


def _size(moment: Moment) -> int:
    return OVERHEAD_BYTES + sum(len(value) for value in (moment.event, moment.decision, moment.ad) if value)


def _raw(value: bytes | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value)
