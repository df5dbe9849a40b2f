"""Decision memory: the newest decision of the last users, bounded by a number of users."""

from collections import OrderedDict

import msgspec

from clickscore.schemas.json_depth import bounded_depth


class PublishedDecision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The ids of a published recommendation. The other fields are skipped, so that decoding is fast."""

    decision_id: str
    user_id: str
    event_id: str

    @property
    def source_position(self) -> tuple[str, int]:
        """Topic and partition of the answered event as in the decision id, and the event's offset; -1 without one."""
        source, _, offset = self.decision_id.rpartition("-")
        return source, int(offset) if offset.isascii() and offset.isdigit() else -1


decode_published_decision = bounded_depth(msgspec.json.Decoder(PublishedDecision).decode)


class DecisionMemory:
    """Remembers the newest decision of each user. With too many users, the user with the oldest decision goes."""

    def __init__(self, max_users: int) -> None:
        """Start empty.

        Args:
            max_users: Largest number of users.
        """
        self._max_users = max_users
        self._by_user: OrderedDict[str, tuple[PublishedDecision, bytes]] = OrderedDict()  # oldest decision first
        self._users: dict[str, str] = {}  # user of each remembered decision

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self._by_user)

    def remember(self, decision: PublishedDecision, value: bytes) -> None:
        """Remember a decision as the newest of its user.

        A worker that restarts publishes decisions again. A repeat of an older decision changes nothing.

        Args:
            decision: Ids of the decision.
            value: The decision as published.
        """
        former = self._by_user.get(decision.user_id)
        if former:
            source, offset = decision.source_position
            former_source, former_offset = former[0].source_position
            if source == former_source and offset < former_offset:
                return
            del self._users[former[0].decision_id]
        self._by_user[decision.user_id] = (decision, value)
        self._by_user.move_to_end(decision.user_id)
        self._users[decision.decision_id] = decision.user_id
        if len(self._by_user) > self._max_users:
            _, (oldest, _) = self._by_user.popitem(last=False)
            del self._users[oldest.decision_id]

    def newest(self, user_id: str) -> bytes | None:
        """Return the newest decision of a user as published; None for an unknown user."""
        remembered = self._by_user.get(user_id)
        return remembered[1] if remembered else None

    def by_id(self, decision_id: str) -> bytes | None:
        """Return a decision as published; None unless it is the newest decision of a remembered user."""
        user_id = self._users.get(decision_id)
        return None if user_id is None else self.newest(user_id)

    def by_event(self, user_id: str, event_id: str) -> bytes | None:
        """Return the newest decision of a user where it answers this event; otherwise None."""
        remembered = self._by_user.get(user_id)
        return remembered[1] if remembered and remembered[0].event_id == event_id else None
