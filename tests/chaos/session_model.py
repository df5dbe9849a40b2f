"""Session model: what every record of a partition must lead to, written from docs/semantics.md alone.

The model shares no code with the product. A partition is a value that takes the records in the order of their offsets,
and keeps what must be in the output topics.
"""

import heapq
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from tests.chaos.event_rules import PURPOSES, JsonObject, NotAnEventError, Rules, read_event

MINUTE_MS = 60_000
DAY_MS = 86_400_000
MAX_POPULAR = 64
COUNTED_ITEMS = 8
LONG_SESSION = 12
"""Remembered events from which on a session that only views new items does not count in popularity."""
CLOSED_BY_EVENT = 64
CLOSED_BY_TICK = 4_096
REMEMBERED_STATEMENTS = 4
REMEMBERED_ERASURES = 256
ACTIONS = ("", "view", "cart", "remove_from_cart", "favourite", "purchase", "click", "search")
"""Names of the action codes in snapshots and hand-overs."""
HASH = "hash "
"""Beginning of an event id that is known by its hash alone: a hand-over has no other."""


class RememberedEvent(NamedTuple):
    """An event in an open session."""

    ts: int
    action: str
    item: str
    """Empty for a search."""
    event_id: str


@dataclass(slots=True)
class Session:
    """An open session."""

    first_offset: int
    name: str
    opened_at: int
    newest_ts: int
    length: int = 0
    purchased: bool = False
    is_handed: bool = False
    """Whether the session has the name of an anonymous id, which the next name replaces."""
    events: list[RememberedEvent] = field(default_factory=list[RememberedEvent])


@dataclass(slots=True)
class Statements:
    """What a user said about consent."""

    granted: set[str] = field(default_factory=set[str])
    withdrawn: set[str] = field(default_factory=set[str])
    newest_ts: int = 0
    newest_withdrawal: int = 0
    event_ids: list[str] = field(default_factory=list[str])
    is_session_withheld: bool = False
    """Whether the open session has events without consent to training."""
    handed_to: str = ""
    """User who has taken all of this over; empty where there is something new."""


@dataclass(slots=True)
class Shopper:
    """A user: the open session, if any, the bought items, and what the user said about consent."""

    session: Session | None = None
    newest_ts: int = 0
    bought: list[str] = field(default_factory=list[str])
    statements: Statements | None = None


class UserFacts(NamedTuple):
    """A user's state, as far as docs/semantics.md promises one."""

    newest_ts: int
    bought: tuple[str, ...]
    session: tuple[int, str, int, int, bool] | None
    """Offset of the first event, name, earliest `ts`, length, and whether anything was bought."""
    events: tuple[tuple[int, str, str, bytes], ...]
    """Time, action, item, and hash of the event id of each remembered event."""
    consent: tuple[frozenset[str], frozenset[str], int, int, bytes, bool, bytes] | None
    """Purposes granted and withdrawn, newest times of a statement and of a withdrawal, hashes of the event ids,
    whether the open session is withheld from training, and the hash of the user who has taken all of this over."""


class PartitionFacts(NamedTuple):
    """A partition's own state."""

    max_ts: int
    popular: tuple[str, ...]


class Decided(NamedTuple):
    """Fields that a decision must have for its event."""

    user_id: str
    event_id: str
    ts: int
    session_id: str
    session_length: int
    late: bool
    withheld: tuple[str, ...]


class PartitionModel:
    """One partition of `clickstream-events`, and all records that must follow."""

    def __init__(self, source: str, rules: Rules) -> None:
        """Start empty.

        Args:
            source: `TOPIC-PARTITION` of the records.
            rules: Settings of the sessions.
        """
        self.source = source
        self.offset = -1
        self.decided: dict[str, Decided] = {}
        """By decision id."""
        self.closed: dict[str, JsonObject] = {}
        """Closed sessions by id, as they must be on `closed-sessions`."""
        self.receipts: dict[str, JsonObject] = {}
        """Receipts of erasures by the id of the `erase` event's record."""
        self.handovers: dict[str, JsonObject] = {}
        """Hand-overs that must lie in the users' partitions, by the id of the `identify` event's record."""
        self.dead: set[int] = set()
        """Offsets of dead letters."""
        self.outcomes: Counter[str] = Counter()
        self.event: JsonObject | None = None
        """Event of the newest record; None for a dead letter."""
        self.outcome = ""
        """Outcome of the newest record."""
        self._history: dict[str, tuple[list[int], list[int]]] = {}
        self._remember("", PartitionFacts(-1, ()))  # a worker stores its epoch before the first record
        self._rules = rules
        self._max_ts = -1
        self._shoppers: dict[str, Shopper] = {}
        self._changed: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._popular: list[str] = []
        self._session_ends: list[tuple[int, str]] = []  # heaps of full minutes and users
        self._user_ends: list[tuple[int, str]] = []
        self._consent_ends: list[tuple[int, str]] = []
        self._received: dict[int, int] = {}  # offset of the newest hand-over by source partition
        self._erased_at: dict[str, int] = {}  # the newest, in the order of their records
        self._forgotten_erasure = -1  # newest time of the others

    @property
    def watermark(self) -> int:
        """Largest `ts` so far less the lateness, ms."""
        return self._max_ts - self._rules.lateness_ms

    def matches(self, user_id: str, offset: int, facts: UserFacts | PartitionFacts | None) -> bool:
        """Return whether a state is the state after the record at an offset.

        Args:
            user_id: A user, or empty for the partition's own state.
            offset: Offset of a record.
            facts: State to compare; None for a forgotten user.
        """
        offsets, hashes = self._history.get(user_id, ((), ()))
        index = bisect_right(offsets, offset)
        return offset <= self.offset and hash(facts) == (hashes[index - 1] if index else hash(None))

    def users(self) -> dict[str, UserFacts]:
        """Return the state of every remembered user."""
        return {user_id: _facts(shopper) for user_id, shopper in self._shoppers.items()}

    def add(self, offset: int, appended_at: int, value: bytes | None) -> None:
        """Take the next record.

        Args:
            offset: Offset of the record.
            appended_at: Append time of the record, ms.
            value: Value of the record.
        """
        self.offset = offset
        self._changed.clear()
        try:
            event = read_event(value, appended_at, self._rules)
        except NotAnEventError:
            self.dead.add(offset)
            self.event, self.outcome = None, "dead"
        else:
            if event["type"] == "epoch":
                outcome = "epoch"  # the record of a worker changes no session; the judge does not look at its effect
            elif event["type"] == "consent":
                outcome = self._hear(event)
            elif event["type"] == "erase":
                outcome = self._erase(event)
            elif event["type"] == "identify":
                outcome = self._identify(event)
            elif event["type"] == "handover":
                outcome = self._receive(event)
            else:
                self._move_watermark(event["ts"], CLOSED_BY_TICK if event["type"] == "tick" else CLOSED_BY_EVENT)
                outcome = self._take(event, offset)
            self.event, self.outcome = event, outcome
        self.outcomes[self.outcome] += 1
        for user_id in self._changed:
            shopper = self._shoppers.get(user_id)
            if shopper and not (shopper.session or shopper.bought or shopper.statements):
                del self._shoppers[user_id]
                shopper = None
            self._remember(user_id, None if shopper is None else _facts(shopper))
        self._remember("", PartitionFacts(self._max_ts, tuple(self._popular)))

    def withheld(self, user_id: str) -> frozenset[str]:
        """Return the purposes without a user's consent as of the newest record."""
        return self._withheld(self._shoppers.get(user_id, Shopper()))

    def is_erased(self, handover: JsonObject) -> bool:
        """Return whether the newest record is a hand-over of somebody who was erased since, or may have been."""
        known = [self._erased_at.get(handover[name], -1) for name in ("user_id", "anonymous_id")]
        return any(ts >= max(handover["ts"], self._oldest_erasure()) for ts in (*known, self._forgotten_erasure))

    def _take(self, event: JsonObject, offset: int) -> str:
        """Bring an event into its session, decide, and return the outcome."""
        if event["type"] == "tick":
            return "tick"
        shopper = self._shoppers.get(event["user_id"], Shopper())
        late = event["ts"] < self.watermark
        withheld = self._withheld(shopper)
        session = shopper.session
        if "personalisation" in withheld:
            # The event is the first of a user who came now, and nothing of it is kept.
            name = event.get("session_id") or f"{self.source.rpartition('-')[2]}-{offset}"
            session = None if event["type"] == "impression" else Session(offset, name, event["ts"], event["ts"], 1)
        elif event["type"] != "impression":
            is_repeat = session and any(
                event_hash(remembered.event_id) == event_hash(event["event_id"]) for remembered in session.events
            )
            if is_repeat:
                return "repeated"
            if session and _names_another(session, event) and event["ts"] < session.newest_ts:
                late = True
            if not late:
                self._extend(shopper, event, offset)
                session = shopper.session
        if late and self._rules.late_events == "dead-letter":
            self.dead.add(offset)
            return "dead"
        self.decided[f"{self.source}-{offset}"] = Decided(
            user_id=event["user_id"],
            event_id=event["event_id"],
            ts=event["ts"],
            session_id=session.name if session else "",
            session_length=session.length if session else 0,
            late=late,
            withheld=tuple(purpose for purpose in PURPOSES if purpose in withheld),
        )
        return "late" if late else "decided"

    def _extend(self, shopper: Shopper, event: JsonObject, offset: int) -> None:
        """Add an event to the user's open session, or to a new session."""
        user_id, ts, item = event["user_id"], event["ts"], event.get("item_id", "")
        self._shoppers[user_id] = shopper
        self._changed.add(user_id)
        session = shopper.session
        if session and (ts - session.newest_ts > self._rules.gap_ms or _names_another(session, event)):
            self._close(user_id, shopper)
            session = None
        if session is None:
            name = event.get("session_id") or f"{self.source.rpartition('-')[2]}-{offset}"
            session = shopper.session = Session(offset, name, ts, ts)
        if session.is_handed and event.get("session_id"):
            session.name, session.is_handed = event["session_id"], False
        session.length += 1
        session.opened_at = min(session.opened_at, ts)
        session.newest_ts = shopper.newest_ts = max(session.newest_ts, ts)
        heapq.heappush(self._session_ends, (_full_minute(ts + self._rules.gap_ms), user_id))
        position = sum(remembered.ts <= ts for remembered in session.events)
        counted = _counted_items(session)
        session.events.insert(position, RememberedEvent(ts, event["type"], item, event["event_id"]))
        del session.events[: -self._rules.max_events]
        for former_item in counted:
            if former_item not in _counted_items(session):
                self._uncount(former_item)
        for newer_item in _counted_items(session):
            if newer_item not in counted:
                self._count(newer_item)
        if event["type"] == "purchase":
            session.purchased = True
            shopper.bought = [bought for bought in shopper.bought if bought != item] + [item]
            del shopper.bought[: max(0, len(shopper.bought) - self._rules.max_bought)]

    def _close(self, user_id: str, shopper: Shopper) -> None:
        """End a user's open session."""
        session = shopper.session
        assert session is not None
        shopper.session = None
        statements = shopper.statements
        is_withheld = "training" in self._withheld(shopper) or bool(statements and statements.is_session_withheld)
        if statements:
            statements.is_session_withheld = False
        self._uncount_all(session)
        heapq.heappush(self._user_ends, (_full_minute(session.newest_ts + self._rules.user_ttl_ms), user_id))
        if statements:
            self._end_consent(user_id, statements)
        if is_withheld:
            return
        self._publish(user_id, f"{self.source}-{session.first_offset}", session)

    def _publish(self, user_id: str, identity: str, session: Session) -> None:
        """Note that a session must be on `closed-sessions`."""
        self.closed[identity] = {
            "id": identity,
            "session_id": session.name,
            "user_id": user_id,
            "opened_at": session.opened_at,
            "closed_at": session.newest_ts,
            "length": session.length,
            "purchased": session.purchased,
            "events": [
                {"ts": ts, "action": action} | ({"item_id": item} if item else {})
                for ts, action, item, _ in session.events
            ],
        }

    def _hear(self, event: JsonObject) -> str:
        """Apply a statement about consent, and return the outcome."""
        user_id, ts = event["user_id"], event["ts"]
        shopper = self._shoppers.setdefault(user_id, Shopper())
        statements = shopper.statements
        if statements and event["event_id"] in statements.event_ids:
            return "repeated"
        self._changed.add(user_id)
        former = self._withheld(shopper)
        statements = shopper.statements = statements or Statements()
        statements.handed_to = ""
        granted, withdrawn = set(event.get("granted", [])), set(event.get("withdrawn", []))
        if ts < statements.newest_withdrawal:
            granted -= statements.withdrawn
        statements.granted = (statements.granted | granted) - withdrawn
        statements.withdrawn = (statements.withdrawn | withdrawn) - granted
        statements.newest_ts = max(statements.newest_ts, ts)
        if withdrawn:
            statements.newest_withdrawal = max(statements.newest_withdrawal, ts)
        statements.event_ids = [*statements.event_ids, event["event_id"]][-REMEMBERED_STATEMENTS:]
        self._end_consent(user_id, statements)
        if shopper.session and "training" in former - self._withheld(shopper):
            statements.is_session_withheld = True
        if "personalisation" in self._withheld(shopper):
            if shopper.session:
                self._close(user_id, shopper)
            shopper.bought, shopper.newest_ts = [], 0
        return "consent"

    def _identify(self, event: JsonObject) -> str:
        """Take what an anonymous id did out of the state, note the hand-over, and return the outcome."""
        anonymous_id, user_id = event["user_id"], event["identified_as"]
        shopper = self._shoppers.get(anonymous_id, Shopper())
        session, statements = shopper.session, shopper.statements
        has_news = statements is not None and statements.handed_to != user_id
        if not (session or shopper.bought or has_news):
            return "identify"
        withheld = set(self._withheld(shopper))
        if session and statements and statements.is_session_withheld:
            withheld.add("training")
        news = statements if has_news else None
        self.handovers[f"{self.source}-{self.offset}"] = {
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "ts": event["ts"],
            "partition": int(self.source.rpartition("-")[2]),
            "offset": self.offset,
            "session": session and _handed(session),
            "bought": shopper.bought,
            "last_ts": shopper.newest_ts if session or shopper.bought else 0,
            "consent": news
            and {
                "granted": _in_order(news.granted),
                "withdrawn": _in_order(news.withdrawn),
                "said_at": news.newest_ts,
                "withdrawn_at": news.newest_withdrawal,
            },
            "withheld": _in_order(withheld),
        }
        self._changed.add(anonymous_id)
        if session:
            self._uncount_all(session)
        shopper.session, shopper.bought, shopper.newest_ts = None, [], 0
        if statements:
            statements.is_session_withheld, statements.handed_to = False, user_id
            self._end_consent(anonymous_id, statements)
        return "identify"

    def _receive(self, event: JsonObject) -> str:
        """Merge a hand-over into the state of its user, unless it is a repeat, and return the outcome."""
        if event["offset"] <= self._received.get(event["partition"], -1):
            return "repeated"
        self._received[event["partition"]] = event["offset"]
        if self.is_erased(event):
            return "handover"
        user_id = event["user_id"]
        shopper = self._shoppers.setdefault(user_id, Shopper())
        self._changed.add(user_id)
        handed_private = "training" in event["withheld"]
        own_private = shopper.session is not None and "training" in self._withheld(shopper)
        if event["consent"]:
            self._hear_handed(user_id, shopper, event["consent"])
        withheld = self._withheld(shopper)
        if "personalisation" in withheld:
            if shopper.session:
                self._close(user_id, shopper)
            shopper.bought, shopper.newest_ts = [], 0
            return "handover"
        if own_private and shopper.statements and "training" not in withheld:
            shopper.statements.is_session_withheld = True
        joins = self._merge(shopper, event, may_publish=not handed_private and "training" not in withheld)
        if joins and handed_private and shopper.statements and "training" not in withheld:
            shopper.statements.is_session_withheld = True
        return "handover"

    def _hear_handed(self, user_id: str, shopper: Shopper, handed: JsonObject) -> None:
        """Add what was said under an anonymous id; the stricter consent wins."""
        statements = shopper.statements = shopper.statements or Statements()
        statements.withdrawn |= set(handed["withdrawn"])
        statements.granted = (statements.granted | set(handed["granted"])) - statements.withdrawn
        statements.newest_ts = max(statements.newest_ts, handed["said_at"])
        statements.newest_withdrawal = max(statements.newest_withdrawal, handed["withdrawn_at"])
        statements.handed_to = ""
        self._end_consent(user_id, statements)

    def _merge(self, shopper: Shopper, event: JsonObject, *, may_publish: bool) -> bool:
        """Merge session and bought items of a hand-over into those of its user; return whether the sessions are one."""
        user_id, handed, gap_ms = event["user_id"], event["session"], self._rules.gap_ms
        halves = [shopper.bought, event["bought"]]
        older, newer = halves if event["last_ts"] >= shopper.newest_ts else reversed(halves)
        bought = [item for item in older if item not in newer] + newer
        shopper.bought = bought[max(0, len(bought) - self._rules.max_bought) :]
        if handed and shopper.session and handed["opened_at"] - shopper.session.newest_ts > gap_ms:
            self._close(user_id, shopper)
        joins = False
        if handed:
            session = _read_handed(handed, self.offset)
            own = shopper.session
            if own:
                is_over = own.opened_at - session.newest_ts > gap_ms
            else:
                is_over = _full_minute(session.newest_ts + gap_ms) <= self.watermark
            if is_over and may_publish:
                self._publish(
                    user_id, f"{self.source.rpartition('-')[0]}-{event['partition']}-{handed['opened_by']}", session
                )
            elif not is_over:
                self._join(user_id, shopper, session)
            joins = not is_over
        if not shopper.session:
            shopper.newest_ts = max(shopper.newest_ts, event["last_ts"])
            heapq.heappush(self._user_ends, (_full_minute(shopper.newest_ts + self._rules.user_ttl_ms), user_id))
        return joins

    def _join(self, user_id: str, shopper: Shopper, handed: Session) -> None:
        """Make a handed-over session, and the user's own if there is one, a single session."""
        own = shopper.session or Session(handed.first_offset, handed.name, handed.opened_at, 0, is_handed=True)
        counted = _counted_items(own)
        ids = {event_hash(remembered.event_id) for remembered in own.events}
        news = [remembered for remembered in handed.events if event_hash(remembered.event_id) not in ids]
        own.length += handed.length - len(handed.events) + len(news)
        own.events = sorted(own.events + news, key=lambda remembered: remembered.ts)[-self._rules.max_events :]
        own.opened_at = min(own.opened_at, handed.opened_at)
        own.newest_ts = shopper.newest_ts = max(own.newest_ts, handed.newest_ts)
        own.purchased = own.purchased or handed.purchased
        shopper.session = own
        heapq.heappush(self._session_ends, (_full_minute(own.newest_ts + self._rules.gap_ms), user_id))
        for item in counted:
            if item not in _counted_items(own):
                self._uncount(item)
        for item in _counted_items(own):
            if item not in counted:
                self._count(item)

    def _oldest_erasure(self) -> int:
        """Return the time from which on erasures are remembered, ms."""
        return self.watermark // MINUTE_MS * MINUTE_MS - DAY_MS

    def _end_consent(self, user_id: str, statements: Statements) -> None:
        """Note when what a user said no longer holds."""
        heapq.heappush(self._consent_ends, (_full_minute(statements.newest_ts + self._rules.consent_ttl_ms), user_id))

    def _erase(self, event: JsonObject) -> str:
        """Forget a user, and return the outcome."""
        user_id = event["user_id"]
        shopper = self._shoppers.pop(user_id, Shopper())
        self._changed.add(user_id)
        self._erased_at = {user: ts for user, ts in self._erased_at.items() if ts >= self._oldest_erasure()}
        self._erased_at[user_id] = max(event["ts"], self._erased_at.pop(user_id, -1))
        if len(self._erased_at) > REMEMBERED_ERASURES:
            forgotten = self._erased_at.pop(next(iter(self._erased_at)))
            self._forgotten_erasure = max(self._forgotten_erasure, forgotten)
        if shopper.session:
            self._uncount_all(shopper.session)
            items = {remembered.item for remembered in shopper.session.events}
            self._popular = [item for item in self._popular if item not in items or self._counts[item]]
        identity = f"{self.source}-{self.offset}"
        names = ("event_id", "user_id", "ts")
        self.receipts[identity] = {"type": "erased", "record_id": identity} | {name: event[name] for name in names}
        return "erase"

    def _withheld(self, shopper: Shopper) -> frozenset[str]:
        """Return the purposes without the user's consent."""
        statements = shopper.statements or Statements()
        return (self._rules.withheld - statements.granted) | statements.withdrawn

    def _move_watermark(self, ts: int, limit: int) -> None:
        """Move the watermark; close what is over, forget users, and rank the popular items anew."""
        former = self.watermark
        self._max_ts = max(self._max_ts, ts)
        for user_id in self._over(self._session_ends, limit, self._session_is_over):
            self._changed.add(user_id)
            self._close(user_id, self._shoppers[user_id])
        for user_id in self._over(self._user_ends, limit, self._user_is_over):
            self._changed.add(user_id)
            self._shoppers[user_id].bought = []
        for user_id in self._over(self._consent_ends, limit, self._consent_is_over):
            self._changed.add(user_id)
            shopper = self._shoppers[user_id]
            shopper.statements = None
            if "personalisation" in self._withheld(shopper):
                shopper.bought = []
        period = self._rules.popularity_refresh_ms
        if former // period != self.watermark // period:
            best = sorted(self._counts, key=lambda item: (-self._counts[item], item))[:MAX_POPULAR]
            self._popular = (best + [item for item in self._popular if item not in set(best)])[:MAX_POPULAR]

    def _over(self, ends: list[tuple[int, str]], limit: int, is_over: Callable[[str, int], bool]) -> list[str]:
        """Take the users whose full minute the watermark has reached: by minute, then by user id."""
        users: list[str] = []
        while ends and ends[0][0] <= self.watermark and len(users) < limit:
            minute, user_id = heapq.heappop(ends)
            if user_id not in users and is_over(user_id, minute):
                users.append(user_id)
        return users

    def _session_is_over(self, user_id: str, minute: int) -> bool:
        session = self._shoppers[user_id].session if user_id in self._shoppers else None
        return session is not None and _full_minute(session.newest_ts + self._rules.gap_ms) == minute

    def _user_is_over(self, user_id: str, minute: int) -> bool:
        shopper = self._shoppers.get(user_id)
        if shopper is None or shopper.session or not shopper.bought:
            return False
        return _full_minute(shopper.newest_ts + self._rules.user_ttl_ms) == minute

    def _consent_is_over(self, user_id: str, minute: int) -> bool:
        shopper = self._shoppers.get(user_id)
        if shopper is None or shopper.session or shopper.statements is None:
            return False
        return _full_minute(shopper.statements.newest_ts + self._rules.consent_ttl_ms) == minute

    def _remember(self, user_id: str, facts: UserFacts | PartitionFacts | None) -> None:
        """Keep a hash of a changed state: all states of a long log would fill the memory."""
        offsets, hashes = self._history.setdefault(user_id, ([], []))
        offsets.append(self.offset)
        hashes.append(hash(facts))

    def _count(self, item: str) -> None:
        self._counts[item] += 1
        if len(self._popular) < MAX_POPULAR and item not in self._popular:
            self._popular.append(item)

    def _uncount_all(self, session: Session) -> None:
        for item in _counted_items(session):
            self._uncount(item)

    def _uncount(self, item: str) -> None:
        self._counts[item] -= 1
        if not self._counts[item]:
            del self._counts[item]


def _names_another(session: Session, event: JsonObject) -> bool:
    name = event.get("session_id")
    return bool(name) and name != session.name and not session.is_handed


def _in_order(purposes: AbstractSet[str]) -> list[str]:
    return [purpose for purpose in PURPOSES if purpose in purposes]


def _handed(session: Session) -> JsonObject:
    """Return a session as a hand-over has it."""
    return {
        "session_id": session.name,
        "opened_by": session.first_offset,
        "opened_at": session.opened_at,
        "length": session.length,
        "purchased": session.purchased,
        "events": [
            [ts, ACTIONS.index(action), item, b64encode(event_hash(event_id)).decode()]
            for ts, action, item, event_id in session.events
        ],
    }


def _read_handed(handed: JsonObject, offset: int) -> Session:
    """Return the session of a hand-over; the hash of an event's id stands for the id."""
    events = [
        RememberedEvent(ts, ACTIONS[action], item, HASH + b64decode(event_id).hex())
        for ts, action, item, event_id in handed["events"]
    ]
    return Session(
        offset,
        handed["session_id"],
        handed["opened_at"],
        events[-1].ts,
        handed["length"],
        handed["purchased"],
        events=events,
    )


def _counted_items(session: Session) -> list[str]:
    """Return the items for which the session's user counts in popularity: the newest, each once."""
    if len(session.events) >= LONG_SESSION and _only_views_new_items(session):
        return []
    items = [remembered.item for remembered in reversed(session.events) if remembered.item]
    return list(dict.fromkeys(items))[:COUNTED_ITEMS]


def _only_views_new_items(session: Session) -> bool:
    items = [remembered.item for remembered in session.events if remembered.action == "view"]
    return len(set(items)) == len(session.events)


def _full_minute(time_ms: int) -> int:
    """Return the first full minute after a time, ms."""
    return (time_ms // MINUTE_MS + 1) * MINUTE_MS


def _facts(shopper: Shopper) -> UserFacts:
    session, statements = shopper.session, shopper.statements
    return UserFacts(
        newest_ts=shopper.newest_ts if session or shopper.bought else 0,
        bought=tuple(shopper.bought),
        session=session and (session.first_offset, session.name, session.opened_at, session.length, session.purchased),
        events=tuple((ts, action, item, event_hash(event_id)) for ts, action, item, event_id in session.events)
        if session
        else (),
        consent=statements
        and (
            frozenset(statements.granted),
            frozenset(statements.withdrawn),
            statements.newest_ts,
            statements.newest_withdrawal,
            b"".join(map(event_hash, statements.event_ids)),
            statements.is_session_withheld,
            event_hash(statements.handed_to) if statements.handed_to else b"",
        ),
    )


def event_hash(event_id: str) -> bytes:
    """Return the 8 bytes that a snapshot remembers of an event id: xxh3 of 64 bits, big end first."""
    if event_id.startswith(HASH):
        return bytes.fromhex(event_id.removeprefix(HASH))
    return xxhash.xxh3_64_digest(event_id.encode())
