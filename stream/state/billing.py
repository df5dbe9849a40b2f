"""Billing: what a sold slot costs, from the reactions to it. The single place where money is computed.

A slot is charged once at most, for its first valid click, its first impression, or its first order, as its campaign
bids. So a page never costs more than the prices that its decision states.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clickscore.schemas.leases import unit_price
from clickscore.schemas.open_decisions import CLICK, IMPRESSION, OpenDecision, OpenSlot, OrderLine
from clickscore.schemas.outcomes import ChargeReason


class Bill(NamedTuple):
    """What a slot costs."""

    events: int
    """Number of events that the campaign bids for, invalid ones included."""
    net: float
    """Amount to pay."""
    reason: ChargeReason
    """Why the newest event is charged or not."""


def make_bill(
    decision: OpenDecision,
    slot: OpenSlot,
    orders: Sequence[OrderLine],
    invalid_clicks: Mapping[bytes, ChargeReason],
    *,
    is_machine: bool,
) -> Bill:
    """Return what a slot costs.

    Args:
        decision: Decision of the slot.
        slot: The slot.
        orders: Purchases that the slot brought.
        invalid_clicks: Reason of each invalid click, by fingerprint.
        is_machine: Whether the user is a bot or an agent.
    """
    reasons: list[ChargeReason | None]
    if slot.bid_per == "order":
        reasons = [None for _ in orders]
    else:
        kind = CLICK if slot.bid_per == "click" else IMPRESSION
        reactions = [r for r in decision.reactions if r.line == slot.line and r.kind == kind]
        reasons = [invalid_clicks.get(reaction.fingerprint) for reaction in reactions]
    valid = 0 if is_machine else sum([reason is None for reason in reasons])
    newest = reasons[-1] if reasons else "order moved"
    if is_machine:
        newest = "machine"
    elif newest is None:
        newest = "charged" if valid == 1 else "repeated"
    return Bill(len(reasons), unit_price(slot.price, slot.bid_per) if valid else 0.0, newest)
