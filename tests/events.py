"""Three-word builders of events and records, for tests."""

from typing import Any, NamedTuple

import xxhash

from clickscore.schemas.events import (
    AnyEvent,
    Consent,
    Erase,
    Identify,
    Impression,
    PrivacyRecord,
    Purchase,
    Search,
    View,
    encode_event,
)
from clickscore.schemas.handover import HandedEvent, HandedSession, Handover
from clickscore.schemas.purposes import Purpose

MINUTE = 60_000
START = 1_700_000_000_000  # some time in event time, ms


class Recorded(NamedTuple):
    """A record as a topic holds it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def view(user: str, minute: float, item: str = "kettle", *, event_id: str = "", session: str | None = None) -> View:
    ts = START + round(minute * MINUTE)
    return View(event_id=event_id or f"{user}-{ts}-{item}", user_id=user, ts=ts, item_id=item, session_id=session)


def purchase(user: str, minute: float, item: str = "kettle") -> Purchase:
    ts = START + round(minute * MINUTE)
    return Purchase(event_id=f"{user}-{ts}-buys-{item}", user_id=user, ts=ts, item_id=item)


def impression(user: str, minute: float, item: str = "kettle") -> Impression:
    ts = START + round(minute * MINUTE)
    return Impression(event_id=f"{user}-{ts}-sees-{item}", user_id=user, ts=ts, item_id=item)


def search(user: str, minute: float, query: str = "tea") -> Search:
    ts = START + round(minute * MINUTE)
    return Search(event_id=f"{user}-{ts}-seeks", user_id=user, ts=ts, query=query)


def grant(user: str, minute: float, *purposes: Purpose) -> Consent:
    ts = START + round(minute * MINUTE)
    return Consent(event_id=f"{user}-{ts}-grants", user_id=user, ts=ts, granted=purposes)


def withdraw(user: str, minute: float, *purposes: Purpose) -> Consent:
    ts = START + round(minute * MINUTE)
    return Consent(event_id=f"{user}-{ts}-withdraws", user_id=user, ts=ts, withdrawn=purposes)


def erase(user: str, minute: float) -> Erase:
    ts = START + round(minute * MINUTE)
    return Erase(event_id=f"{user}-{ts}-erases", user_id=user, ts=ts)


def identify(anonymous: str, minute: float, user: str) -> Identify:
    ts = START + round(minute * MINUTE)
    return Identify(event_id=f"{anonymous}-{ts}-is-{user}", user_id=anonymous, ts=ts, identified_as=user)


def handed_session(*minutes: float, name: str = "web-1", first: int = 0) -> HandedSession:
    """Return a session of views of items `item-MINUTE`, which an event at the offset `first` began."""
    times = [START + round(minute * MINUTE) for minute in minutes]
    return HandedSession(
        session_id=name,
        opened_by=first,
        opened_at=times[0],
        length=len(times),
        events=tuple(
            HandedEvent(ts, 1, f"item-{minute:g}", xxhash.xxh3_64_digest(f"event-{minute:g}".encode()))
            for ts, minute in zip(times, minutes, strict=True)
        ),
    )


def handover(user: str, minute: float, session: HandedSession | None = None, **fields: Any) -> Handover:
    """Return what the `identify` event at offset 9 of partition 1 hands over to a user."""
    values: dict[str, Any] = {"anonymous_id": "cookie", "partition": 1, "offset": 9, "session": session} | fields
    values.setdefault("last_ts", session.last_ts if session else 0)
    return Handover(user_id=user, ts=START + round(minute * MINUTE), **values)


def records(*events: AnyEvent | PrivacyRecord | Handover | bytes | None, first: int = 0) -> list[Recorded]:
    """Return a partition's records of these events, appended when they happened."""
    log: list[Recorded] = []
    for offset, event in enumerate(events, start=first):
        if isinstance(event, bytes) or event is None:
            log.append(Recorded(offset, START, None, event))
        else:
            log.append(Recorded(offset, event.ts, event.user_id.encode(), encode_event(event)))
    return log
