"""Identity: hand the session of an anonymous id over to a user, and merge the two halves in order of time.

Both halves may lie in different partitions. So the half of the anonymous id travels as a `handover` record through the
log of the user's partition. All functions are pure; `PartitionState` applies them.
"""

import msgspec

from clickscore.schemas.clients import CLIENTS, FIRST_MACHINE
from clickscore.schemas.events import ACTIONS, Identify, encode_event
from clickscore.schemas.field_types import FINGERPRINT_BYTES
from clickscore.schemas.handover import HandedConsent, HandedEvent, HandedSession, Handover
from clickscore.schemas.purposes import TRAINING, purpose_bits, purposes_of_bits
from clickscore.schemas.sessions import ClosedSession, SessionEvent
from clickscore.schemas.snapshots import ConsentState, UserState
from clickscore.stream.state.ad_counts import hand_over
from clickscore.stream.state.sessions import purchase_days, purchases


def make_handover(
    user: UserState, event: Identify, user_hash: bytes, *, partition: int, offset: int, withheld: int
) -> Handover | None:
    """Return what an anonymous id hands over; None where there is nothing that the user does not have yet.

    Args:
        user: State of the anonymous id.
        event: The `identify` event.
        user_hash: Hash of the id of the user.
        partition: Partition of the event.
        offset: Offset of the event.
        withheld: Bits of the purposes to which the anonymous id has not consented.
    """
    consent = user.consent if user.consent is not None and user.consent.handed_to != user_hash else None
    if not (user.length or user.bought or consent or user.ads):
        return None
    if user.length and user.consent is not None and user.consent.session_withheld:
        withheld |= TRAINING
    return Handover(
        user_id=event.identified_as,
        anonymous_id=event.user_id,
        ts=event.ts,
        partition=partition,
        offset=offset,
        session=_handed_session(user) if user.length else None,
        bought=tuple(user.bought),
        bought_days=tuple(user.bought_days),
        last_ts=user.last_ts if user.length or user.bought else 0,
        consent=_handed_consent(consent) if consent else None,
        withheld=purposes_of_bits(withheld),
        client=user.client,
        ads=hand_over(user.ads, user.opened_by) if user.ads else None,
    )


def empty_handover(event: Identify, *, partition: int, offset: int) -> Handover:
    """Return a hand-over of nothing, to which open decisions are added.

    Args:
        event: The `identify` event.
        partition: Partition of the event.
        offset: Offset of the event.
    """
    return Handover(
        user_id=event.identified_as, anonymous_id=event.user_id, ts=event.ts, partition=partition, offset=offset
    )


def _handed_session(user: UserState) -> HandedSession:
    return HandedSession(
        session_id=user.session_id,
        opened_by=user.opened_by,
        opened_at=user.opened_at,
        length=user.length,
        purchased=user.purchased,
        events=tuple(
            HandedEvent(user.opened_at + age, user.actions[row], user.items[row], _fingerprint(user, row))
            for row, age in enumerate(user.ages)
        ),
        seen=user.seen or msgspec.UNSET,
    )


def _fingerprint(user: UserState, row: int) -> bytes:
    return user.fingerprints[row * FINGERPRINT_BYTES : (row + 1) * FINGERPRINT_BYTES]


def _handed_consent(consent: ConsentState) -> HandedConsent:
    return HandedConsent(
        granted=purposes_of_bits(consent.granted),
        withdrawn=purposes_of_bits(consent.withdrawn),
        said_at=consent.said_at,
        withdrawn_at=consent.withdrawn_at,
    )


def encode_bounded(handover: Handover, max_bytes: int) -> bytes:
    """Return a hand-over as JSON. Until it fits, open decisions go, then seen items, then old events and bought items.

    Args:
        handover: The hand-over.
        max_bytes: Largest record that workers decode (`max_event_bytes`).
    """
    value = encode_event(handover)
    if len(value) > max_bytes and handover.ledger is not msgspec.UNSET:
        handover = msgspec.structs.replace(handover, ledger=msgspec.UNSET)  # the session counts more than its outcome
        value = encode_event(handover)
    if len(value) > max_bytes and handover.session is not None and handover.session.seen is not msgspec.UNSET:
        session = msgspec.structs.replace(handover.session, seen=msgspec.UNSET)
        handover = msgspec.structs.replace(handover, session=session)
        value = encode_event(handover)
    while len(value) > max_bytes:
        session, bought = handover.session, handover.bought
        if not bought and (session is None or len(session.events) == 1):
            break  # the ids alone are too long: it becomes a dead letter, which says so
        if session is not None:
            session = msgspec.structs.replace(session, events=session.events[len(session.events) // 2 :])
        first = (len(bought) + 1) // 2
        days = tuple(purchase_days(bought, handover.bought_days)[first:])
        handover = msgspec.structs.replace(handover, session=session, bought=bought[first:], bought_days=days)
        value = encode_event(handover)
    return value


def adopt_session(user: UserState, session: HandedSession, offset: int, max_events: int) -> None:
    """Give a user without an open session the session of the anonymous id.

    Args:
        user: State of the user.
        session: The handed-over session.
        offset: Source offset of the hand-over, in the user's partition: it opens the session there.
        max_events: Largest number of remembered events.
    """
    user.opened_by, user.session_id, user.is_handed = offset, session.session_id, True
    user.opened_at, user.length, user.purchased = session.opened_at, 0, False
    user.ages, user.actions, user.items, user.fingerprints = [], b"", [], b""
    merge_session(user, session, max_events)


def merge_session(user: UserState, session: HandedSession, max_events: int) -> None:
    """Merge a handed-over session into the open session of a user, in order of time, each event id once.

    Args:
        user: State of the user. The session keeps its name.
        session: The handed-over session.
        max_events: Largest number of remembered events; the oldest are forgotten first.
    """
    events = [
        HandedEvent(user.opened_at + age, user.actions[row], user.items[row], _fingerprint(user, row))
        for row, age in enumerate(user.ages)
    ]
    fingerprints = {event.fingerprint for event in events}
    user.length += session.length
    for event in session.events:
        if event.fingerprint in fingerprints:
            user.length -= 1
        else:
            fingerprints.add(event.fingerprint)
            events.append(event)
    events.sort(key=lambda event: event.ts)  # stable: of equal times, the user's own events come first
    del events[: max(0, len(events) - max_events)]
    user.opened_at = min(user.opened_at, session.opened_at)
    user.last_ts = events[-1].ts
    user.purchased = user.purchased or session.purchased
    user.ages = [event.ts - user.opened_at for event in events]
    user.actions = bytes(event.action for event in events)
    user.items = [event.item_id for event in events]
    user.fingerprints = b"".join(event.fingerprint for event in events)


def closed_session(handover: Handover, session: HandedSession, topic: str) -> ClosedSession:
    """Return a handed-over session that is over already; a repeat has the same id.

    Args:
        handover: The hand-over.
        session: Its session.
        topic: Name of the topic of events, with its prefix.
    """
    return ClosedSession(
        id=f"{topic}-{handover.partition}-{session.opened_by}",
        session_id=session.session_id,
        user_id=handover.user_id,
        opened_at=session.opened_at,
        closed_at=session.last_ts,
        length=session.length,
        purchased=session.purchased,
        events=tuple(
            SessionEvent(ts=event.ts, action=ACTIONS[event.action], item_id=event.item_id) for event in session.events
        ),
    )


def merge_bought(user: UserState, handover: Handover, max_bought: int) -> None:
    """Add the bought items of an anonymous id to a user's, each once.

    The half with the newest event has the newer items.

    Args:
        user: State of the user.
        handover: The hand-over.
        max_bought: Largest number of items; the oldest are forgotten first.
    """
    handed_days = purchase_days(handover.bought, handover.bought_days)
    halves = [purchases(user), dict(zip(handover.bought, handed_days, strict=True))]
    older, newer = halves if handover.last_ts >= user.last_ts else reversed(halves)
    merged = {item: day for item, day in older.items() if item not in newer} | newer
    first = max(0, len(merged) - max_bought)
    user.bought, user.bought_days = list(merged)[first:], list(merged.values())[first:]


def merge_consent(consent: ConsentState, handed: HandedConsent) -> None:
    """Add what was said under the anonymous id to what the user said.

    What was said counts before silence, and of two statements about a purpose the stricter counts.

    Args:
        consent: What the user said; changed in place.
        handed: What was said under the anonymous id.
    """
    consent.withdrawn |= purpose_bits(handed.withdrawn)
    consent.granted = (consent.granted | purpose_bits(handed.granted)) & ~consent.withdrawn
    consent.said_at = max(consent.said_at, handed.said_at)
    consent.withdrawn_at = max(consent.withdrawn_at, handed.withdrawn_at)
    consent.handed_to = b""


def merge_client(code: int, handed: int) -> int:
    """Return the class of a user after a hand-over: declared before recognised, and a machine before a shopper.

    Args:
        code: Class of the user: index into `schemas.clients.CLIENTS`.
        handed: Class of the anonymous id.
    """
    return max(code, handed, key=lambda client: (CLIENTS[client].reason == "declared", client >= FIRST_MACHINE))
