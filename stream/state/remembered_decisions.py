"""Remembered decisions: their ids, the ends of their windows, and the orders that are forgotten with them."""

from collections.abc import Sequence

import msgspec

from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.open_decisions import DecisionHead, OpenDecision, UserLedger
from clickscore.stream.decision_ids import AD_SUFFIX
from clickscore.stream.state.attribution import attribute_orders, find_repeats, order_window

CLICK_WINDOW_MS = 30 * MINUTE_MS
"""Time after a decision within which its impressions and clicks count, ms: the usual gap of sessions."""


def id_of(decision: DecisionHead, topic: str) -> str:
    """Return the id of a decision on an event of a topic."""
    return f"{topic}-{decision.partition}-{decision.offset}"


def find_decision(decisions: Sequence[OpenDecision], topic: str, decision_id: str) -> int | None:
    """Return the index of an open decision; None where it is not open.

    Args:
        decisions: Open decisions of a user.
        topic: Topic of the events, with its prefix.
        decision_id: Id of the decision or of its ads.
    """
    source, _, offset = decision_id.removesuffix(AD_SUFFIX).rpartition("-")
    id_topic, _, partition = source.rpartition("-")
    if id_topic != topic or not (_is_number(partition) and _is_number(offset)):
        return None
    position = int(partition), int(offset)
    for index, decision in enumerate(decisions):
        if (decision.partition, decision.offset) == position:
            return index
    return None


def next_closing(decision: OpenDecision) -> int:
    """Return the time at which the next window of a decision is over, ms."""
    return forgotten_at(decision) if decision.revisions else decision.ts + CLICK_WINDOW_MS


def forgotten_at(decision: OpenDecision) -> int:
    """Return the time from which on no event can change the outcome of a decision, ms."""
    if not decision.reactions:
        return decision.ts + CLICK_WINDOW_MS
    ends = [reaction.ts + order_window(decision, reaction.line, reaction.kind) for reaction in decision.reactions]
    return max(decision.ts + CLICK_WINDOW_MS, *ends)


def remove_decisions(ledger: UserLedger, decisions: Sequence[OpenDecision]) -> None:
    """Forget decisions, with their orders and the orders that no other decision can have brought.

    Args:
        ledger: Ledger of the user; changed in place.
        decisions: Decisions to forget.
    """
    if not decisions:
        return
    if len(decisions) == len(ledger.decisions):
        ledger.decisions, ledger.orders = [], []
        return
    if not ledger.orders and not any(decision.reactions for decision in decisions):
        ledger.decisions = [decision for decision in ledger.decisions if decision not in decisions]
        return
    removed = {(decision.partition, decision.offset) for decision in decisions}
    brought = {
        order.fingerprint
        for line, orders in attribute_orders(ledger).items()
        for order in orders
        if (ledger.decisions[line.decision].partition, ledger.decisions[line.decision].offset) in removed
    }
    repeats = find_repeats(ledger)
    ledger.decisions = [d for d in ledger.decisions if (d.partition, d.offset) not in removed]
    for decision in ledger.decisions:  # a repeat stays a repeat, also one that has another fault for now
        decision.reactions = [
            msgspec.structs.replace(reaction, is_repeat=reaction.fingerprint in repeats)
            for reaction in decision.reactions
        ]
    oldest = min([decision.ts for decision in ledger.decisions])  # an order before it can belong to none of them
    ledger.orders = [o for o in ledger.orders if o.fingerprint not in brought and o.ts >= oldest]


def _is_number(text: str) -> bool:
    """Return whether a text is a number as ids have them: digits alone, without a leading zero."""
    return text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))
