"""Reactions: what shoppers do with published decisions, sound and unsound, the same for the same decision."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import xxhash

from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.events import AnyEvent, Cart, Click, Impression, Purchase, Tick, decode_record, encode_event
from tests.chaos.event_rules import JsonObject
from tests.integration.event_log import Sent

SHARE = 16
"""Of so many decisions a shopper reacts to one."""
PAUSE_MS = 7_000
"""Time between the reactions to two items, ms."""
MARK = "/reacts/"
"""Part of the event ids of reactions."""
PURCHASE_MS = 40_000
DAY_MINUTES = 1_500
"""More than a day, in minutes."""


def reactions_to(value: bytes | None) -> list[Sent]:
    """Return the events of the shopper who sees a decision, or a decision on ads; none for most."""
    decision = json.loads(value or b"{}")
    lot = xxhash.xxh3_64_intdigest(decision["decision_id"].encode())
    if lot % SHARE or MARK in decision["event_id"]:  # a reaction to each reaction would never end
        return []
    lot //= SHARE
    # Ads of release 0.1.0, and those of a control group, name no slots.
    shown = decision.get("slots", []) if decision["type"] == "ad" else decision["items"]
    begins = [decision["ts"] + number * PAUSE_MS + lot % 977 for number in range(3)]  # no two at a program's speed
    events = [event for i, item in enumerate(shown[:3]) for event in _reactions(decision, item, begins[i], lot + i)]
    return [Sent(encode_event(event), event.user_id.encode()) for event in events]


def newest_ts(log: Sequence[Sent]) -> int:
    """Return the largest event time of the last records of a log, ms."""
    times: list[int] = []
    for record in log[-100:]:
        try:
            times.append(decode_record(record.value or b"").ts)
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):  # broken records, and an epoch has no time
            continue
    return max(times)


def ends_of_windows(ts: int) -> list[Sent]:
    """Return ticks after an event time (ms), after which every outcome is due, for each partition."""
    minutes = (40, 41, 42, 43, DAY_MINUTES, DAY_MINUTES + 1)
    return [
        Sent(encode_event(Tick(ts=ts + minute * MINUTE_MS)), key)
        for minute in minutes
        for key in (b"user-0", b"user-1", b"user-5", b"user-6")  # one for each partition, of two and of four
    ]


def _reactions(decision: JsonObject, item: JsonObject, begin: int, lot: int) -> Iterator[AnyEvent]:
    """Yield the reactions to an item: nothing, or clicks of each kind, carts and purchases.

    Args:
        decision: The decision.
        item: An item of the list, or a sold slot.
        begin: Time before the first reaction, ms.
        lot: Which of the reactions.
    """
    user_id, decision_id = decision["user_id"], decision["decision_id"]
    names: dict[str, Any] = {"user_id": user_id, "item_id": item["item_id"]}
    named: dict[str, Any] = {**names, "decision_id": decision_id, "campaign_id": item.get("campaign_id")}

    def event_id(number: int) -> str:
        return f"{decision_id}{MARK}{item['item_id']}/{number}"

    if lot % 8 != 1:
        yield Impression(event_id=event_id(0), ts=begin + 1_000, **named)
    if lot % 4 < 2:
        yield Click(event_id=event_id(1), ts=begin + (1_100 if lot % 8 == 0 else 3_000), **named)
    if lot % 8 in (0, 5):  # a double click, and a producer that sends a record again
        yield Click(event_id=event_id(2), ts=begin + 4_000, **named)
        yield Click(event_id=event_id(2), ts=begin + 4_000, **named)
    if lot % 3 == 0:
        fields = names if lot % 2 else named
        yield Cart(event_id=event_id(3), ts=begin + PURCHASE_MS // 2, **fields)
        yield Purchase(event_id=event_id(4), ts=begin + PURCHASE_MS, price=9.95, quantity=1 + lot % 2, **fields)
    if lot % 16 == 4:  # out of order: before the click that is known already
        yield Click(event_id=event_id(5), ts=begin + 2_000, **named)
    if lot % 32 == 7:
        yield Click(event_id=event_id(6), ts=begin + 3_000, **{**named, "decision_id": f"{decision_id}0"})
