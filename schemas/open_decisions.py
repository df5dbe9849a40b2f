"""Open decisions: what a partition's ledger remembers of a user's decisions, and of the reactions to them.

A ledger record is a record of `session-snapshots` with a key of its own (`ledger_key`). Its value is a `UserState` that
is empty but for `offset` and `ledger`, so that release 0.1.0 reads it as a user of whom nothing is remembered.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

import msgspec
import xxhash

from clickscore.schemas.decisions import COMPARED_VARIANTS, BidUnit
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.field_types import (
    FINGERPRINT_BYTES,
    MAX_BID,
    MAX_ID_LENGTH,
    MAX_PRICE,
    MAX_QUANTITY,
    NAME_PATTERN,
    YEAR_2000_MS,
    YEAR_9999_MS,
)

LEDGER_PREFIX = "\0"
"""First character of the keys of ledger records. No user id begins with it: such events are dead letters."""
_USER_KIND = "u"

PURCHASE_WINDOW_MS = DAY_MS
"""Time after a click within which an order of the item counts, ms, unless a campaign says otherwise."""
MAX_WINDOW_MS = 30 * DAY_MS
"""Largest window of a campaign, ms: the longest that is usual in retail media."""
MAX_DECISIONS = 32
"""Open decisions of a user, at most: 97 % of sessions have fewer events. One without a reaction closes early."""
MAX_REACTIONS = 64
"""Impressions and clicks of a decision that are remembered, at most: a page shows some ten items."""
MAX_ORDERS = 64
"""Carts and purchases of a user that are remembered, at most."""
ITEM_HASH_BYTES = 4
"""Bytes of an item in `QuietDecision.items`: two of ten items have the same hash on a page of 100 million."""
_FORMER_HASH_BYTES = 8
"""The same in records of earlier versions."""
_MIN_EXPECTED = 1e-12
"""Smallest probability of a click above 0 in a hand-over: with less, factors of click rates would not be finite."""
_MAX_COUNT = 2**31 - 1
"""Largest number of events or records in a hand-over."""
_MAX_OFFSET = 2**53
"""Largest offset in a hand-over, as `schemas.field_types.LogOffset` has it."""

_is_name = re.compile(NAME_PATTERN.removesuffix("$")).fullmatch  # `$` would allow a line break at the end

IMPRESSION, CLICK, CART, PURCHASE = range(4)
"""Kinds of reactions by code. Snapshots contain codes, so new kinds go to the end."""


class OpenSlot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sold slot of an open decision. New fields go to the end and need a default."""

    line: int
    """Line of the page: the items of the lists from top to bottom, from 0, then the ads beside them."""
    placement: str
    campaign_id: str
    item_id: str
    bid_per: BidUnit
    price: float
    """Price for what `bid_per` names, as the decision states it."""
    view_window_ms: int = 0
    """Time after an impression within which an order of the item counts without a click, ms; 0 for none."""
    purchase_window_ms: int = PURCHASE_WINDOW_MS
    """Time after a click within which an order of the item counts, ms."""
    has_budget: bool = False
    """Whether the campaign had a budget, so that charges need a lease."""
    expected: float = 0.0
    """Probability of a click as the model expected it, without learned factors; 0 for a bid for another event."""


class Reaction(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An impression or a click that names a decision. New fields go to the end and need a default."""

    kind: int
    """`IMPRESSION` or `CLICK`."""
    line: int
    """Line of the page, as in `OpenSlot`."""
    ts: int
    """Event time, ms."""
    fingerprint: bytes
    """Hash of the event id (xxh3, 64 bits): a repeated event counts once."""
    item_id: str = ""
    is_repeat: bool = False
    """Whether the click repeats a click, perhaps of a decision that is forgotten by now."""


class OrderLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A cart or a purchase of an item that a decision showed. New fields go to the end and need a default."""

    kind: int
    """`CART` or `PURCHASE`."""
    item_id: str
    ts: int
    """Event time, ms."""
    revenue: float
    """Price * quantity; 0 where the event has no price, and for a cart."""
    fingerprint: bytes
    """Hash of the event id (xxh3, 64 bits): a repeated event counts once."""
    partition: int = -1
    """Partition of the decision that the event names; -1 where it names none."""
    offset: int = -1
    """Offset of this decision."""
    campaign_id: str = ""
    """Campaign that the event names; empty for none."""


class Billing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a sold slot has cost so far. New fields go to the end and need a default."""

    records: int = 0
    """Number of charges on `ad-charges`, credits included."""
    events: int = 0
    """Number of events that the campaign bids for, invalid ones included."""
    net: float = 0.0
    """Price of what is charged."""
    paid: float = 0.0
    """Paid amount: less than the price where the budget of the campaign had too little."""


class DecisionHead(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a remembered decision, to read decisions without items. There is no room for more fields."""

    partition: int
    """Partition of the answered event."""
    offset: int
    """Source offset of the answered event: with the partition, the id of the decision."""
    ts: int
    """Event time of the answered event, ms."""
    variant: str
    """Variant for which the decision counts, as `schemas.decisions.compared_variant` says."""


class QuietDecision(DecisionHead, array_like=True, gc=False):
    """A decision without a reaction: the first fields of `OpenDecision`. There is no room for more fields."""

    items: bytes
    """Hash of each recommended item, the lists of the page from top to bottom, as `item_hash` returns it."""
    shelves: list[tuple[str, int]] = []
    """Name and number of items of each list of the page."""
    slots: list[OpenSlot] = []


class OpenDecision(QuietDecision, array_like=True, gc=False):
    """A decision whose reactions are still counted. New fields go to the end and need a default."""

    reactions: list[Reaction] = []
    """Impressions and clicks in the order of their records."""
    billing: list[Billing] = []
    """What each slot has cost, in the order of `slots`; empty where nothing has happened."""
    revisions: int = 0
    """Number of records on `decision-outcomes`."""
    digest: bytes = b""
    """Hash (xxh3, 64 bits) of the lines of the newest of these records."""
    withheld: int = 0
    """Bits of the purposes without the user's consent, in the order of `schemas.purposes.PURPOSES`."""

    @property
    def hash_bytes(self) -> int:
        """Bytes of an item in `items`."""
        lines = sum([size for _, size in self.shelves])
        return _FORMER_HASH_BYTES if len(self.items) == lines * _FORMER_HASH_BYTES else ITEM_HASH_BYTES


class UserLedger(msgspec.Struct, array_like=True, gc=False):
    """What the ledger remembers of a user. New fields go to the end and need a default."""

    decisions: list[OpenDecision] = []
    """Open decisions, in the order of their records."""
    orders: list[OrderLine] = []
    """Carts and purchases of items that a decision showed, in the order of their records."""
    is_machine: bool = False
    """Whether the user is known as a bot or an agent, which pays for no ad."""
    budget: bytes | None = None
    """A record of the budgets (`stream.budgets`), which has no other field; absent for a user."""

    @property
    def newest_ts(self) -> int:
        """Newest event time of decisions, reactions and orders, ms; 0 without any."""
        return max(chain((order.ts for order in self.orders), *map(_times, self.decisions)), default=0)


def stored_decision(decision: OpenDecision) -> QuietDecision:
    """Return a decision as it is stored: without the last fields where they say nothing."""
    if decision.reactions or decision.billing or decision.revisions or decision.digest or decision.withheld:
        return decision
    return QuietDecision(
        decision.partition,
        decision.offset,
        decision.ts,
        decision.variant,
        decision.items,
        decision.shelves,
        decision.slots,
    )


class StoredLedger(msgspec.Struct, array_like=True, gc=False):
    """The same as `UserLedger`, to add decisions without reading the others."""

    decisions: list[msgspec.Raw] = []
    """Encoded decisions."""
    orders: msgspec.Raw = msgspec.Raw(b"\x90")  # an empty list
    is_machine: bool = False
    budget: bytes | None = None


decode_head = msgspec.msgpack.Decoder(DecisionHead).decode
_decode_ledger = msgspec.msgpack.Decoder(UserLedger).decode
encode_ledger = msgspec.msgpack.Encoder().encode


def decode_ledger(value: bytes) -> UserLedger:
    """Return a ledger that was handed over.

    Raises:
        ValueError: The bytes are no ledger, or name lines, lists or prices that no page has.
    """
    try:
        ledger = _decode_ledger(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        message = f"the open decisions cannot be read: {exc}"
        raise ValueError(message) from exc
    if len(ledger.decisions) > MAX_DECISIONS or any(map(_is_damaged, ledger.decisions)):
        message = "an open decision is damaged"
        raise ValueError(message)
    if len(ledger.orders) > MAX_ORDERS:
        message = f"{len(ledger.orders)} orders beside the open decisions, where {MAX_ORDERS} are remembered at most"
        raise ValueError(message)
    if any(map(_is_order_damaged, ledger.orders)):
        message = "an order beside the open decisions is damaged"
        raise ValueError(message)
    return ledger


def _is_damaged(decision: OpenDecision) -> bool:
    """Return whether the parts of a decision do not fit together, or are numbers or names of no page."""
    return (
        decision.variant not in COMPARED_VARIANTS
        or not (0 <= decision.partition <= _MAX_COUNT and 0 <= decision.offset <= _MAX_OFFSET)
        or not all(map(_is_event_time, _times(decision)))
        or not 0 <= decision.revisions <= _MAX_COUNT
        or any(size < 0 or not _is_name(name) for name, size in decision.shelves)
        or len(decision.items) % decision.hash_bytes > 0
        or len(decision.reactions) > MAX_REACTIONS
        or len(decision.billing) not in (0, len(decision.slots))
        or any(map(_is_reaction_damaged, decision.reactions))
        or any(map(_is_slot_damaged, decision.slots))
        or any(map(_is_billing_damaged, decision.billing))
    )


def _is_slot_damaged(slot: OpenSlot) -> bool:
    """Return whether a sold slot has a number or a name that no auction leads to."""
    return (
        not (_is_name(slot.placement) and _is_id(slot.campaign_id) and _is_id(slot.item_id))
        or not 0 <= slot.price <= MAX_BID
        or not (slot.expected == 0 or _MIN_EXPECTED <= slot.expected <= 1)
        or not (0 <= slot.view_window_ms <= MAX_WINDOW_MS and 0 <= slot.purchase_window_ms <= MAX_WINDOW_MS)
    )


def _is_reaction_damaged(reaction: Reaction) -> bool:
    """Return whether a reaction has another kind, or an item or an event of no page."""
    return (
        reaction.kind not in (IMPRESSION, CLICK)
        or len(reaction.item_id) > MAX_ID_LENGTH
        or len(reaction.fingerprint) != FINGERPRINT_BYTES
    )


def _is_billing_damaged(billing: Billing) -> bool:
    """Return whether the costs of a slot are no amounts or no counts."""
    return not (
        0 <= billing.net <= MAX_BID
        and 0 <= billing.paid <= MAX_BID
        and 0 <= billing.records <= _MAX_COUNT
        and 0 <= billing.events <= _MAX_COUNT
    )


def _is_order_damaged(order: OrderLine) -> bool:
    """Return whether an order has another kind, or an item, a campaign, a revenue or a time of no order."""
    return (
        order.kind not in (CART, PURCHASE)
        or not _is_id(order.item_id)
        or len(order.campaign_id) > MAX_ID_LENGTH
        or len(order.fingerprint) != FINGERPRINT_BYTES
        or not 0 <= order.revenue <= MAX_PRICE * MAX_QUANTITY
        or not _is_event_time(order.ts)
    )


def _is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_LENGTH


def _is_event_time(ts: int) -> bool:
    return YEAR_2000_MS <= ts <= YEAR_9999_MS


def _times(decision: OpenDecision) -> Iterator[int]:
    """Yield the event times of a decision and of its reactions, ms."""
    yield decision.ts
    for reaction in decision.reactions:
        yield reaction.ts


@lru_cache(maxsize=65_536)  # the items of a shop's day; a decision names ten
def item_hash(item_id: str, size: int = ITEM_HASH_BYTES) -> bytes:
    """Return the hash of an item's id, as `QuietDecision.items` has it: the first bytes of xxh3, 64 bits."""
    return xxhash.xxh3_64_digest(item_id.encode())[:size]


def ledger_key(user_id: str) -> str:
    """Return the key of the ledger record of a user."""
    return LEDGER_PREFIX + _USER_KIND + user_id


def ledger_user(key: str) -> str:
    """Return the user of a key of `ledger_key`."""
    return key[len(LEDGER_PREFIX) + len(_USER_KIND) :]
