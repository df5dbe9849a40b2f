"""Budgets on a real broker: a worker with leases is killed, and its budget is used up by another, and not exceeded."""

import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.schemas.events import Click, Impression, decode_record, encode_event
from clickscore.schemas.leases import BudgetLease
from clickscore.schemas.outcomes import decode_charge
from clickscore.schemas.topics import AD_CHARGES, ADS, EVENTS
from clickscore.stream.__main__ import cli
from tests.events import MINUTE, START, view
from tests.integration.event_log import Sent
from tests.integration.live import Installation, installation

pytestmark = pytest.mark.kafka

BUDGET = 2.0
USERS = [f"user-{number}" for number in range(8)]


def ads_of(shop: Installation) -> dict[str, Ad]:
    """Return the newest decision on ads of each user."""
    decisions = [decode_decision(record.value or b"") for records in shop.read(ADS).values() for record in records]
    newest = sorted((ad for ad in decisions if isinstance(ad, Ad)), key=lambda ad: ad.ts)
    return {ad.user_id: ad for ad in newest}


def round_of_clicks(shop: Installation, minute: float) -> set[str | None]:
    """Let every user view an item, see the ad and click it; return the shown campaigns."""
    shop.produce([Sent(encode_event(view(user, minute)), user.encode()) for user in USERS])
    shop.wait_finished()
    log: list[Sent] = []
    shown: set[str | None] = set()
    for user, ad in ads_of(shop).items():
        shown.add(ad.campaign_id)
        names: dict[str, Any] = {"decision_id": ad.decision_id, "campaign_id": ad.campaign_id, "item_id": ad.item_id}
        if ad.campaign_id is not None:
            ts = START + round((minute + 0.4) * MINUTE)
            clicked = Click(event_id=f"{user}-{ts}", user_id=user, ts=ts, **names)
            log += [Sent(_impression(user, minute, names), user.encode()), Sent(encode_event(clicked), user.encode())]
    shop.produce(log)
    shop.wait_finished()
    return shown


def _impression(user: str, minute: float, names: dict[str, Any]) -> bytes:
    ts = START + round((minute + 0.1) * MINUTE)
    return encode_event(Impression(event_id=f"{user}-{ts}-seen", user_id=user, ts=ts, **names))


def test_budget_is_kept_though_a_worker_is_killed(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=2) as shop:
        tea = Campaign(campaign_id="tea", item_id="ad", bid=1.0, daily_budget=BUDGET, pacing="asap")
        rival = Campaign(campaign_id="house", item_id="house-ad", bid=0.5)
        shop.fill_catalogue([Item(item_id="ad"), Item(item_id="house-ad")], [tea, rival])
        first = shop.start_worker()
        shop.wait_settled()
        assert round_of_clicks(shop, 0) == {"house"}  # no lease yet
        round_of_clicks(shop, 1.5)
        first.signal(signal.SIGKILL)
        shop.start_worker()
        shown = [round_of_clicks(shop, minute) for minute in (3, 4.5, 6)]
        assert shown[-1] == {"house"}
        charges = [
            decode_charge(record.value or b"") for records in shop.read(AD_CHARGES).values() for record in records
        ]
        paid = {charge.charge_id: charge.net for charge in charges if charge.campaign_id == "tea"}
        assert sum(paid.values()) == pytest.approx(BUDGET, abs=1e-9)
        logs = [decode_record(record.value or b"") for records in shop.read(EVENTS).values() for record in records]
        assert any(isinstance(record, BudgetLease) for record in logs)

        flags = ["--bootstrap-servers", broker, "--topic-prefix", shop.settings.kafka.topic_prefix]
        checked = CliRunner().invoke(
            cli, ["replay", "kafka:clickstream-events", "--check", "kafka:ad-decisions", *flags]
        )
        assert checked.exit_code == 0, checked.output
