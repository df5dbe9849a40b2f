"""Sessions: one user's events grouped by gaps in event time.

Functions of a user's state and one event; no clock, no Kafka. An event within the allowed lateness takes its place in
the open session by its `ts`. A session ends where the silence is longer than the gap, or where the client names
another one. A session that ended is never opened again: what still comes for it is late.
"""

from bisect import bisect_right

from clickscore.schemas.events import ACTIONS, Interaction
from clickscore.schemas.sessions import ClosedSession, SessionEvent
from clickscore.schemas.snapshots import UserState

FINGERPRINT_BYTES = 8

_BYTE_OF = [bytes((action,)) for action in range(len(ACTIONS))]  # made once, as every event adds one


def is_duplicate(user: UserState, fingerprint: bytes) -> bool:
    """Return whether the open session remembers an event with this fingerprint (8 bytes)."""
    at = user.fingerprints.find(fingerprint)
    while at > 0 and at % FINGERPRINT_BYTES:  # found across two neighbours, which is not a find
        at = user.fingerprints.find(fingerprint, at + 1)
    return at >= 0


def starts_session(user: UserState, event: Interaction, gap_ms: int) -> bool:
    """Return whether an event begins a new session; one exactly at the gap still belongs to the open one."""
    if not user.length or event.ts - user.last_ts > gap_ms:
        return True
    return names_other_session(user, event) and event.ts >= user.last_ts


def belongs_to_closed_session(user: UserState, event: Interaction, gap_ms: int) -> bool:
    """Return whether an event belongs to a session of this user that has ended, so that it is late."""
    return user.length > 0 and names_other_session(user, event) and not starts_session(user, event, gap_ms)


def names_other_session(user: UserState, event: Interaction) -> bool:
    """Return whether the client says another session than the open one; saying none agrees with any."""
    return event.session_id is not None and event.session_id != user.session_id


def open_session(user: UserState, event: Interaction, offset: int, name: str) -> None:
    """Begin a session with an event that is about to be added; `name` is its id where the client gives none."""
    user.opened_by = offset
    user.session_id = event.session_id or name
    user.opened_at = user.last_ts = event.ts
    user.length = 0
    user.purchased = False
    user.ages, user.actions, user.items, user.fingerprints = [], b"", [], b""


def add(user: UserState, event: Interaction, action: int, item_id: str, fingerprint: bytes) -> None:
    """Put an event into the open session, at its place by event time, after others of the same `ts`."""
    if event.ts < user.opened_at:
        shift = user.opened_at - event.ts
        user.ages = [age + shift for age in user.ages]
        user.opened_at = event.ts
    age, byte = event.ts - user.opened_at, _BYTE_OF[action]
    if not user.ages or age >= user.ages[-1]:
        user.ages.append(age)
        user.actions += byte
        user.items.append(item_id)
        user.fingerprints += fingerprint
        user.last_ts = event.ts
    else:
        at = bisect_right(user.ages, age)
        user.ages.insert(at, age)
        user.actions = user.actions[:at] + byte + user.actions[at:]
        user.items.insert(at, item_id)
        user.fingerprints = (
            user.fingerprints[: at * FINGERPRINT_BYTES] + fingerprint + user.fingerprints[at * FINGERPRINT_BYTES :]
        )
    user.length += 1


def drop_oldest(user: UserState) -> str:
    """Drop the oldest remembered event of the session; return its item, empty for a search."""
    del user.ages[0]
    user.actions = user.actions[1:]
    user.fingerprints = user.fingerprints[FINGERPRINT_BYTES:]
    return user.items.pop(0)


def remember_purchase(user: UserState, item_id: str, max_bought: int) -> None:
    """Note that an item was bought, as the newest of at most `max_bought`."""
    user.purchased = True
    if item_id in user.bought:
        user.bought.remove(item_id)
    user.bought.append(item_id)
    del user.bought[:-max_bought]


def close(user: UserState, user_id: str, source: str) -> ClosedSession:
    """End the open session and return it; what was bought stays remembered.

    Args:
        user: The state, which has an open session.
        user_id: Whose it is.
        source: `TOPIC-PARTITION` of the events, which with the first event's offset names the session for good.
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
    user.session_id, user.opened_by, user.length, user.purchased = "", -1, 0, False
    user.ages, user.actions, user.items, user.fingerprints = [], b"", [], b""
    return closed
