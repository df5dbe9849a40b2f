"""Decision memory: the newest decision of the last users, bounded by a number of users."""

from collections import OrderedDict
from typing import Literal, NamedTuple, Protocol

import msgspec

from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.decision_ids import AD_SUFFIX

DecisionKind = Literal["recommendation", "ad"]
"""Kind of a published decision."""


class PublishedDecision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The ids of a published decision. The other fields are skipped, so that decoding is fast."""

    decision_id: str
    user_id: str
    event_id: str

    @property
    def log_id(self) -> str:
        """`TOPIC-PARTITION-OFFSET` of the answered event."""
        return self.decision_id.removesuffix(AD_SUFFIX)


decode_published_decision = bounded_depth(msgspec.json.Decoder(PublishedDecision).decode)


class SharedMemory(Protocol):
    """A memory of newest decisions that several gateways share; for example Redis."""

    def put(self, kind: DecisionKind, user_id: str, log_id: str, value: bytes | None) -> None:
        """Note the newest decision of a user.

        Args:
            kind: Kind of the decision.
            user_id: The user.
            log_id: `TOPIC-PARTITION-OFFSET` of the answered event, or of the event that erased the user.
            value: The decision as published; None for a user who was erased.
        """
        ...

    async def newest(self, kind: DecisionKind, user_id: str) -> bytes | None:
        """Return the newest decision of a user as published; None for an unknown or erased user.

        Args:
            kind: Kind of the decision.
            user_id: The user.

        Raises:
            RequestError: The memory does not answer.
        """
        ...


class _Remembered(NamedTuple):
    """The newest entry of a user."""

    log_id: str
    """`TOPIC-PARTITION-OFFSET` of the answered event, or of the event that erased the user."""
    event_id: str
    value: bytes | None
    """The decision as published; None for a user who was erased."""


class DecisionMemory:
    """Remembers the newest decision of each user. With too many users, the user with the oldest entry goes."""

    def __init__(self, max_users: int) -> None:
        """Start empty.

        Args:
            max_users: Largest number of users.
        """
        self._max_users = max_users
        self._by_user: OrderedDict[str, _Remembered] = OrderedDict()  # oldest entry first
        self._users: dict[str, str] = {}  # user of each entry, by log id

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self._by_user)

    def remember(self, decision: PublishedDecision, value: bytes) -> None:
        """Remember a decision as the newest of the user.

        After a restart a worker publishes decisions again. A repeat of an older decision is ignored.

        Args:
            decision: Ids of the decision.
            value: The decision as published.
        """
        self._put(decision.user_id, _Remembered(decision.log_id, decision.event_id, value))

    def forget(self, user_id: str, log_id: str) -> None:
        """Forget the decision of a user, and decisions on earlier events that are read later.

        Args:
            user_id: The user.
            log_id: `TOPIC-PARTITION-OFFSET` of the event that erased the user.
        """
        self._put(user_id, _Remembered(log_id, "", None))

    def __contains__(self, user_id: str) -> bool:
        """Return whether there is an entry of a user, who may be erased."""
        return user_id in self._by_user

    def newest(self, user_id: str) -> bytes | None:
        """Return the newest decision of a user as published; None for an unknown user."""
        remembered = self._by_user.get(user_id)
        return remembered.value if remembered else None

    def by_log_id(self, log_id: str) -> bytes | None:
        """Return the newest decision of any user by the place of the answered event, as published."""
        user_id = self._users.get(log_id)
        return None if user_id is None else self.newest(user_id)

    def by_event(self, user_id: str, event_id: str) -> bytes | None:
        """Return the newest decision of a user if the decision answers this event."""
        remembered = self._by_user.get(user_id)
        return remembered.value if remembered and remembered.event_id == event_id else None

    def _put(self, user_id: str, entry: _Remembered) -> None:
        former = self._by_user.get(user_id)
        if former:
            if _is_earlier(entry.log_id, former.log_id):
                return
            del self._users[former.log_id]
        self._by_user[user_id] = entry
        self._by_user.move_to_end(user_id)
        self._users[entry.log_id] = user_id
        if len(self._by_user) > self._max_users:
            _, oldest = self._by_user.popitem(last=False)
            del self._users[oldest.log_id]


def _is_earlier(log_id: str, former_id: str) -> bool:
    """Return whether an event lies before another event of the same partition."""
    source, _, offset = log_id.rpartition("-")
    former_source, _, former_offset = former_id.rpartition("-")
    is_comparable = source == former_source and offset.isdecimal() and former_offset.isdecimal()
    return is_comparable and int(offset) < int(former_offset)
