"""Closed sessions: a whole session once it has ended, with its outcome. What training reads."""

import msgspec


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One interaction of a closed session."""

    ts: int
    action: str
    """One of `schemas.events.ACTIONS`."""
    item_id: str = ""
    """Empty for a search."""


class ClosedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that has ended, in event-time order. A repeat after a crash has the same id and the same bytes."""

    id: str
    """`TOPIC-PARTITION-OFFSET` of its first event: the name by which a repeat is known."""
    session_id: str
    """The client's name for it, or `PARTITION-OFFSET`; a client may use one name twice."""
    user_id: str
    opened_at: int
    closed_at: int
    """`ts` of its last event, ms."""
    length: int
    """Events that it had; more than `events` holds where the bound of a session's memory cut the oldest."""
    purchased: bool
    """The outcome: whether anything was bought in it."""
    events: tuple[SessionEvent, ...]


class OpenSession(ClosedSession, frozen=True, kw_only=True):
    """A session that was still open where a log ended: what it would have come to is unknown. On no topic."""

    ended: bool = False


decode_session = msgspec.json.Decoder(ClosedSession).decode
encode_session = msgspec.json.Encoder().encode
