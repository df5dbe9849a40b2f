"""State: everything remembered of one partition, bounded, and whole again after a restart.

A user is kept as the bytes that the changelog holds: compact in memory, written once for both, and restored by
reading them back. What a batch touches is decoded once, changed, and encoded once at the batch's end.
"""

import heapq

import msgspec

from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.events import ACTION_OF, Interaction, ItemEvent, Purchase
from clickscore.schemas.sessions import ClosedSession
from clickscore.schemas.snapshots import (
    PARTITION_KEY,
    PartitionSnapshot,
    UserState,
    decode_user,
    encode,
)
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state import sessions
from clickscore.stream.state.timers import TimerWheel

POPULAR = 64
"""Popular items remembered: enough for a recommendation once those out of stock and bought are gone."""

MAX_CLOSURES_PER_EVENT = 64
"""Sessions closed and users forgotten at once, at most: one event that jumps hours ahead must not make a batch's
snapshots larger than a record batch may be."""

MAX_CLOSURES_PER_TICK = 4096
"""The same for a tick, which comes alone."""


class ChangelogRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of `session-snapshots`: a user's or the partition's state, or a tombstone where `value` is none."""

    key: bytes
    value: bytes | None
    offset: int
    """Source offset that the change is of, which a tombstone carries as a header."""


class PartitionState:
    """Users, watermark and popularity of one partition.

    Popularity of an item is the number of remembered events about it in open sessions: a count that follows from the
    users alone, so it survives a restart without a record of its own. The ranking made from it at every refresh does
    not follow from them, so it is part of the partition's snapshot.
    """

    def __init__(self, source: str, settings: SessionSettings) -> None:
        """Begin empty.

        Args:
            source: `TOPIC-PARTITION` of the events.
            settings: Gap, lateness and bounds.
        """
        self.offset = -1
        self.max_ts = -1
        self.popular: list[str] = []
        self.open_sessions = 0
        self.source = source
        self._partition = source.rpartition("-")[2]
        self._settings = settings
        self._users: dict[str, bytes] = {}
        self._touched: dict[str, UserState] = {}
        self._counts: dict[str, int] = {}
        self._sessions_due = TimerWheel()
        self._users_due = TimerWheel()
        self._quiet_until = self.watermark  # nothing closes, is forgotten or ranked before the watermark is there

    def __len__(self) -> int:
        return len(self._users)

    def contents(self) -> dict[bytes, bytes]:
        """Return everything remembered, as `session-snapshots` would hold it: what two equal states have in common."""
        users = {user_id.encode(): snapshot for user_id, snapshot in self._users.items()}
        return users | {PARTITION_KEY: encode(self._snapshot())}

    @property
    def watermark(self) -> int:
        """Event time before which an event is late, ms."""
        return self.max_ts - self._settings.lateness_ms

    def user(self, user_id: str) -> UserState:
        """Return a user's state to read; an empty one where none is remembered."""
        touched = self._touched.get(user_id)
        if touched is not None:
            return touched
        snapshot = self._users.get(user_id)
        return decode_user(snapshot) if snapshot is not None else UserState()

    def advance(self, ts: int, offset: int, max_closures: int = MAX_CLOSURES_PER_EVENT) -> list[ClosedSession]:
        """Move the watermark to an event's time and return the sessions that this closes.

        Sessions close and users are forgotten when the watermark passes full minutes, at most `max_closures` of each a
        call, the longest due first; what is left follows with the next events. Popularity is ranked when it passes
        full periods of refresh. So all of it follows from the log alone, wherever batches begin and end.
        """
        before = self.watermark
        self.max_ts = max(ts, self.max_ts)
        now = self.watermark
        if now < self._quiet_until:
            return []
        closed: list[ClosedSession] = []
        if self._sessions_due.is_due(now):
            closed = self._close_due(now, offset, max_closures)
        if self._users_due.is_due(now):
            self._forget_due(now, offset, max_closures)
        if before // self._settings.popularity_refresh_ms != now // self._settings.popularity_refresh_ms:
            self._rank()
        self._quiet_until = self._next_due(now)
        return closed

    def _next_due(self, now: int) -> int:
        """Return the watermark before which nothing happens: now, where something is left over."""
        if self._sessions_due.is_due(now) or self._users_due.is_due(now):
            return now
        return min(period * (now // period + 1) for period in (MINUTE_MS, self._settings.popularity_refresh_ms))

    def add_event(self, user: UserState, event: Interaction, fingerprint: bytes, offset: int) -> ClosedSession | None:
        """Put an interaction that is not late into its user's session; return the session that this ends, if any."""
        user_id, settings = event.user_id, self._settings
        self._touch(user_id, user, offset)
        closed = None
        if sessions.starts_session(user, event, settings.gap_ms):
            was_open = user.length > 0
            if was_open:
                closed = self._close(user_id, user)
            sessions.open_session(user, event, offset, f"{self._partition}-{offset}")
            self.open_sessions += 1
            if not was_open:  # else the wheel still holds the user, and will find the new session's end
                self._sessions_due.add(user_id, user.last_ts + settings.gap_ms)
        item_id = event.item_id if isinstance(event, ItemEvent) else ""
        sessions.add(user, event, ACTION_OF[type(event)], item_id, fingerprint)
        self._count(item_id)
        if len(user.items) > settings.max_events:
            self._uncount(sessions.drop_oldest(user))
        if isinstance(event, Purchase):
            if not user.bought:
                self._users_due.add(user_id, user.last_ts + settings.user_ttl_ms)
            sessions.remember_purchase(user, item_id, settings.max_bought)
        return closed

    def flush(self, offset: int) -> list[ChangelogRecord]:
        """End a batch: return what it changed, the partition's own record last."""
        self.offset = max(self.offset, offset)
        changes: list[ChangelogRecord] = []
        for user_id, user in self._touched.items():
            if user.length or user.bought:
                value = encode(user)
                self._users[user_id] = value
                changes.append(ChangelogRecord(user_id.encode(), value, user.offset))
            elif self._users.pop(user_id, None) is not None:
                changes.append(ChangelogRecord(user_id.encode(), None, user.offset))
        self._touched.clear()
        changes.append(ChangelogRecord(PARTITION_KEY, encode(self._snapshot()), self.offset))
        return changes

    def _snapshot(self) -> PartitionSnapshot:
        return PartitionSnapshot(offset=self.offset, max_ts=self.max_ts, popular=self.popular)

    def _touch(self, user_id: str, user: UserState, offset: int) -> None:
        """Note that a state is about to be changed by the record at this offset."""
        user.offset = offset
        self._touched[user_id] = user

    def _close(self, user_id: str, user: UserState) -> ClosedSession:
        """End a touched user's open session; its events no longer count for popularity."""
        for item in user.items:
            self._uncount(item)
        self.open_sessions -= 1
        return sessions.close(user, user_id, self.source)

    def close_all(self) -> list[ClosedSession]:
        """End every open session as it stands, in order of user ids: for a log that goes no further."""
        closed: list[ClosedSession] = []
        for user_id in sorted(self._users):
            user = self.user(user_id)
            if user.length:
                self._touch(user_id, user, self.offset)
                closed.append(self._close(user_id, user))
        return closed

    def _close_due(self, now: int, offset: int, max_closures: int) -> list[ClosedSession]:
        closed: list[ClosedSession] = []
        while len(closed) < max_closures and (user_id := self._sessions_due.pop(now)) is not None:
            user = self.user(user_id)
            ends_at = user.last_ts + self._settings.gap_ms
            if user.length and not self._sessions_due.is_later(ends_at):
                self._touch(user_id, user, offset)
                closed.append(self._close(user_id, user))
            elif user.length:
                self._sessions_due.add(user_id, ends_at)
        return closed

    def _forget_due(self, now: int, offset: int, max_closures: int) -> None:
        forgotten = 0
        while forgotten < max_closures and (user_id := self._users_due.pop(now)) is not None:
            user = self.user(user_id)
            forget_at = user.last_ts + self._settings.user_ttl_ms
            if user.length or self._users_due.is_later(forget_at):
                # Whose session is still open is looked at again in a minute.
                self._users_due.add(user_id, max(forget_at, now) if user.length else forget_at)
            else:
                self._touch(user_id, user, offset)
                user.bought = []
                forgotten += 1

    def _rank(self) -> None:
        least = min(heapq.nlargest(POPULAR, self._counts.values()), default=0)  # of few items names need be compared
        best = sorted((-count, item) for item, count in self._counts.items() if count >= least)
        ranked = [item for _, item in best[:POPULAR]]
        # What is no longer seen still beats nothing: it stays behind, as long as there is room.
        seen = set(ranked)
        self.popular = (ranked + [item for item in self.popular if item not in seen])[:POPULAR]

    def _count(self, item_id: str) -> None:
        """Count an event about an item, which joins the popular ones while there is room; a search has no item."""
        if not item_id:
            return
        self._counts[item_id] = self._counts.get(item_id, 0) + 1
        if len(self.popular) < POPULAR and item_id not in self.popular:
            self.popular = [*self.popular, item_id]

    def _uncount(self, item_id: str) -> None:
        """Take back one event about an item; none for the empty id."""
        if not item_id:
            return
        left = self._counts.get(item_id, 0) - 1
        if left > 0:
            self._counts[item_id] = left
        else:
            self._counts.pop(item_id, None)

    def load_user(self, user_id: str, snapshot: bytes) -> None:
        """Take a user's restored snapshot."""
        user = decode_user(snapshot)
        self._users[user_id] = snapshot
        if user.length:
            self.open_sessions += 1
            self._sessions_due.add(user_id, user.last_ts + self._settings.gap_ms)
            for item in user.items:
                if item:
                    self._counts[item] = self._counts.get(item, 0) + 1
        if user.bought:
            self._users_due.add(user_id, user.last_ts + self._settings.user_ttl_ms)
