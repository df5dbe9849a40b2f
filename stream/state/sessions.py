"""Session windows: group a user's events by gaps in event time.

All functions take the state of a user and an event; no function knows a clock or Kafka. An event within the allowed
lateness is inserted into the open session in order of `ts`. A session ends after a silence longer than the gap, or when
the client names another session. A closed session is never opened again: later events of a closed session are late.

Repeated events are deduplicated by a fingerprint of the event id, for as long as the open session remembers the event.
"""

from bisect import bisect_right
from collections.abc import Sequence

from clickscore.schemas.events import ACTIONS, Interaction
from clickscore.schemas.field_types import FINGERPRINT_BYTES
from clickscore.schemas.sessions import ClosedSession, SessionEvent
from clickscore.schemas.snapshots import UserState
from clickscore.stream.request import UNKNOWN_DAY

_ACTION_BYTES = [bytes((action,)) for action in range(len(ACTIONS))]  # made once, since every event appends one


def is_duplicate(user: UserState, fingerprint: bytes) -> bool:
    """Return whether the open session remembers an event with this fingerprint (8 bytes): deduplicates events."""
    return contains_fingerprint(user.fingerprints, fingerprint)


def contains_fingerprint(fingerprints: bytes, fingerprint: bytes) -> bool:
    """Return whether a fingerprint (8 bytes) is among joined fingerprints."""
    index = fingerprints.find(fingerprint)
    while index > 0 and index % FINGERPRINT_BYTES:  # a match across two neighbouring fingerprints does not count
        index = fingerprints.find(fingerprint, index + 1)
    return index >= 0


def starts_session(user: UserState, event: Interaction, gap_ms: int) -> bool:
    """Return whether an event starts a new session; an event exactly at the gap extends the open session.

    Args:
        user: State of the event's user.
        event: The event.
        gap_ms: Silence that ends a session, ms.
    """
    if not user.length or event.ts - user.last_ts > gap_ms:
        return True
    return names_other_session(user, event) and event.ts >= user.last_ts


def belongs_to_closed_session(user: UserState, event: Interaction, gap_ms: int) -> bool:
    """Return whether an event belongs to a closed session of the user and so is late.

    Args:
        user: State of the event's user.
        event: The event.
        gap_ms: Silence that ends a session, ms.
    """
    return user.length > 0 and names_other_session(user, event) and not starts_session(user, event, gap_ms)


def names_other_session(user: UserState, event: Interaction) -> bool:
    """Return whether the client names another session than the open session; an absent or empty name fits any.

    A session that was handed over by an anonymous id takes any name: shops give the session a new name at the login.
    """
    return bool(event.session_id) and event.session_id != user.session_id and not user.is_handed


def open_session(user: UserState, event: Interaction, offset: int, default_id: str) -> None:
    """Open an empty session for a first event; add the event itself with `add_event`.

    Args:
        user: State of the event's user.
        event: First event of the session.
        offset: Source offset of the event.
        default_id: Session id where the client names no session.
    """
    user.opened_by = offset
    user.session_id = event.session_id or default_id
    user.opened_at = user.last_ts = event.ts
    user.length = 0
    user.purchased = user.is_handed = False
    user.ages, user.actions, user.items, user.fingerprints = [], b"", [], b""


def add_event(user: UserState, event: Interaction, action: int, item_id: str, fingerprint: bytes) -> None:
    """Insert an event into the open session by event time, after the events of the same `ts`.

    Args:
        user: State of the event's user, with an open session.
        event: The event.
        action: Action code of the event (index into `schemas.events.ACTIONS`).
        item_id: Item of the event; empty for a search.
        fingerprint: Fingerprint of the event id (8 bytes).
    """
    if user.is_handed and event.session_id:
        user.session_id, user.is_handed = event.session_id, False
    if event.ts < user.opened_at:
        shift = user.opened_at - event.ts
        user.ages = [age + shift for age in user.ages]
        user.opened_at = event.ts
    age, action_byte = event.ts - user.opened_at, _ACTION_BYTES[action]
    if not user.ages or age >= user.ages[-1]:
        user.ages.append(age)
        user.actions += action_byte
        user.items.append(item_id)
        user.fingerprints += fingerprint
        user.last_ts = event.ts
    else:
        index = bisect_right(user.ages, age)
        byte = index * FINGERPRINT_BYTES
        user.ages.insert(index, age)
        user.actions = user.actions[:index] + action_byte + user.actions[index:]
        user.items.insert(index, item_id)
        user.fingerprints = user.fingerprints[:byte] + fingerprint + user.fingerprints[byte:]
    user.length += 1


def drop_oldest(user: UserState) -> str:
    """Forget the oldest remembered event of the session; return the item of the event, empty for a search."""
    del user.ages[0]
    user.actions = user.actions[1:]
    user.fingerprints = user.fingerprints[FINGERPRINT_BYTES:]
    return user.items.pop(0)


def purchase_days(items: Sequence[str], days: Sequence[int]) -> list[int]:
    """Return the day of each bought item.

    Args:
        items: Bought items, newest last.
        days: Days of the newest of them.
    """
    return [UNKNOWN_DAY] * (len(items) - len(days)) + list(days[max(0, len(days) - len(items)) :])


def remember_purchase(user: UserState, item_id: str, day: int, max_bought: int) -> None:
    """Remember a bought item as the newest.

    Args:
        user: State of the buyer.
        item_id: The bought item.
        day: Day of the purchase, days since 1970, UTC.
        max_bought: Largest number of bought items to remember; the oldest are forgotten first.
    """
    user.purchased = True
    user.bought_days = purchase_days(user.bought, user.bought_days)
    if item_id in user.bought:
        index = user.bought.index(item_id)
        del user.bought[index], user.bought_days[index]
    user.bought.append(item_id)
    user.bought_days.append(day)
    surplus = max(0, len(user.bought) - max_bought)
    del user.bought[:surplus], user.bought_days[:surplus]


def purchases(user: UserState) -> dict[str, int]:
    """Return the day of the purchase of each bought item of a user, the newest item last."""
    return dict(zip(user.bought, purchase_days(user.bought, user.bought_days), strict=True))


def forget_purchases(user: UserState) -> None:
    """Forget the bought items of a user."""
    user.bought, user.bought_days = [], []


def close(user: UserState, user_id: str, source: str) -> ClosedSession:
    """Close and return the open session; the bought items stay remembered.

    Args:
        user: State of the user, with an open session.
        user_id: The user.
        source: `TOPIC-PARTITION` of the events. Source and offset of the first event are the session's unique id.
    """
    events = tuple(
        SessionEvent(ts=user.opened_at + age, action=ACTIONS[action], item_id=item)
        for age, action, item in zip(user.ages, user.actions, user.items, strict=True)
    )
    closed = ClosedSession(
        id=f"{source}-{user.opened_by}",
        session_id=user.session_id,
        user_id=user_id,
        opened_at=user.opened_at,
        closed_at=user.last_ts,
        length=user.length,
        purchased=user.purchased,
        events=events,
    )
    clear(user)
    return closed


def clear(user: UserState) -> None:
    """Remove the open session from the state of a user."""
    user.session_id, user.opened_by, user.length, user.purchased, user.is_handed = "", -1, 0, False, False
    user.ages, user.actions, user.items, user.fingerprints = [], b"", [], b""
    user.seen = None
