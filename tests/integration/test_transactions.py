"""Transactions: events of an aborted transaction are never seen, and a transaction's marker is no event that waits."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import AnyEvent, Purchase, View, encode_event
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import environment_of
from tests.integration.event_log import BEGAN
from tests.integration.live import ROOT, Installation, installation
from tests.integration.test_changed_topics import delete_records

pytestmark = pytest.mark.kafka


def view(event_id: str, second: int) -> View:
    return View(event_id=event_id, user_id="anna", ts=BEGAN + second * 1_000, item_id=f"item-{event_id}")


ABORTED = Purchase(event_id="t2", user_id="anna", ts=BEGAN + 2_000, item_id="ghost", price=1.0)


async def send_transactions(live: Installation, *transactions: tuple[AnyEvent, bool]) -> None:
    """Send each event in a transaction of its own, which is committed or aborted."""
    kafka = live.settings.kafka
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{kafka.topic_prefix}producer"
    )
    async with producer:
        for event, commits in transactions:
            await producer.begin_transaction()
            await producer.send_and_wait(kafka.topic(EVENTS.name), encode_event(event), b"anna", partition=0)
            await (producer.commit_transaction() if commits else producer.abort_transaction())


def decisions(live: Installation) -> list[Recommendation]:
    return [decode_decision(record.value) for record in live.read(RECOMMENDATIONS)[0]]


def replay(live: Installation, out: Path) -> list[Recommendation]:
    command = [sys.executable, "-m", "clickscore.stream", "replay", f"kafka:{EVENTS.name}", "--out", str(out)]
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment_of(live.settings)},
        check=True,
        timeout=60,
        capture_output=True,
    )
    return [decode_decision(line) for line in out.read_bytes().splitlines()]


def test_aborted_purchase_is_not_decided_on_and_not_remembered(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=1) as live:
        asyncio.run(send_transactions(live, (view("t1", 1), True), (ABORTED, False), (view("t3", 3), True)))
        live.start_worker()
        live.wait_decisions(2)
        live.workers[0].wait_health(lambda health: health.get("lag") == 0 and health["last_batch_age_s"] is not None)
        assert [(decision.event_id, decision.session_length) for decision in decisions(live)] == [("t1", 1), ("t3", 2)]
        assert "bought" not in decisions(live)[1].filtered
        assert replay(live, tmp_path / "out.jsonl") == decisions(live)


def test_aborted_transaction_at_the_end_leaves_no_lag_and_hides_no_later_event(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=1) as live:
        asyncio.run(send_transactions(live, (view("t1", 1), True), (ABORTED, False)))
        worker = live.start_worker()
        live.wait_decisions(1)
        worker.wait_health(lambda health: health.get("lag") == 0 and health["last_batch_age_s"] is not None)
        assert len(replay(live, tmp_path / "out.jsonl")) == 1
        asyncio.run(send_transactions(live, (view("t3", 3), True)))
        live.wait_decisions(2)
        worker.wait_health(lambda health: health["lag"] == 0)
        worker.stop()
        restarted = live.start_worker()
        restarted.wait_restored()
        restarted.wait_health(lambda health: health["lag"] == 0)


def test_marker_behind_the_last_event_is_no_loss_when_retention_has_emptied_the_log(
    broker: str, tmp_path: Path
) -> None:
    with installation(broker, tmp_path, partitions=1) as live:
        asyncio.run(send_transactions(live, (view("t1", 1), True), (ABORTED, False)))
        first = live.start_worker()
        live.wait_finished()  # the markers and the aborted event are committed, too
        first.stop()
        asyncio.run(delete_records(live, before=4))
        second = live.start_worker()
        second.wait_restored()
        assert second.health()["lost"] == 0
        assert " are lost" not in second.output


def test_setting_reads_uncommitted_records(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=1, isolation_level="read_uncommitted") as live:
        asyncio.run(send_transactions(live, (view("t1", 1), True), (ABORTED, False), (view("t3", 3), True)))
        live.start_worker()
        live.wait_decisions(3)
        assert [decision.event_id for decision in decisions(live)] == ["t1", "t2", "t3"]
        assert len(replay(live, tmp_path / "out.jsonl")) == 3
