"""Ledger: the second state of a partition, which changes only once the decisions of a batch are made.

Session state is updated in `Pipeline.begin`, before any score is there. What depends on decisions changes in
`Pipeline.finish`: the records of the batch, with their decisions, pass through the ledger in offset order. Its changes
go into the changelog records of the same batch, before the partition's own record, so a crash at any point counts each
record once. A snapshot without ledger records, such as one of release 0.1.0, means an empty ledger.

The ledger remembers each user's open decisions, and joins the impressions and clicks that name one of them. It is
bounded: at most `MAX_DECISIONS` a user, each with at most `MAX_REACTIONS`, and each only for `CLICK_WINDOW_MS` of event
time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash

from clickscore.schemas.decisions import Ad, Choice, ShownShelf
from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.events import AnyEvent, Click, Impression
from clickscore.schemas.open_decisions import (
    CLICK,
    IMPRESSION,
    ITEM_HASH_BYTES,
    OpenDecision,
    OpenSlot,
    Reaction,
    UserLedger,
    item_hash,
    ledger_key,
    ledger_user,
)
from clickscore.schemas.snapshots import UserState, decode_user, encode
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.timers import TimerWheel

CLICK_WINDOW_MS = 30 * MINUTE_MS
"""Time after a decision within which its impressions and clicks count, ms: the usual gap of sessions."""
MAX_DECISIONS = 32
"""Open decisions of a user, at most: 97 % of sessions have fewer events. The oldest closes early."""
MAX_REACTIONS = 64
"""Impressions and clicks of a decision that are remembered, at most: a page shows some ten items."""
MAX_CLOSURES = 64
"""Largest number of users whose decisions close at a record. An event may move the watermark by hours, and the changes
of a batch travel as a single record batch of limited size."""

AD_SUFFIX = "-ad"
"""Ending of the id of a decision on ads."""


class OpeningDecision(NamedTuple):
    """A decision that was just made."""

    user_id: str
    ts: int
    """Event time of the answered event, ms."""
    variant: str
    """Variant for which the decision counts."""
    shelves: Sequence[ShownShelf]
    """The lists of the page, from top to bottom."""
    ad: Ad | None


class LedgerChange(NamedTuple):
    """A changed record of the ledger; a tombstone where `value` is absent."""

    key: str
    value: bytes | None
    offset: int


class _Touched(NamedTuple):
    """A user's ledger, decoded for the batch, and the offset of the last change."""

    ledger: UserLedger
    offset: int


class Ledger:
    """Open decisions of a partition's users."""

    def __init__(self, source: str, settings: SessionSettings) -> None:
        """Start with an empty ledger.

        Args:
            source: `TOPIC-PARTITION` of the events.
            settings: Allowed lateness.
        """
        self.counts: Counter[str] = Counter()
        """Events that name a decision, since the last flush, by what became of them: `joined`, `unknown` for a decision
        that is not open or does not show the item, `repeated`, `overflow`."""
        self._source = source
        self._partition = int(source.rpartition("-")[2])
        self._lateness_ms = settings.lateness_ms
        self._users: dict[str, bytes] = {}
        self._touched: dict[str, _Touched] = {}
        self._timers = TimerWheel()
        self._close_at: dict[str, int] = {}  # time of each user's present timer; other entries of the wheel are void
        self._erased: set[str] = set()
        self._overlaid: set[str] = set()

    def __len__(self) -> int:
        """Return the number of users with open decisions."""
        return len(self._users)

    def contents(self) -> dict[str, bytes]:
        """Return all records of the ledger by key, as of the last flush."""
        return {ledger_key(user_id): value for user_id, value in self._users.items()}

    def user(self, user_id: str) -> UserLedger:
        """Return what is remembered of a user, for reading."""
        touched = self._touched.get(user_id)
        if touched is not None:
            return touched.ledger
        value = self._users.get(user_id)
        return (decode_user(value).ledger or UserLedger()) if value is not None else UserLedger()

    def advance(self, max_ts: int, offset: int) -> None:
        """Close the decisions whose window the watermark has passed.

        Args:
            max_ts: Largest event time of the partition, ms.
            offset: Source offset of the record that moved it.
        """
        watermark = max_ts - self._lateness_ms
        closures = 0
        while (
            closures < MAX_CLOSURES
            and self._timers.is_due(watermark)
            and (user_id := self._timers.pop(watermark)) is not None
        ):
            close_at = self._close_at.get(user_id)
            if close_at is None or self._timers.is_later(close_at):
                continue  # void: the user has an earlier or a later timer, or none
            del self._close_at[user_id]
            closures += 1
            ledger = self._touch(user_id, offset)
            ledger.decisions = [
                decision for decision in ledger.decisions if self._timers.is_later(decision.ts + CLICK_WINDOW_MS)
            ]
            self._set_timer(user_id, ledger)

    def react(self, event: AnyEvent, offset: int) -> None:
        """Join an event to the open decision that it names, if it does.

        Args:
            event: The event.
            offset: Source offset of the event.
        """
        if event.decision_id is None or not isinstance(event, (Impression, Click)):
            return
        self.counts[self._join(event, event.decision_id, offset)] += 1

    def _join(self, event: Impression | Click, decision_id: str, offset: int) -> str:
        """Join an event to a decision; return what became of it.

        Args:
            event: The event.
            decision_id: Id of the decision or of its ads.
            offset: Source offset of the event.
        """
        match = self._find(event.user_id, decision_id)
        if match is None:
            return "unknown"
        index, decision = match
        if not decision.ts <= event.ts <= decision.ts + CLICK_WINDOW_MS:
            return "unknown"
        line = find_line(decision, event.item_id, event.campaign_id)
        if line is None:
            return "unknown"
        kind = CLICK if isinstance(event, Click) else IMPRESSION
        reaction = Reaction(kind, line, event.ts, xxhash.xxh3_64_digest(event.event_id.encode()), event.item_id)
        if any(earlier.fingerprint == reaction.fingerprint for earlier in decision.reactions):
            return "repeated"
        if len(decision.reactions) >= MAX_REACTIONS:
            return "overflow"
        self._touch(event.user_id, offset).decisions[index].reactions.append(reaction)
        return "joined"

    def _find(self, user_id: str, decision_id: str) -> tuple[int, OpenDecision] | None:
        """Return a user's open decision and its index; None where it is not open.

        Args:
            user_id: The user.
            decision_id: Id of the decision or of its ads.
        """
        source, _, text = decision_id.removesuffix(AD_SUFFIX).rpartition("-")
        if source != self._source or not (text.isascii() and text.isdigit()):
            return None
        offset = int(text)
        for index, decision in enumerate(self.user(user_id).decisions):
            if decision.offset == offset:
                return index, decision
        return None

    def open(self, opening: OpeningDecision, offset: int) -> None:
        """Remember a decision. The user's oldest decision closes early where there are too many.

        Args:
            opening: The decision.
            offset: Source offset of the answered event.
        """
        ledger = self._touch(opening.user_id, offset)
        choices = [choice for shelf in opening.shelves for choice in shelf.items]
        decision = OpenDecision(
            partition=self._partition,
            offset=offset,
            ts=opening.ts,
            variant=opening.variant,
            items=b"".join([item_hash(choice.item_id) for choice in choices]),
            shelves=[(shelf.name, len(shelf.items)) for shelf in opening.shelves],
            slots=list(_open_slots(opening.ad, choices)) if opening.ad is not None else [],
        )
        ledger.decisions.append(decision)
        if len(ledger.decisions) > MAX_DECISIONS:
            del ledger.decisions[0]
        self._set_timer(opening.user_id, ledger)

    def forget(self, user_id: str, offset: int) -> None:
        """Forget a user: one who is erased, or who no longer consents to personalisation.

        Args:
            user_id: The user.
            offset: Source offset of the record behind it.
        """
        if user_id in self._users or user_id in self._touched:
            self._touch(user_id, offset).decisions.clear()
            self._close_at.pop(user_id, None)
            self._erased.add(user_id)

    def _touch(self, user_id: str, offset: int) -> UserLedger:
        """Return a user's ledger for a change by the record at an offset."""
        ledger = self.user(user_id)
        self._touched[user_id] = _Touched(ledger, offset)
        return ledger

    def _set_timer(self, user_id: str, ledger: UserLedger) -> None:
        """Make sure that the user comes out when the first decision closes."""
        if not ledger.decisions:
            return
        time_ms = min([decision.ts for decision in ledger.decisions]) + CLICK_WINDOW_MS
        close_at = self._close_at.get(user_id)
        if close_at is None or time_ms < close_at:
            self._close_at[user_id] = time_ms
            self._timers.add(user_id, time_ms)

    def flush(self, offset: int) -> list[LedgerChange]:
        """End a batch; return the changed records.

        A user with nothing left always leaves a tombstone: a stalled worker may have written a record of another batch.

        Args:
            offset: Source offset of the last record of the batch.
        """
        changes: list[LedgerChange] = []
        for user_id, (ledger, changed_by) in self._touched.items():
            value = encode(UserState(offset=changed_by, ledger=ledger)) if ledger.decisions else None
            if value is not None:
                self._users[user_id] = value
            else:
                self._users.pop(user_id, None)
            changes.append(LedgerChange(ledger_key(user_id), value, changed_by))
        for user_id in sorted(self._overlaid.difference(self._touched)):
            value = self._users.get(user_id)
            written_by = offset if value is None else decode_user(value).offset
            changes.append(LedgerChange(ledger_key(user_id), value, written_by))
        self._touched.clear()
        self._overlaid.clear()
        self.counts.clear()
        if self._erased:
            self._renew_timers()
        return changes

    def _renew_timers(self) -> None:
        """Take forgotten users out of the timers, which would hold their ids until the window ends."""
        self._timers.remove(self._erased)
        for user_id in sorted(self._erased.intersection(self._close_at)):
            self._timers.add(user_id, self._close_at[user_id])
        self._erased.clear()

    def load(self, key: str, value: bytes) -> None:
        """Restore a user from a record of the ledger.

        Args:
            key: Key of the record.
            value: Its value.
        """
        user_id = ledger_user(key)
        self._users[user_id] = value
        self._set_timer(user_id, self.user(user_id))

    def is_overlaid(self, key: str, offset: int, *, is_tombstone: bool) -> bool:
        """Return whether a record of the changelog is older than the ledger here.

        Args:
            key: Key of the record.
            offset: Source offset of the record.
            is_tombstone: Whether the record has no value.
        """
        value = self._users.get(ledger_user(key))
        return not is_tombstone if value is None else offset < decode_user(value).offset

    def rewrite(self, keys: Iterable[str]) -> None:
        """Write these records again with the next flush; a tombstone where nothing is remembered."""
        self._overlaid.update(map(ledger_user, keys))

    @property
    def needs_flush(self) -> bool:
        """Whether records wait to be written again."""
        return bool(self._overlaid)


def find_line(decision: OpenDecision, item_id: str, campaign_id: str | None) -> int | None:
    """Return the line of a page that an event names; None where the page does not show the item.

    Args:
        decision: The decision.
        item_id: Item of the event.
        campaign_id: Campaign of the event; None for an item that is no ad.
    """
    if campaign_id:
        return next((s.line for s in decision.slots if (s.campaign_id, s.item_id) == (campaign_id, item_id)), None)
    hashed = item_hash(item_id)
    position = decision.items.find(hashed)
    while position % ITEM_HASH_BYTES and position >= 0:  # the bytes of two neighbours
        position = decision.items.find(hashed, position + 1)
    if position >= 0:
        return position // ITEM_HASH_BYTES
    return next((slot.line for slot in decision.slots if slot.item_id == item_id), None)


def _open_slots(ad: Ad, choices: Sequence[Choice]) -> Iterator[OpenSlot]:
    """Yield the sold slots of a page. An ad in none of the lists has a line after them.

    Args:
        ad: The decision on ads.
        choices: Items of the lists, from top to bottom.
    """
    lines = {(choice.campaign_id, choice.item_id): line for line, choice in enumerate(choices) if choice.sponsored}
    for index, slot in enumerate(ad.slots):
        line = lines.get((slot.campaign_id, slot.item_id), len(choices) + index)
        yield OpenSlot(line, slot.placement, slot.campaign_id, slot.item_id, slot.bid_per, slot.price)
