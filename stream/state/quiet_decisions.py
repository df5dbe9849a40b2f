"""Quiet decisions: the stored decisions of a user without reactions, split by time without reading items.

Most decisions end without a reaction, and a user's decisions close one by one. To decode and encode all decisions each
time took a fifth of the time of an event.
"""

from typing import NamedTuple

import msgspec

from clickscore.schemas.open_decisions import DecisionHead, QuietDecision, StoredLedger, decode_head
from clickscore.stream.state.remembered_decisions import CLICK_WINDOW_MS

_NO_ORDERS = StoredLedger().orders
_QUIET_BYTE = 0x90 + len(QuietDecision.__struct_fields__)
"""First byte of a decision without a reaction: MessagePack's array of as many fields."""


class QuietDecisions(NamedTuple):
    """The decisions of a user on both sides of a time."""

    closed: list[DecisionHead]
    """Decisions past the end of the click window."""
    open: list[msgspec.Raw]
    """The others, as stored."""
    next_closing: int | None
    """Closing time of the next open decision, ms; None without an open decision."""


def split_quiet(ledger: StoredLedger, end_ms: int) -> QuietDecisions | None:
    """Return the decisions of a user without reactions; None where there is a reaction, an order or a correction.

    Args:
        ledger: Ledger of the user.
        end_ms: Time before which windows are over, ms.
    """
    if ledger.orders != _NO_ORDERS:
        return None
    closed: list[DecisionHead] = []
    remaining: list[msgspec.Raw] = []
    closings: list[int] = []
    for decision in ledger.decisions:
        if memoryview(decision)[0] != _QUIET_BYTE:
            return None
        head = decode_head(decision)
        closing = head.ts + CLICK_WINDOW_MS
        if closing < end_ms:
            closed.append(head)
        else:
            remaining.append(decision)
            closings.append(closing)
    return QuietDecisions(closed, remaining, min(closings, default=None))
