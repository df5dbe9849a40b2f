"""Records of the topics, as a console reads them."""

import json
from typing import Any

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import Ad, Because, Choice, Recommendation, SoldSlot, encode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import encode_event
from clickscore.schemas.leases import BudgetLease, CampaignLease, CampaignSpend, SpendReport
from clickscore.schemas.outcomes import AdCharge, DecisionOutcome, LineOutcome, encode_outcome
from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CAMPAIGNS,
    CATALOGUE,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    EVENTS,
    RECOMMENDATIONS,
)
from clickscore.stream.console.console_state import LogRecord

START_MS = 1_767_605_400_000
HEADERS = {"scored": b'{"worker":"w-1","at":1,"took_ms":4.0}'}


def log_id(offset: int) -> str:
    return f"clickstream-events-0-{offset}"


def record(
    topic: str, offset: int, value: bytes, headers: dict[str, bytes] | None = None, key: bytes = b""
) -> LogRecord:
    return LogRecord(topic, f"{topic}-0-{offset}", 0, key, value, headers or {}, START_MS + offset)


def event(offset: int, user_id: str = "anna", kind: str = "view", **changes: Any) -> LogRecord:
    fields = {"type": kind, "event_id": f"e{offset}", "user_id": user_id, "ts": START_MS + offset, "item_id": "cup"}
    return record(EVENTS.name, offset, json.dumps(fields | changes).encode())


def decision(
    offset: int, user_id: str = "anna", variant: str = "model", items: tuple[str, ...] = ("pot",), **changes: Any
) -> LogRecord:
    because = (Because(item_id="cup", action="view", contribution=0.5),)
    value = Recommendation(
        **{
            "decision_id": log_id(offset),
            "user_id": user_id,
            "event_id": f"e{offset}",
            "ts": START_MS + offset,
            "bundle": "3f9ac2",
            "policy": "default-1@abc",
            "variant": variant,
            "session_id": "s1",
            "session_length": 2,
            "late": False,
            "actions": {"view": 0.7, "leave": 0.3},
            "purchase": 0.125,
            "items": tuple(
                Choice(item_id=item, score=1.5, propensity=1.0, reason="model", because=because) for item in items
            ),
            "filtered": {"stock": 3},
            **changes,
        }
    )
    return record(RECOMMENDATIONS.name, offset, encode_decision(value), HEADERS)


def ad(offset: int, user_id: str = "anna", unit: Any = "click", price: float = 0.5) -> LogRecord:
    slot = SoldSlot(
        placement="beside",
        slot=0,
        position=None,
        campaign_id="spring",
        item_id="jug",
        bid=0.75,
        bid_per=unit,
        probability=0.1,
        quality=0.9,
        exposure=1.0,
        price=price,
        runner_up="autumn",
    )
    value = Ad(
        decision_id=f"{log_id(offset)}-ad",
        user_id=user_id,
        event_id=f"e{offset}",
        ts=START_MS + offset,
        bundle="3f9ac2",
        policy="default-1@abc",
        variant="model",
        session_id="s1",
        campaign_id="spring",
        item_id="jug",
        bid=0.75,
        purchase=0.125,
        propensity=1.0,
        reason="won",
        slots=(slot,),
    )
    return record(ADS.name, offset, encode_decision(value))


def charge(offset: int, net: float, gross: float = 0.5, reason: Any = "charged") -> LogRecord:
    value = AdCharge(
        charge_id=f"{log_id(0)}/0/{offset}",
        campaign_id="spring",
        decision_id=log_id(0),
        slot=0,
        placement="beside",
        bid_per="click",
        ts=START_MS,
        gross=gross,
        net=net,
        reason=reason,
    )
    return record(AD_CHARGES.name, offset, encode_outcome(value))


def outcome(offset: int, *lines: LineOutcome, user_id: str = "anna", revision: int = 0) -> LogRecord:
    value = DecisionOutcome(
        decision_id=log_id(offset), user_id=user_id, ts=START_MS, variant="model", revision=revision, lines=lines
    )
    return record(DECISION_OUTCOMES.name, offset, encode_outcome(value))


def item(item_id: str, title: str, **changes: Any) -> LogRecord:
    value = Item(item_id=item_id, title=title, category="Tea", brand="Lumi", price=12.5, **changes)
    return record(CATALOGUE.name, 0, encode(value), key=item_id.encode())


def campaign(campaign_id: str, daily_budget: float) -> LogRecord:
    value = Campaign(campaign_id=campaign_id, item_id="jug", bid=0.75, daily_budget=daily_budget)
    return record(CAMPAIGNS.name, 0, encode(value), key=campaign_id.encode())


def spend_report(offset: int, campaign_id: str, spent: int, limit: int = 0, lease: int = 0) -> LogRecord:
    value = SpendReport(
        ts=START_MS + offset,
        partition=0,
        number=offset + 1,
        day=START_MS // DAY_MS,
        lease=lease,
        campaigns=(CampaignSpend(campaign_id, limit, spent, 0, 1),),
    )
    return record(EVENTS.name, offset, encode_event(value))


def lease(offset: int, campaign_id: str, limit: int, multiplier: float) -> LogRecord:
    value = BudgetLease(
        ts=START_MS + offset,
        number=1,
        day=START_MS // DAY_MS,
        ends_at=START_MS + offset + 600_000,
        campaigns=(CampaignLease(campaign_id, limit, multiplier),),
    )
    return record(EVENTS.name, offset, encode_event(value))


def dead_letter(offset: int, error: str, value: bytes = b"{") -> LogRecord:
    headers = {"topic": b"clickstream-events", "partition": b"0", "offset": b"%d" % offset, "error": error.encode()}
    return record(DEAD_LETTERS.name, offset, value, headers)
