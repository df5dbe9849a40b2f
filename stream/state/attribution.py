"""Attribution: which line of which decision brought an order, and which clicks are valid.

All functions are pure functions of what the ledger remembers of a user. They read the event times alone, never the
order in which the records arrived, so events that come out of order lead to the same result.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clickscore.schemas.open_decisions import (
    CLICK,
    IMPRESSION,
    PURCHASE_WINDOW_MS,
    OpenDecision,
    OpenSlot,
    OrderLine,
    Reaction,
    UserLedger,
    item_hash,
)
from clickscore.schemas.outcomes import ChargeReason

REPEAT_MS = 10_000
"""Time after a click within which another click of the user on the same item is a repeat, ms: a double click, or a
visitor who did not wait for the page."""
FASTEST_CLICK_MS = 200
"""Shortest time from an impression to a click of a person, ms: the fastest reactions of the hand to a picture."""


class PageLine(NamedTuple):
    """A line of an open decision."""

    decision: int
    """Index of the decision in the user's ledger."""
    line: int


Orders = Mapping[PageLine, Sequence[OrderLine]]
"""Orders by the line that brought them."""


def find_line(decision: OpenDecision, item_id: str, campaign_id: str | None) -> int | None:
    """Return the line of a page that an event names; None where the page does not show the item.

    Args:
        decision: The decision.
        item_id: Item of the event.
        campaign_id: Campaign of the event; None for an item that is no ad.
    """
    if campaign_id:
        return next((s.line for s in decision.slots if (s.campaign_id, s.item_id) == (campaign_id, item_id)), None)
    size = decision.hash_bytes
    hashed = item_hash(item_id, size)
    position = decision.items.find(hashed)
    while position % size and position >= 0:  # the bytes of two neighbours
        position = decision.items.find(hashed, position + 1)
    if position >= 0:
        return position // size
    return next((slot.line for slot in decision.slots if slot.item_id == item_id), None)


def find_slot(decision: OpenDecision, line: int) -> OpenSlot | None:
    """Return the sold slot of a line; None for an item that is no ad."""
    return next((slot for slot in decision.slots if slot.line == line), None)


def order_window(decision: OpenDecision, line: int, kind: int) -> int:
    """Return the time after a reaction within which an order of the item counts, ms.

    Args:
        decision: The decision.
        line: Line of the reaction.
        kind: `CLICK` or `IMPRESSION`.
    """
    slot = find_slot(decision, line)
    if slot is None:
        return PURCHASE_WINDOW_MS if kind == CLICK else 0
    return slot.purchase_window_ms if kind == CLICK else slot.view_window_ms


def attribute_orders(ledger: UserLedger) -> Orders:
    """Return the orders that each line brought.

    An order line counts once: for the decision that it names, or else for the last click on the item, or else for the
    last impression, each within its window.

    Args:
        ledger: What is remembered of the user.
    """
    attributed: dict[PageLine, list[OrderLine]] = defaultdict(list)
    for order in ledger.orders:
        line = _named_line(ledger.decisions, order)
        if line is None:
            line = _last_touch(ledger.decisions, order, CLICK)
        if line is None:
            line = _last_touch(ledger.decisions, order, IMPRESSION)
        if line is not None:
            attributed[line].append(order)
    return attributed


def _named_line(decisions: Sequence[OpenDecision], order: OrderLine) -> PageLine | None:
    """Return the line of the decision that an order names, if the order is within the window after the last reaction.

    Args:
        decisions: Open decisions of the user.
        order: The order.
    """
    for index, decision in enumerate(decisions):
        if (decision.partition, decision.offset) != (order.partition, order.offset):
            continue
        line = find_line(decision, order.item_id, order.campaign_id)
        if line is None:
            return None
        touches = [reaction.ts for reaction in decision.reactions if reaction.line == line]
        latest = max([ts for ts in touches if ts <= order.ts], default=decision.ts)
        return PageLine(index, line) if latest <= order.ts <= latest + order_window(decision, line, CLICK) else None
    return None


def _last_touch(decisions: Sequence[OpenDecision], order: OrderLine, kind: int) -> PageLine | None:
    """Return the line of the last reaction of a kind to the item of an order, within the window of the reaction.

    Args:
        decisions: Open decisions of the user.
        order: The order.
        kind: `CLICK` or `IMPRESSION`.
    """
    touches: list[tuple[int, int, int, int, PageLine]] = []
    for index, decision in enumerate(decisions):
        for reaction in decision.reactions:
            if reaction.kind != kind or reaction.item_id != order.item_id or reaction.ts > order.ts:
                continue
            window_ms = order_window(decision, reaction.line, kind)
            if window_ms and order.ts <= reaction.ts + window_ms:
                line = PageLine(index, reaction.line)
                touches.append((reaction.ts, decision.ts, decision.partition, decision.offset, line))
    return max(touches)[-1] if touches else None


def judge_clicks(ledger: UserLedger) -> dict[bytes, ChargeReason]:
    """Return the reason why each invalid click is invalid, by the click's fingerprint.

    Args:
        ledger: What is remembered of the user.
    """
    invalid: dict[bytes, ChargeReason] = {}
    for decision in ledger.decisions:
        for click in decision.reactions:
            if click.kind == CLICK:
                reason = "machine" if ledger.is_machine else _fault(decision, click)
                if reason is not None:
                    invalid[click.fingerprint] = reason
    for fingerprint in find_repeats(ledger):
        invalid.setdefault(fingerprint, "repeated")
    return invalid


def find_repeats(ledger: UserLedger) -> set[bytes]:
    """Return the fingerprints of all clicks that repeat another click, also of clicks with another fault.

    Args:
        ledger: What is remembered of the user.
    """
    clicks = [
        (reaction.ts, reaction.fingerprint, reaction.item_id, reaction.is_repeat)
        for decision in ledger.decisions
        for reaction in decision.reactions
        if reaction.kind == CLICK
    ]
    repeats: set[bytes] = set()
    newest: dict[str, int] = {}
    for ts, fingerprint, item_id, is_repeat in sorted(clicks):
        if is_repeat or ts - newest.get(item_id, -REPEAT_MS) < REPEAT_MS:
            repeats.add(fingerprint)
        newest[item_id] = ts
    return repeats


def _fault(decision: OpenDecision, click: Reaction) -> ChargeReason | None:
    """Return why a click does not follow from an impression as a person's does; None where it does.

    Args:
        decision: Decision of the click.
        click: The click.
    """
    seen = [r.ts for r in decision.reactions if r.kind == IMPRESSION and r.line == click.line and r.ts <= click.ts]
    if not seen:
        return "no impression"
    return "too fast" if click.ts - min(seen) < FASTEST_CLICK_MS else None
