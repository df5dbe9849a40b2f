"""Ledger: the second state of a partition, which changes only once the decisions of a batch are made.

Session state is updated in `Pipeline.begin`, before any score is there. What depends on decisions changes in
`Pipeline.finish`: the records of the batch, with their decisions, pass through the ledger in offset order. Its changes
go into the changelog records of the same batch, before the partition's own record, so a crash at any point counts each
record once. A snapshot without ledger records, such as one of release 0.1.0, means an empty ledger.

The ledger remembers each user's open decisions, and joins the events that name an open decision or buy an item of one.
After each change it bills the sold slots (`state.charges`), and writes a charge for each difference. When the click
window of a decision closes, it writes the outcome of the decision, and later a correction where anything has changed.
It is bounded: at most `MAX_DECISIONS` and `MAX_ORDERS` a user, each decision with at most `MAX_REACTIONS`, and only for
the windows of event time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import msgspec
import xxhash

from clickscore.schemas.decisions import Ad, Choice, ShownShelf
from clickscore.schemas.events import AnyEvent, Cart, Click, Impression, ItemEvent, Purchase
from clickscore.schemas.leases import MONEY_DECIMALS
from clickscore.schemas.open_decisions import (
    CART,
    CLICK,
    IMPRESSION,
    ITEM_HASH_BYTES,
    MAX_DECISIONS,
    MAX_ORDERS,
    MAX_REACTIONS,
    PURCHASE,
    PURCHASE_WINDOW_MS,
    DecisionHead,
    OpenDecision,
    OpenSlot,
    OrderLine,
    Reaction,
    StoredLedger,
    UserLedger,
    item_hash,
    ledger_key,
    ledger_user,
    stored_decision,
)
from clickscore.schemas.outcomes import AdCharge, DecisionOutcome, LineOutcome, encode_outcome
from clickscore.schemas.purposes import ADS, purposes_of_bits
from clickscore.schemas.snapshots import (
    LedgerRecord,
    UserState,
    changed_by,
    decode_ledger_record,
    decode_user,
    encode,
    is_outdated,
)
from clickscore.stream.budgets.partition_budgets import PartitionBudgets
from clickscore.stream.reference.epoch_schedule import NEVER_MS
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.attribution import attribute_orders, find_line, judge_clicks
from clickscore.stream.state.charges import Charges
from clickscore.stream.state.outcome_lines import make_lines, placement_of
from clickscore.stream.state.quiet_decisions import split_quiet
from clickscore.stream.state.remembered_decisions import (
    CLICK_WINDOW_MS,
    find_decision,
    forgotten_at,
    id_of,
    next_closing,
    remove_decisions,
)
from clickscore.stream.state.timers import TimerWheel

MAX_CLOSURES = 64
"""Largest number of users whose decisions close at a record. An event may move the watermark by hours, and the changes
of a batch travel as a single record batch of limited size."""

_KINDS: dict[type, int] = {Impression: IMPRESSION, Click: CLICK, Cart: CART, Purchase: PURCHASE}
KIND_NAMES = ("impression", "click", "cart", "purchase")
"""Name of each kind of reaction, by code."""
_NO_ITEM = bytes(ITEM_HASH_BYTES)
"""Stands for an item of a page with which no event may be joined."""
_item_of = attrgetter("item_id")
_NO_LINES_DIGEST = xxhash.xxh3_64_digest(encode_outcome(()))
"""`OpenDecision.digest` of an outcome without lines, as most are."""


class OpeningDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision that was just made."""

    user_id: str
    ts: int
    """Event time of the answered event, ms."""
    variant: str
    """Variant for which the decision counts."""
    shelves: Sequence[ShownShelf]
    """The lists of the page, from top to bottom."""
    ad: Ad | None
    withheld: int = 0
    """Bits of the purposes without the user's consent."""


class LedgerChange(NamedTuple):
    """A changed record of the ledger; a tombstone where `value` is absent."""

    key: str
    value: bytes | None
    offset: int


class LedgerResults(NamedTuple):
    """Results of the records that passed through a ledger."""

    feedback: Counter[str]
    """Events that name a decision by what became of them: `joined`, `repeated`, `unknown` for a decision that is not
    open or does not show the item, `overflow` where too many are remembered."""
    reactions: Counter[tuple[str, str, str]]
    """Joined events by kind, variant and placement; orders where they were attributed first."""
    revenue: dict[tuple[str, str], float]
    """Revenue by variant and placement; orders where they were attributed first."""
    outcomes: list[DecisionOutcome]
    charges: list[AdCharge]


def _no_results() -> LedgerResults:
    return LedgerResults(Counter(), Counter(), {}, [], [])


class Ledger:
    """Open decisions of a partition's users."""

    def __init__(
        self,
        source: str,
        settings: SessionSettings,
        budgets: PartitionBudgets,
    ) -> None:
        """Start with an empty ledger.

        Args:
            source: `TOPIC-PARTITION` of the events.
            settings: Allowed lateness.
            budgets: Budgets of the partition, which pay charges and learn how often ads are clicked.
        """
        self._topic, _, partition = source.rpartition("-")
        self._charges = Charges(self._topic, budgets)
        self._partition = int(partition)
        self._lateness_ms = settings.lateness_ms
        self.due_at = NEVER_MS
        """Largest event time of the partition before which `advance` has nothing to do, ms."""
        self._users: dict[str, bytes] = {}
        self._touched: dict[str, UserState] = {}  # decoded for the batch
        self._opened: dict[str, LedgerRecord] = {}  # users to whom the batch has only added decisions so far
        self._timers = TimerWheel()
        self._close_at: dict[str, int] = {}  # time of each user's present timer; other entries of the wheel are void
        self._erased: set[str] = set()
        self._overlaid: set[str] = set()
        self._results = _no_results()

    def __len__(self) -> int:
        """Return the number of users with open decisions."""
        return len(self._users)

    def contents(self) -> dict[str, bytes]:
        """Return all records of the ledger by key, as of the last flush."""
        return {ledger_key(user_id): value for user_id, value in self._users.items()}

    def user(self, user_id: str) -> UserLedger:
        """Return what is remembered of a user, for reading."""
        return self._record(user_id).ledger or UserLedger()

    def _record(self, user_id: str) -> UserState:
        """Return the record of a user, decoded; an empty one where nothing is remembered."""
        opened = self._opened.pop(user_id, None)
        if opened is not None:
            self._touched[user_id] = decode_user(encode(opened))
        record = self._touched.get(user_id)
        if record is None:
            value = self._users.get(user_id)
            record = UserState() if value is None else decode_user(value)
        return record

    def _is_known(self, user_id: str) -> bool:
        """Return whether anything is remembered of a user."""
        return user_id in self._users or user_id in self._touched or user_id in self._opened

    def add_charges(self, charges: Iterable[AdCharge], offset: int) -> None:
        """Add charges of earlier events that a new lease can pay to the results.

        Args:
            charges: The charges.
            offset: Source offset of the lease.
        """
        for charge in charges:
            self._results.charges.append(charge)
            user_id = self._charges.find_debtor(charge.decision_id)
            index = None if user_id is None else self._find(user_id, charge.decision_id)
            if user_id is not None and index is not None:
                self._charges.pay(charge, self._touch(user_id, offset).decisions[index])

    def take_results(self) -> LedgerResults:
        """Return the results since the last call."""
        results, self._results = self._results, _no_results()
        return results

    def advance(self, max_ts: int, offset: int) -> None:
        """Close the decisions whose windows the watermark has passed.

        Args:
            max_ts: Largest event time of the partition, ms.
            offset: Source offset of the record that moved it.
        """
        watermark = max_ts - self._lateness_ms
        closures = 0
        while closures < MAX_CLOSURES and (user_id := self._timers.pop(watermark)) is not None:
            close_at = self._close_at.get(user_id)
            if close_at is None or self._timers.is_later(close_at):
                continue  # void: the user has an earlier or a later timer, or none
            del self._close_at[user_id]
            closed = self._close_quiet(user_id, offset)
            closures += (self._close_due(user_id, offset) if closed is None else closed) > 0
        self.due_at = self._timers.next_ms + self._lateness_ms

    def _close_quiet(self, user_id: str, offset: int) -> int | None:
        """Close the due decisions of a user who reacted to none, and set the timer of the next.

        Args:
            user_id: The user.
            offset: Source offset of the record that moved the watermark.

        Returns:
            The number of closed decisions; None, with nothing closed, where the decisions must be read whole.
        """
        record = None if user_id in self._touched else self._find_stored(user_id)
        decisions = split_quiet(record.ledger, self._timers.minute_ms) if record and record.ledger else None
        if record is None or record.ledger is None or decisions is None:
            return None
        if decisions.closed:
            record.offset, record.ledger.decisions = offset, decisions.open
            self._opened[user_id] = record
            self._results.outcomes.extend([self._outcome(user_id, decision) for decision in decisions.closed])
        if decisions.next_closing is not None:
            self._set_timer(user_id, decisions.next_closing)
        return len(decisions.closed)

    def _close_due(self, user_id: str, offset: int) -> int:
        """Close the due decisions of a user, and set the timer of the next; return the number of due decisions.

        Their outcomes are written at the end of the click window, and they are forgotten when all windows are over.

        Args:
            user_id: The user.
            offset: Source offset of the record that moved the watermark.
        """
        record = self._record(user_id)
        ledger, end = record.ledger or UserLedger(), self._timers.minute_ms
        due = [index for index, decision in enumerate(ledger.decisions) if next_closing(decision) < end]
        if due:
            self._touch_record(user_id, record, offset)
            self._close(user_id, ledger, due)
        self._set_timer(user_id, *map(next_closing, ledger.decisions))
        return len(due)

    def _close(self, user_id: str, ledger: UserLedger, due: Sequence[int]) -> None:
        """Write the outcomes of decisions whose click window is over, and forget those whose windows are all over.

        Args:
            user_id: The user.
            ledger: Ledger of the user.
            due: Indices of the decisions of which a window is over.
        """
        for index in due:
            if not ledger.decisions[index].revisions:
                self._publish(user_id, ledger, index)
                self._charges.learn(ledger, ledger.decisions[index], self._touched[user_id].offset)
        decisions = [ledger.decisions[index] for index in due]
        self._remove(ledger, [decision for decision in decisions if forgotten_at(decision) < self._timers.minute_ms])

    def close_all(self) -> None:
        """Write the outcome of every open decision, in order of user ids: for the end of a finished log."""
        for user_id in sorted({*self._users, *self._touched, *self._opened}):
            ledger = self.user(user_id)
            for index, decision in enumerate(ledger.decisions):
                if not decision.revisions:
                    self._publish(user_id, ledger, index)

    def _remove(self, ledger: UserLedger, decisions: Sequence[OpenDecision]) -> None:
        """Forget decisions of a user, with their orders and debts."""
        self._charges.forget(decisions)
        remove_decisions(ledger, decisions)

    def pass_event(self, event: AnyEvent, offset: int, *, is_machine: bool) -> None:
        """Join an event to the decision that it names, or whose item it puts into the cart or buys.

        Args:
            event: The event.
            offset: Source offset of the event.
            is_machine: Whether the user is a bot or an agent as of the event.
        """
        user_id = event.user_id
        if is_machine and self._is_charged(user_id):
            ledger = self._touch(user_id, offset)
            ledger.is_machine = True
            self._settle(user_id, ledger, event.ts)
        kind = _KINDS.get(type(event))
        if kind is None or not isinstance(event, ItemEvent):
            return
        if kind in (CART, PURCHASE):
            result = self._add_order(event, kind, offset)
        elif event.decision_id is not None:
            result = self._add_reaction(event, kind, event.decision_id, offset)
        else:
            return
        if event.decision_id is not None:
            self._results.feedback[result] += 1

    def _is_charged(self, user_id: str) -> bool:
        """Return whether a user is remembered and not yet known as a machine."""
        return self._is_known(user_id) and not self.user(user_id).is_machine

    def _add_reaction(self, event: ItemEvent, kind: int, decision_id: str, offset: int) -> str:
        """Join an impression or a click to a decision; return what became of it.

        Args:
            event: The event.
            kind: `IMPRESSION` or `CLICK`.
            decision_id: Id of the decision or of its ads.
            offset: Source offset of the event.
        """
        index = self._find(event.user_id, decision_id)
        if index is None:
            return "unknown"
        decision = self.user(event.user_id).decisions[index]
        line = find_line(decision, event.item_id, event.campaign_id)
        if line is None or not decision.ts <= event.ts <= decision.ts + CLICK_WINDOW_MS:
            return "unknown"
        fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
        if any(earlier.fingerprint == fingerprint for earlier in decision.reactions):
            return "repeated"
        if len(decision.reactions) >= MAX_REACTIONS:
            return "overflow"
        ledger = self._touch(event.user_id, offset)
        decision = ledger.decisions[index]
        decision.reactions.append(Reaction(kind, line, event.ts, fingerprint, event.item_id))
        self._results.reactions[KIND_NAMES[kind], decision.variant, placement_of(decision, line)] += 1
        self._settle(event.user_id, ledger, event.ts)
        return "joined"

    def _add_order(self, event: ItemEvent, kind: int, offset: int) -> str:
        """Remember a cart or a purchase of an item that an open decision shows; return what became of it.

        Args:
            event: The event.
            kind: `CART` or `PURCHASE`.
            offset: Source offset of the event.
        """
        ledger = self.user(event.user_id)
        if all(find_line(decision, event.item_id, None) is None for decision in ledger.decisions):
            return "unknown"
        fingerprint = xxhash.xxh3_64_digest(event.event_id.encode())
        if any(order.fingerprint == fingerprint for order in ledger.orders):
            return "repeated"
        if len(ledger.orders) >= MAX_ORDERS:
            return "overflow"
        index = None if event.decision_id is None else self._find(event.user_id, event.decision_id)
        partition, decided_at = -1, -1
        if index is not None:
            partition, decided_at = ledger.decisions[index].partition, ledger.decisions[index].offset
        price, quantity = event.price or 0.0, event.quantity if isinstance(event, Purchase) else 0
        ledger = self._touch(event.user_id, offset)
        revenue = round(price * quantity, MONEY_DECIMALS)
        order = OrderLine(
            kind, event.item_id, event.ts, revenue, fingerprint, partition, decided_at, event.campaign_id or ""
        )
        ledger.orders.append(order)
        line = next((line for line, orders in attribute_orders(ledger).items() if order in orders), None)
        if line is not None:
            decision = ledger.decisions[line.decision]
            key = decision.variant, placement_of(decision, line.line)
            self._results.reactions[KIND_NAMES[kind], *key] += 1
            self._results.revenue[key] = self._results.revenue.get(key, 0.0) + revenue
        self._settle(event.user_id, ledger, event.ts)
        return "unknown" if line is None else "joined"

    def _find(self, user_id: str, decision_id: str) -> int | None:
        """Return the index of a user's open decision; None where it is not open.

        Args:
            user_id: The user.
            decision_id: Id of the decision or of its ads.
        """
        return find_decision(self.user(user_id).decisions, self._topic, decision_id)

    def open(self, opening: OpeningDecision, offset: int, *, is_machine: bool) -> None:
        """Remember a decision.

        Args:
            opening: The decision.
            offset: Source offset of the answered event.
            is_machine: Whether the user is a bot or an agent.
        """
        user_id, decision = opening.user_id, self._open_decision(opening, offset)
        record = None if user_id in self._touched else self._find_opened(user_id)
        if record is not None and record.ledger is not None:
            record.offset = offset
            record.ledger.is_machine = record.ledger.is_machine or is_machine
            record.ledger.decisions.append(msgspec.Raw(encode(stored_decision(decision))))
        else:
            ledger = self._touch(user_id, offset)
            ledger.is_machine = ledger.is_machine or is_machine
            ledger.decisions.append(decision)
            if len(ledger.decisions) > MAX_DECISIONS:
                self._evict(user_id, ledger)
        self._set_timer(user_id, decision.ts + CLICK_WINDOW_MS)

    def _find_opened(self, user_id: str) -> LedgerRecord | None:
        """Return the record of a user for one more decision; None where a decision must go for it."""
        record = self._find_stored(user_id)
        if record is None or record.ledger is None or not record.ledger.decisions:
            record = LedgerRecord(ledger=StoredLedger())  # as `_touch_record` makes an empty ledger a new one
        elif len(record.ledger.decisions) >= MAX_DECISIONS:
            return None
        self._opened[user_id] = record
        return record

    def _find_stored(self, user_id: str) -> LedgerRecord | None:
        """Return the record of an untouched user with encoded decisions; None where nothing is remembered."""
        record = self._opened.get(user_id)
        if record is None:
            value = self._users.get(user_id)
            record = None if value is None else decode_ledger_record(value)
        return record

    def _open_decision(self, opening: OpeningDecision, offset: int) -> OpenDecision:
        """Return a decision as the ledger remembers it.

        Args:
            opening: The decision.
            offset: Source offset of the answered event.
        """
        choices = list(chain.from_iterable([shelf.items for shelf in opening.shelves]))
        joins_ads = not opening.withheld & ADS
        hashes = map(item_hash, map(_item_of, choices))
        if not joins_ads:
            hashes = [_NO_ITEM if choice.sponsored else hashed for choice, hashed in zip(choices, hashes, strict=True)]
        return OpenDecision(
            partition=self._partition,
            offset=offset,
            ts=opening.ts,
            variant=opening.variant,
            items=b"".join(hashes),
            shelves=[(shelf.name, len(shelf.items)) for shelf in opening.shelves],
            slots=list(_open_slots(opening.ad, choices)) if opening.ad is not None and joins_ads else [],
            withheld=opening.withheld,
        )

    def _evict(self, user_id: str, ledger: UserLedger) -> None:
        """Close the oldest decision without a reaction, or else the oldest decision, but never the newest."""
        index = next((i for i, decision in enumerate(ledger.decisions[:-1]) if not decision.reactions), 0)
        decision = ledger.decisions[index]
        if not decision.revisions:
            self._publish(user_id, ledger, index)
            self._charges.learn(ledger, decision, self._touched[user_id].offset)
        self._remove(ledger, [decision])

    def _settle(self, user_id: str, ledger: UserLedger, ts: int) -> None:
        """Write charges and corrections for whatever a change of a user's ledger has changed.

        Args:
            user_id: The user.
            ledger: Ledger of the user.
            ts: Event time of the event behind the change, ms.
        """
        self._results.charges.extend(self._charges.bill(user_id, ledger, ts))
        for index, decision in enumerate(ledger.decisions):
            if decision.revisions:
                self._publish(user_id, ledger, index)

    def _publish(self, user_id: str, ledger: UserLedger, index: int) -> None:
        """Write the outcome of a decision, unless the newest record says the same.

        Args:
            user_id: The user.
            ledger: Ledger of the user.
            index: Index of the decision.
        """
        decision = ledger.decisions[index]
        lines: tuple[LineOutcome, ...] = ()
        digest = _NO_LINES_DIGEST
        if decision.reactions or ledger.orders:
            lines = make_lines(decision, index, attribute_orders(ledger), judge_clicks(ledger))
            digest = xxhash.xxh3_64_digest(encode_outcome(lines))
        if decision.revisions and digest == decision.digest:
            return
        self._results.outcomes.append(
            self._outcome(user_id, decision, revision=decision.revisions, withheld=decision.withheld, lines=lines)
        )
        decision.revisions, decision.digest = decision.revisions + 1, digest

    def _outcome(
        self,
        user_id: str,
        decision: DecisionHead,
        *,
        revision: int = 0,
        withheld: int = 0,
        lines: tuple[LineOutcome, ...] = (),
    ) -> DecisionOutcome:
        """Return the outcome of a decision.

        Args:
            user_id: The user.
            decision: The decision.
            revision: Number of earlier outcomes of the decision.
            withheld: Bits of the purposes without the user's consent.
            lines: Items with a reaction.
        """
        return DecisionOutcome(
            decision_id=id_of(decision, self._topic),
            user_id=user_id,
            ts=decision.ts,
            variant=decision.variant,
            revision=revision,
            withheld=purposes_of_bits(withheld) if withheld else (),
            lines=lines,
        )

    def forget(self, user_id: str, offset: int) -> None:
        """Forget a user: one who is erased, or who no longer consents to personalisation.

        What was charged stays charged. No outcome of an open decision is written.

        Args:
            user_id: The user.
            offset: Source offset of the record behind it.
        """
        if self._is_known(user_id):
            ledger = self._touch(user_id, offset)
            self._charges.forget(ledger.decisions)
            ledger.decisions, ledger.orders, ledger.is_machine = [], [], False
            self._close_at.pop(user_id, None)
            self._erased.add(user_id)

    def forget_ads(self, user_id: str, offset: int) -> None:
        """Forget the ads of the open decisions of a user who no longer consents to ads. What was charged stays charged.

        Args:
            user_id: The user.
            offset: Source offset of the record behind it.
        """
        if any(decision.slots for decision in self.user(user_id).decisions):
            decisions = self._touch(user_id, offset).decisions
            self._charges.forget(decisions)
            for decision in decisions:
                decision.slots, decision.billing = [], []

    def hand_over(self, user_id: str, offset: int) -> UserLedger | None:
        """Take the open decisions of an anonymous id out; None where there are none.

        Args:
            user_id: The anonymous id.
            offset: Source offset of the `identify` event.
        """
        if not self._is_known(user_id):
            return None
        ledger = self.user(user_id)
        handed = UserLedger(ledger.decisions, ledger.orders, ledger.is_machine)
        self._charges.cancel(handed.decisions)
        self.forget(user_id, offset)
        return handed if handed.decisions else None

    def receive(self, user_id: str, handed: UserLedger, offset: int, *, ts: int, withheld: int) -> None:
        """Add the open decisions of an anonymous id to those of the user.

        Args:
            user_id: The user.
            handed: Open decisions of the anonymous id.
            offset: Source offset of the hand-over.
            ts: Event time of the `identify` event, ms.
            withheld: Bits of the purposes to which the user has not consented; personalisation is not among them.
        """
        ledger = self._touch(user_id, offset)
        if withheld & ADS:
            for decision in handed.decisions:
                decision.slots, decision.billing = [], []
        known = {order.fingerprint for order in ledger.orders}
        ledger.decisions = [*handed.decisions, *ledger.decisions]
        arrived = [order for order in handed.orders if order.fingerprint not in known]
        ledger.orders += arrived[: MAX_ORDERS - len(ledger.orders)]
        ledger.is_machine = ledger.is_machine or handed.is_machine
        while len(ledger.decisions) > MAX_DECISIONS:
            self._evict(user_id, ledger)
        self._settle(user_id, ledger, ts)
        self._set_timer(user_id, *map(next_closing, ledger.decisions))

    def _touch(self, user_id: str, offset: int) -> UserLedger:
        """Return a user's ledger for a change by the record at an offset."""
        return self._touch_record(user_id, self._record(user_id), offset)

    def _touch_record(self, user_id: str, record: UserState, offset: int) -> UserLedger:
        """Mark a decoded record as changed; return its ledger.

        Args:
            user_id: The user.
            record: Record of the user.
            offset: Source offset of the record behind the change.
        """
        self._touched[user_id] = record
        record.offset = offset
        if not (record.ledger and record.ledger.decisions):
            record.ledger = UserLedger()  # a flush keeps none without decisions: nothing depends on where a batch ends
        return record.ledger

    def _set_timer(self, user_id: str, *times_ms: int) -> None:
        """Make sure that a user comes out at the first of some times, ms; without a time nothing changes."""
        if not times_ms:
            return
        time_ms = min(times_ms)
        close_at = self._close_at.get(user_id)
        if close_at is None or time_ms < close_at:
            self._close_at[user_id] = time_ms
            self._timers.add(user_id, time_ms)
            self.due_at = self._timers.next_ms + self._lateness_ms

    def flush(self, offset: int) -> list[LedgerChange]:
        """End a batch; return the changed records.

        A user with nothing left always leaves a tombstone: a stalled worker may have written a record of another batch.

        Args:
            offset: Source offset of the last record of the batch.
        """
        changes: list[LedgerChange] = []
        for user_id, record in (*self._opened.items(), *self._touched.items()):
            if record.ledger and record.ledger.decisions:
                value = encode(record if isinstance(record, LedgerRecord) else _store(record))
                self._users[user_id] = value
            else:
                value = None
                self._users.pop(user_id, None)
            changes.append(LedgerChange(ledger_key(user_id), value, record.offset))
        for user_id in sorted(self._overlaid.difference(self._touched, self._opened)):
            value = self._users.get(user_id)
            changes.append(LedgerChange(ledger_key(user_id), value, changed_by(value, offset)))
        self._touched.clear()
        self._opened.clear()
        self._overlaid.clear()
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
        ledger = self.user(user_id)
        self._charges.load(user_id, ledger.decisions)
        self._set_timer(user_id, *map(next_closing, ledger.decisions))

    def is_overlaid(self, key: str, offset: int, *, is_tombstone: bool) -> bool:
        """Return whether a record of the changelog is older than the ledger here.

        Args:
            key: Key of the record.
            offset: Source offset of the record.
            is_tombstone: Whether the record has no value.
        """
        return is_outdated(self._users.get(ledger_user(key)), offset, is_tombstone=is_tombstone)

    def rewrite(self, keys: Iterable[str]) -> None:
        """Write these records again with the next flush; a tombstone where nothing is remembered."""
        self._overlaid.update(map(ledger_user, keys))

    @property
    def needs_flush(self) -> bool:
        """Whether records wait to be written again."""
        return bool(self._overlaid)


def _store(record: UserState) -> LedgerRecord:
    """Return a decoded record as it is stored."""
    ledger = record.ledger or UserLedger()
    decisions = [msgspec.Raw(encode(stored_decision(decision))) for decision in ledger.decisions]
    stored = StoredLedger(decisions, msgspec.Raw(encode(ledger.orders)), ledger.is_machine)
    return LedgerRecord(offset=record.offset, ledger=stored)


def _open_slots(ad: Ad, choices: Sequence[Choice]) -> Iterator[OpenSlot]:
    """Yield the sold slots of a page. An ad in none of the lists has a line after them.

    Args:
        ad: The decision on ads.
        choices: Items of the lists, from top to bottom.
    """
    factors = ad.click_factors or {}
    lines = {(choice.campaign_id, choice.item_id): line for line, choice in enumerate(choices) if choice.sponsored}
    for index, slot in enumerate(ad.slots):
        line = lines.get((slot.campaign_id, slot.item_id), len(choices) + index)
        factor = factors.get(slot.campaign_id) or 1.0  # a factor that is rounded to 0 did not count
        yield OpenSlot(
            line,
            slot.placement,
            slot.campaign_id,
            slot.item_id,
            slot.bid_per,
            slot.price,
            0 if slot.view_window_ms is msgspec.UNSET else slot.view_window_ms,
            PURCHASE_WINDOW_MS if slot.purchase_window_ms is msgspec.UNSET else slot.purchase_window_ms,
            slot.multiplier is not msgspec.UNSET,
            min(1.0, slot.probability / factor) if slot.bid_per == "click" else 0.0,
        )
