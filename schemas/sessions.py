"""Closed sessions: all events of an ended session, with the outcome. Training reads closed sessions."""

import msgspec

from clickscore.schemas.field_types import Millis
from clickscore.schemas.json_depth import bounded_depth


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An interaction of a closed session."""

    ts: Millis
    action: str
    """Name of an action in `schemas.events.ACTIONS`."""
    item_id: str = ""
    """Empty for a search."""


class ClosedSession(msgspec.Struct, frozen=True, kw_only=True):
    """An ended session, with the events in event-time order. A repeat after a crash has the same id and bytes."""

    id: str
    """`TOPIC-PARTITION-OFFSET` of the first event, or `file-HASH` if the session was cut from a file. Readers recognise
    a repeat by this id."""
    session_id: str
    """The client's name for the session, or `PARTITION-OFFSET`. A client may use the same name twice."""
    user_id: str
    opened_at: Millis
    closed_at: Millis
    """`ts` of the last event, ms."""
    length: int
    """Number of events of the session. `events` has fewer if the session was longer than `max_events`."""
    purchased: bool
    """Outcome of the session: whether the user bought an item."""
    events: tuple[SessionEvent, ...]


class OpenSession(ClosedSession, frozen=True, kw_only=True):
    """A session without an end when the log ended, so the outcome is unknown. No topic has open sessions."""

    ended: bool = False


decode_session = bounded_depth(msgspec.json.Decoder(ClosedSession).decode)
encode_session = msgspec.json.Encoder().encode
