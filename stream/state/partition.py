"""Partition state: users, watermark and popularity of a partition, updated event by event."""

from collections.abc import Collection, Iterable
from functools import partial

import msgspec

from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.events import (
    ACTION_OF,
    Consent,
    Epoch,
    Erase,
    Identify,
    Impression,
    Interaction,
    ItemEvent,
    Purchase,
)
from clickscore.schemas.handover import HandedSession, Handover
from clickscore.schemas.open_decisions import LEDGER_PREFIX
from clickscore.schemas.purposes import ADS, PERSONALISATION, TRAINING
from clickscore.schemas.sessions import ClosedSession
from clickscore.schemas.snapshots import (
    PARTITION_KEY,
    AdState,
    ConsentState,
    PartitionSnapshot,
    UserState,
    decode_user,
    encode,
)
from clickscore.stream.budgets.partition_budgets import BUDGET_PREFIX, PartitionBudgets
from clickscore.stream.reference.epoch_schedule import NEVER_MS
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state import ad_counts, clients, consent, identity, seen_counts, sessions
from clickscore.stream.state.baskets import Baskets
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.expiry import ExpiryTimers
from clickscore.stream.state.handover_guard import HandoverGuard, user_hash
from clickscore.stream.state.ledger import Ledger
from clickscore.stream.state.popularity import Popularity
from clickscore.stream.state.timers import TimerWheel
from clickscore.stream.state.user_table import UserTable, is_remembered

MAX_CLOSURES_PER_EVENT = 64
"""Largest number of sessions closed, and of users forgotten, by an event. The snapshots of a batch travel as a single
record batch of limited size, and an event may move the watermark by hours."""

MAX_CLOSURES_PER_TICK = 4096
"""The same limit for a tick; larger, because a tick is alone in a batch."""


class PartitionState:
    """Users, watermark and popularity of a partition."""

    def __init__(self, source: str, settings: SessionSettings) -> None:
        """Start with an empty state.

        Args:
            source: `TOPIC-PARTITION` of the events.
            settings: Gap, lateness and bounds.
        """
        self.offset = -1
        """Source offset of the last record of the last batch; -1 before the first batch."""
        self.max_ts = -1
        """Largest event time of the partition, ms."""
        self.topic_id = ""
        """Kafka's id of the topic of events; empty where the id is unknown."""
        self.epoch: Epoch | None = None
        """Epoch in effect; absent before the first epoch."""
        self.next_epoch_ts = NEVER_MS
        """Event time at which the next scheduled epoch begins, ms; only in a replay of files."""
        self.appended_at = -1
        """Kafka's timestamp of the record at `offset`, ms; negative where unknown."""
        self.open_sessions = 0
        self.partition = int(source.rpartition("-")[2])
        """Number of the partition."""
        self.source = source
        self._topic, _, self._partition = source.rpartition("-")
        self.budgets = PartitionBudgets(self.partition)
        """Budgets of campaigns, changed together with the ledger."""
        self.ledger = Ledger(source, settings, self.budgets)
        """Open decisions, changed once the decisions of a batch are made."""
        self._settings = settings
        self._users = UserTable()
        self.user = self._users.find
        """Returns the state of a user for reading; an empty state where the user is unknown."""
        self._popularity = Popularity(counts_machines=settings.machines == "counted")
        self._baskets = Baskets()  # counted when read for the first time
        self._session_timers = TimerWheel()
        # No bound methods: without a cycle of references, the state of a dropped partition is freed at once.
        self._history_timers = ExpiryTimers(partial(_history_ends_at, settings))
        self._consent_timers = ExpiryTimers(partial(_consent_ends_at, settings))
        self._ad_timers = ExpiryTimers(_ads_end_at)
        self._erased: set[str] = set()  # users erased by this batch
        self.handovers = HandoverGuard()
        """Applied hand-overs, and the newest erasures."""
        self._default_withheld = consent.default_bits(settings)
        self._idle_until = self.watermark  # no session closes and no ranking is made before this watermark

    def __len__(self) -> int:
        return len(self._users)

    def contents(self) -> dict[bytes, bytes]:
        """Return all records of the state by key, as in `session-snapshots`. Equal records mean equal states."""
        parts = (self._users.contents(), self.ledger.contents(), self.budgets.contents())
        records = {key.encode(): value for part in parts for key, value in part.items()}
        return records | {PARTITION_KEY: encode(self._snapshot())}

    @property
    def watermark(self) -> int:
        """Watermark: the largest event time less the allowed lateness, ms. Events before the watermark are late."""
        return self.max_ts - self._settings.lateness_ms

    @property
    def popular(self) -> list[str]:
        """Items by popularity, best first, as of the last refresh."""
        return self._popularity.ranking

    def companions(self, items: Collection[str], limit: int) -> list[str]:
        """Return the items that users bought together with some items, best first.

        Args:
            items: The items; they are not among the result.
            limit: Largest number of companions.
        """
        for user_id in self._users.take_changed():
            user = self.user(user_id)
            self._baskets.update(user_id, user.bought if self._popularity.counts(user) else [])
        return self._baskets.companions(items, limit)

    def withheld(self, user: UserState) -> int:
        """Return the bits of the purposes without the user's consent."""
        return consent.withheld_bits(user.consent, self._default_withheld)

    def advance(self, ts: int, offset: int, max_closures: int = MAX_CLOSURES_PER_EVENT) -> list[ClosedSession]:
        """Move the watermark to an event's time, and return the sessions closed by this move.

        Sessions close and users are forgotten when the watermark passes a full minute. Popularity is ranked when the
        watermark passes a full refresh period. All of this follows from the log alone, not from the limits of batches.

        Args:
            ts: Event time, ms.
            offset: Source offset of the event.
            max_closures: Largest number of sessions to close, and of users to forget; the longest due come first, and
                the rest follows with the next events.
        """
        previous = self.watermark
        self.max_ts = max(ts, self.max_ts)
        now = self.watermark
        if now < self._idle_until:
            return []
        closed: list[ClosedSession] = []
        if self._session_timers.is_due(now):
            closed = self._close_due(now, offset, max_closures)
        self._forget_history(now, offset, max_closures)
        self._expire_consent(now, offset, max_closures)
        self._forget_ads(now, offset, max_closures)
        self.handovers.forget(now)
        if previous // self._settings.popularity_refresh_ms != now // self._settings.popularity_refresh_ms:
            self._popularity.refresh()
        self._idle_until = self._next_due(now)
        return closed

    def _next_due(self, now: int) -> int:
        """Return the next watermark with anything to do: now, where due work remains."""
        if any(timers.is_due(now) for timers in self._timers):
            return now
        return min(period * (now // period + 1) for period in (MINUTE_MS, self._settings.popularity_refresh_ms))

    @property
    def _timers(self) -> tuple[TimerWheel | ExpiryTimers, ...]:
        return self._session_timers, self._history_timers, self._consent_timers, self._ad_timers

    def count_ad(self, user: UserState, event: Impression, offset: int) -> UserState:
        """Count an ad impression for the caps of its campaign, unless it is a repeat or of an earlier day.

        Args:
            user: State of the event's user, as `user` returns it.
            event: The impression; must not be late.
            offset: Source offset of the event.

        Returns:
            The state of the user.
        """
        if not event.campaign_id:
            return user
        if not is_remembered(user):
            user = UserState()  # one that was forgotten in this batch still has the times of its last session
        ads = ad_counts.add_impression(user.ads, event.campaign_id, event.event_id, event.ts, user.opened_by)
        if ads is not None:
            self._users.touch(event.user_id, user, offset)
            self._set_ads(event.user_id, user, ads)
        return user

    def count_seen(self, user: UserState, event: Impression, offset: int) -> None:
        """Count an impression of an item in the open session, unless the setting `max_seen` is 0.

        Args:
            user: State of the event's user, as `user` returns it.
            event: The impression; must not be late.
            offset: Source offset of the event.
        """
        max_seen = self._settings.max_seen
        if not (max_seen and user.length):
            return
        seen = seen_counts.add_impression(user.seen or b"", event.item_id, event.event_id, max_seen)
        if seen is not None:
            self._users.touch(event.user_id, user, offset)
            user.seen = seen

    def _set_ads(self, user_id: str, user: UserState, ads: AdState) -> None:
        """Replace the ad counts of a touched user, and make sure that they are forgotten after their day."""
        had_timer = user.ads is not None
        user.ads = ads
        if not had_timer:
            self._ad_timers.add(user_id, user)

    def add_event(self, user: UserState, event: Interaction, fingerprint: bytes, offset: int) -> ClosedSession | None:
        """Add an interaction to the user's session; return the earlier session if the interaction closes one.

        Args:
            user: State of the event's user, as `user` returns it.
            event: The interaction; must not be late.
            fingerprint: Fingerprint of the event id, to deduplicate later repeats.
            offset: Source offset of the event.
        """
        user_id, settings = event.user_id, self._settings
        self._users.touch(user_id, user, offset)
        closed = None
        if sessions.starts_session(user, event, settings.gap_ms):
            was_open = user.length > 0
            if was_open:
                closed = self._close(user_id, user)
            sessions.open_session(user, event, offset, f"{self._partition}-{offset}")
            self.open_sessions += 1
            if not was_open:  # else the timer of the earlier session is still set, and is moved when it comes due
                self._session_timers.add(user_id, user.last_ts + settings.gap_ms)
        item_id, counted = _item(event), self._popularity.counted_items(user)
        sessions.add_event(user, event, ACTION_OF[type(event)], item_id, fingerprint)
        if user.seen and item_id:
            user.seen = seen_counts.forget_item(user.seen, item_id)
        if len(user.items) > settings.max_events:
            sessions.drop_oldest(user)
        self._popularity.recount(counted, user)
        if not user.client and user.length >= clients.MIN_EVENTS and user.length % clients.JUDGED_EVERY == 0:
            self.set_client(user_id, user, clients.behaviour_code(user), offset)
        if isinstance(event, Purchase):
            had_timer = bool(user.bought) or clients.is_machine(user)
            sessions.remember_purchase(user, item_id, event.ts // DAY_MS, settings.max_bought)
            if not had_timer:
                self._history_timers.add(user_id, user)
        return closed

    def set_client(self, user_id: str, user: UserState, code: int, offset: int) -> None:
        """Note the class of a user; the events of a machine's open session no longer count for popularity.

        Args:
            user_id: The user.
            user: State of the user, as `user` returns it.
            code: Class of the user: index into `schemas.clients.CLIENTS`; 0 changes nothing.
            offset: Source offset of the event that shows the class.
        """
        if not code or code == user.client:
            return
        counted, had_timer = self._popularity.counted_items(user), bool(user.bought) or clients.is_machine(user)
        user.client = code
        if not had_timer:
            self._history_timers.add(user_id, user)
        self._users.touch(user_id, user, offset)
        self._popularity.recount(counted, user)
        if not self._popularity.counts(user):
            self._popularity.drop_uncounted(user.items)

    def only_event(self, event: Interaction | Impression, offset: int) -> UserState:
        """Return the state of a user with an event as the whole history; nothing is kept.

        Args:
            event: The event; an impression is no action of the user, so the session stays empty.
            offset: Source offset of the event.
        """
        user = UserState()
        if not isinstance(event, Impression):
            sessions.open_session(user, event, offset, f"{self._partition}-{offset}")
            sessions.add_event(user, event, ACTION_OF[type(event)], _item(event), b"")
            if isinstance(event, Purchase):
                sessions.remember_purchase(user, event.item_id, event.ts // DAY_MS, self._settings.max_bought)
        return user

    def apply_consent(self, event: Consent, fingerprint: bytes, offset: int) -> ClosedSession | None:
        """Apply what a user says about consent; return the session to publish, if the statement closes a session.

        Args:
            event: The statement; must not be a repeat.
            fingerprint: Fingerprint of the event id, to deduplicate later repeats.
            offset: Source offset of the event.
        """
        user = self.user(event.user_id)
        if not is_remembered(user):
            user = UserState()  # one that was forgotten in this batch still has the times of its last session
        former = self.withheld(user)
        self._users.touch(event.user_id, user, offset)
        self._idle_until = self.watermark  # the statement may be too old already
        statements = self._consent(event.user_id, user, event.ts)
        consent.apply_statement(statements, event, fingerprint)
        withheld = self.withheld(user)
        if user.length and former & ~withheld & TRAINING:
            statements.session_withheld = True
        if withheld & ADS:
            user.ads = None
        return self.drop_history(event.user_id, user, offset) if withheld & PERSONALISATION else None

    def drop_history(self, user_id: str, user: UserState, offset: int) -> ClosedSession | None:
        """Forget session, bought items and shown ads of a user; return the session to publish, if any.

        Args:
            user_id: The user.
            user: State of the user, as `user` returns it.
            offset: Source offset of the record behind the change.
        """
        if not (user.length or user.bought or user.client or user.ads):
            return None
        self._users.touch(user_id, user, offset)
        closed = self._close(user_id, user) if user.length else None
        sessions.forget_purchases(user)
        user.opened_at, user.last_ts, user.client, user.ads = 0, 0, 0, None
        return closed

    def erase(self, event: Erase, offset: int) -> None:
        """Forget a user: the session is not published, and its events no longer count for popularity.

        Args:
            event: The event.
            offset: Source offset of the event.
        """
        user_id = event.user_id
        user = self.user(user_id)
        if user.length:
            self._uncount(user_id, user)
            self._popularity.drop_uncounted(user.items)
        self._users.touch(user_id, UserState(), offset)
        self._erased.add(user_id)
        self.handovers.erase(event)
        self.handovers.forget(self.watermark)

    def identify(self, event: Identify, offset: int) -> tuple[Handover | None, ClosedSession | None]:
        """Take what an anonymous id did out of the state, to hand it over to the user.

        What was said about consent stays, and the class of a machine: both hold for later events of the anonymous id.

        Args:
            event: The event.
            offset: Source offset of the event.

        Returns:
            What to hand over, if anything, and the session to publish, if history without consent was found.
        """
        user = self.user(event.user_id)
        withheld = self.withheld(user)
        closed = self.drop_history(event.user_id, user, offset) if withheld & PERSONALISATION else None
        hashed = user_hash(event.identified_as)
        handover = identity.make_handover(
            user, event, hashed, partition=self.partition, offset=offset, withheld=withheld
        )
        if handover is None:
            return None, closed
        self._users.touch(event.user_id, user, offset)
        if user.length:
            self._uncount(event.user_id, user)
            sessions.clear(user)
        sessions.forget_purchases(user)
        user.ads = None
        if not clients.is_machine(user):
            user.opened_at = user.last_ts = user.client = 0
        if user.consent is not None:
            user.consent.session_withheld, user.consent.handed_to = False, hashed
        return handover, closed

    def receive(self, handover: Handover, offset: int) -> tuple[list[ClosedSession], str | None]:
        """Merge what an anonymous id did into the state of the user.

        Args:
            handover: The hand-over; must not be a repeat.
            offset: Source offset of the hand-over.

        Returns:
            The sessions to publish, and the id of the open session with the events of the anonymous id, if any.
        """
        self.handovers.apply(handover)
        if self.handovers.is_erased(handover):
            return [], None
        user_id, user = handover.user_id, self.user(handover.user_id)
        if not is_remembered(user):
            user = UserState()  # one that was forgotten in this batch still has the times of its last session
        self._users.touch(user_id, user, offset)
        self._idle_until = self.watermark  # a timer that is set here may be due
        handed_private = "training" in handover.withheld
        own_private = bool(user.length and self.withheld(user) & TRAINING)
        if handover.consent is not None:
            identity.merge_consent(self._consent(user_id, user, handover.consent.said_at), handover.consent)
        withheld = self.withheld(user)
        if withheld & PERSONALISATION:
            closed = self.drop_history(user_id, user, offset)
            return [closed] if closed else [], None
        is_private = bool(withheld & TRAINING)
        if own_private and not is_private:
            self._consent(user_id, user, 0).session_withheld = True
        closed_sessions, session_id = self._receive_history(
            handover, user, offset, may_publish=not (handed_private or is_private)
        )
        if session_id is not None and handed_private and not is_private:
            self._consent(user_id, user, 0).session_withheld = True
        return closed_sessions, session_id

    def _consent(self, user_id: str, user: UserState, said_at: int) -> ConsentState:
        """Return what a user said about consent; nothing so far becomes an empty statement.

        Args:
            user_id: The user.
            user: State of the user.
            said_at: Time of the statement, ms, after which it holds for `consent_ttl_ms`.
        """
        if user.consent is None:
            user.consent = ConsentState(said_at=said_at)
            self._consent_timers.add(user_id, user)
        return user.consent

    def _receive_history(
        self, handover: Handover, user: UserState, offset: int, *, may_publish: bool
    ) -> tuple[list[ClosedSession], str | None]:
        """Add the session, the bought items and the class of an anonymous id to a user's.

        Args:
            handover: The hand-over.
            user: State of the user.
            offset: Source offset of the hand-over.
            may_publish: Whether a session of the anonymous id that is over may be published.

        Returns:
            The sessions to publish, and the id of the open session with the events of the anonymous id, if any.
        """
        user_id, settings, session = handover.user_id, self._settings, handover.session
        had_timer = bool(user.bought) or clients.is_machine(user)
        closed: list[ClosedSession] = []
        identity.merge_bought(user, handover, settings.max_bought)
        if session is not None and user.length and session.opened_at - user.last_ts > settings.gap_ms:
            own = self._close(user_id, user)
            closed += [own] if own else []
        counted = self._popularity.counted_items(user)
        is_over = session is None or self._is_over(user, session)
        if not is_over or handover.client >= FIRST_MACHINE:  # a shopper's class is declared for a session
            user.client = identity.merge_client(user.client, handover.client)
        if session is not None and is_over:
            if may_publish and self._popularity.counts(user):
                closed.append(identity.closed_session(handover, session, self._topic))
        elif session is not None:
            self._receive_session(user_id, user, session, offset)
        self._popularity.recount(counted, user)
        if not self._popularity.counts(user):
            self._popularity.drop_uncounted(user.items)
        self._receive_ads(handover, user, takes_session=not is_over)
        if not user.length:
            user.last_ts = max(user.last_ts, handover.last_ts)
        if not had_timer:
            self._history_timers.add(user_id, user)
        return closed, None if is_over else f"{self.source}-{user.opened_by}"

    def _receive_session(self, user_id: str, user: UserState, session: HandedSession, offset: int) -> None:
        """Add a handed-over session to the open session of a user, or make it the open session.

        Args:
            user_id: The user.
            user: State of the user.
            session: The handed-over session; must not be over.
            offset: Source offset of the hand-over.
        """
        settings = self._settings
        if user.length:
            identity.merge_session(user, session, settings.max_events)
        else:
            identity.adopt_session(user, session, offset, settings.max_events)
            self.open_sessions += 1
            self._session_timers.add(user_id, user.last_ts + settings.gap_ms)
        if session.seen is not msgspec.UNSET:
            user.seen = seen_counts.merge_counts(user.seen, session.seen, settings.max_seen)

    def _receive_ads(self, handover: Handover, user: UserState, *, takes_session: bool) -> None:
        """Add the ads shown to an anonymous id to a user's, unless the user has not consented to ads.

        Args:
            handover: The hand-over.
            user: State of the user, after the sessions are merged.
            takes_session: Whether the open session has the events of the anonymous id.
        """
        if handover.ads is not None and not self.withheld(user) & ADS:
            ads = ad_counts.merge(user.ads, handover.ads, user.opened_by, takes_session=takes_session)
            self._set_ads(handover.user_id, user, ads)

    def _is_over(self, user: UserState, session: HandedSession) -> bool:
        """Return whether a handed-over session has ended: the user's own is newer by more than the gap, or time passed.

        Args:
            user: State of the user.
            session: The handed-over session.
        """
        if user.length:
            return user.opened_at - session.last_ts > self._settings.gap_ms
        return MINUTE_MS * ((session.last_ts + self._settings.gap_ms) // MINUTE_MS + 1) <= self.watermark

    def flush(self, offset: int) -> list[ChangelogRecord]:
        """End a batch at a source offset; return the batch's changelog records, the partition's own record last."""
        self.offset = max(self.offset, offset)
        changes = self._users.flush(self.offset)
        self._renew_timers()
        changes.append(self.partition_record())
        return changes

    def flush_ledger(self, offset: int) -> list[ChangelogRecord]:
        """End a batch of the ledger at a source offset; return its changelog records."""
        changes = [*self.ledger.flush(offset), *self.budgets.flush(offset)]
        return [ChangelogRecord(change.key.encode(), change.value, change.offset) for change in changes]

    def is_overlaid(self, key: str, offset: int, *, is_tombstone: bool) -> bool:
        """Return whether a record of the changelog is older than what is remembered under its key here.

        Args:
            key: Key of the record.
            offset: Source offset of the record.
            is_tombstone: Whether the record has no value.
        """
        if key.startswith(BUDGET_PREFIX):
            return self.budgets.is_overlaid(key, offset, is_tombstone=is_tombstone)
        if key.startswith(LEDGER_PREFIX):
            return self.ledger.is_overlaid(key, offset, is_tombstone=is_tombstone)
        return self._users.is_overlaid(key, offset, is_tombstone=is_tombstone)

    def rewrite(self, keys: Iterable[str]) -> None:
        """Write what is remembered under these keys again with the next flush; a tombstone where there is nothing."""
        keys = set(keys)
        ledger_keys = {key for key in keys if key.startswith(LEDGER_PREFIX)}
        budget_keys = {key for key in ledger_keys if key.startswith(BUDGET_PREFIX)}
        self._users.rewrite(keys - ledger_keys)
        self.ledger.rewrite(ledger_keys - budget_keys)
        self.budgets.rewrite(budget_keys)

    @property
    def needs_flush(self) -> bool:
        """Whether records wait to be written again."""
        return self._users.needs_flush or self.ledger.needs_flush or self.budgets.needs_flush

    def _snapshot(self) -> PartitionSnapshot:
        return PartitionSnapshot(
            offset=self.offset,
            max_ts=self.max_ts,
            popular=self.popular,
            topic_id=self.topic_id,
            epoch=self.epoch,
            appended_at=self.appended_at,
            handed=self.handovers.applied,
            erasures=self.handovers.erasures,
        )

    def partition_record(self) -> ChangelogRecord:
        """Return the partition's own record of the changelog, as of the end of the last batch."""
        return ChangelogRecord(PARTITION_KEY, encode(self._snapshot()), self.offset)

    def _uncount(self, user_id: str, user: UserState) -> None:
        """Take the open session of a user out of the counts, before the session ends."""
        for item in self._popularity.counted_items(user):
            self._popularity.remove(item)
        self.open_sessions -= 1
        for timers in (self._history_timers, self._consent_timers, self._ad_timers):
            timers.end_session(user_id, user)
        self._idle_until = self.watermark  # a timer that was set again may be due

    def _close(self, user_id: str, user: UserState) -> ClosedSession | None:
        """Close the open session of a touched user; the events no longer count for popularity.

        Returns:
            The session; None for a bot or an agent, and where the user has not consented to training during the session
            and at its end.
        """
        self._uncount(user_id, user)
        closed = sessions.close(user, user_id, self.source)
        is_withheld = bool(self.withheld(user) & TRAINING) or not self._popularity.counts(user)
        if not clients.is_machine(user):
            user.client = 0  # declared for this session
        if user.consent is not None:
            is_withheld = is_withheld or user.consent.session_withheld
            user.consent.session_withheld = False
        return None if is_withheld else closed

    def close_all(self) -> list[ClosedSession]:
        """Close every open session, in order of user ids: for the end of a finished log."""
        closed: list[ClosedSession] = []
        for user_id in self._users:
            user = self.user(user_id)
            if user.length:
                self._users.touch(user_id, user, self.offset)
                session = self._close(user_id, user)
                closed += [session] if session else []
        return closed

    def _close_due(self, now: int, offset: int, max_closures: int) -> list[ClosedSession]:
        closed: list[ClosedSession] = []
        closures = 0
        while closures < max_closures and (user_id := self._session_timers.pop(now)) is not None:
            user = self.user(user_id)
            closes_at = user.last_ts + self._settings.gap_ms
            if user.length and not self._session_timers.is_later(closes_at):
                self._users.touch(user_id, user, offset)
                session = self._close(user_id, user)
                closed += [session] if session else []
                closures += 1
            elif user.length:
                self._session_timers.add(user_id, closes_at)
        return closed

    def _forget_history(self, now: int, offset: int, max_users: int) -> None:
        """Forget what users without an event for a long time have bought, and which machines they are."""
        for user_id, user in self._history_timers.pop_ended(now, max_users, self.user):
            self._users.touch(user_id, user, offset)
            sessions.forget_purchases(user)
            user.client = 0

    def _expire_consent(self, now: int, offset: int, max_users: int) -> None:
        """Forget what users said about consent too long ago; the default holds again."""
        for user_id, user in self._consent_timers.pop_ended(now, max_users, self.user):
            self._users.touch(user_id, user, offset)
            user.consent = None
            if self.withheld(user) & PERSONALISATION:
                sessions.forget_purchases(user)
                user.client = 0
            if self.withheld(user) & (ADS | PERSONALISATION):
                user.ads = None

    def _forget_ads(self, now: int, offset: int, max_users: int) -> None:
        """Forget the ads of days that are over, for users without an open session."""
        for user_id, user in self._ad_timers.pop_ended(now, max_users, self.user):
            self._users.touch(user_id, user, offset)
            user.ads = None

    def _renew_timers(self) -> None:
        """Take erased users out of the timers, and set the timers of those who came back within the batch.

        A timer has no effect on decisions once its user is gone, but it holds the user's id for as long as a month.
        """
        if not self._erased:
            return
        for timers in self._timers:
            timers.remove(self._erased)
        for user_id in sorted(self._erased):
            self._set_timers(user_id, self.user(user_id))
        self._erased.clear()

    def _set_timers(self, user_id: str, user: UserState) -> None:
        if user.length:
            self._session_timers.add(user_id, user.last_ts + self._settings.gap_ms)
        for timers in (self._history_timers, self._consent_timers, self._ad_timers):
            timers.add(user_id, user)

    def load_partition(self, snapshot: PartitionSnapshot) -> None:
        """Restore offset, watermark, popularity ranking and epoch from the partition's own snapshot."""
        self.offset, self.max_ts = snapshot.offset, snapshot.max_ts
        self._popularity.ranking = snapshot.popular
        self.topic_id = snapshot.topic_id
        self.epoch = snapshot.epoch
        self.appended_at = snapshot.appended_at
        self.handovers = HandoverGuard(snapshot.handed, snapshot.erasures)

    def load(self, key: str, snapshot: bytes) -> None:
        """Restore what is remembered under a key: a user, what the ledger knows of one, or a budget.

        Release 0.1.0 took user ids with any first character: such a record has no ledger.
        """
        if key.startswith(LEDGER_PREFIX) and decode_user(snapshot).ledger is None:
            self.load_user(key, snapshot)
        elif key.startswith(BUDGET_PREFIX):
            self.budgets.load(key, snapshot)
        elif key.startswith(LEDGER_PREFIX):
            self.ledger.load(key, snapshot)
        else:
            self.load_user(key, snapshot)

    def load_user(self, user_id: str, snapshot: bytes) -> None:
        """Restore a user from the user's snapshot."""
        user = self._users.load(user_id, snapshot)
        if user.length:
            self.open_sessions += 1
            self._popularity.load_counts(self._popularity.counted_items(user))
        self._set_timers(user_id, user)


def _history_ends_at(settings: SessionSettings, user: UserState) -> int | None:
    """Return when the bought items and the machine class of a user are forgotten, ms; None without them."""
    return user.last_ts + settings.user_ttl_ms if user.bought or clients.is_machine(user) else None


def _consent_ends_at(settings: SessionSettings, user: UserState) -> int | None:
    """Return when the statements of a user on consent are forgotten, ms; None without them."""
    return None if user.consent is None else user.consent.said_at + settings.consent_ttl_ms


def _ads_end_at(user: UserState) -> int | None:
    """Return when the counts of a user's ads are forgotten, ms; None without them."""
    return None if user.ads is None else ad_counts.ends_at(user.ads)


def _item(event: Interaction) -> str:
    """Return the item of an interaction; empty for a search."""
    return event.item_id if isinstance(event, ItemEvent) else ""
