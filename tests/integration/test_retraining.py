"""Retraining on a real broker: a first bundle, a kill, a better bundle and its ramp, and one run at a time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from clickscore.model.config import format_preset
from clickscore.schemas.erasure import Erased, encode_receipt
from clickscore.schemas.retraining import RetrainingLease
from clickscore.schemas.sessions import ClosedSession, encode_session
from clickscore.schemas.topics import CLOSED_SESSIONS, ERASURE_RECEIPTS
from clickscore.stream.__main__ import cli
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.rollout_log import write_lease
from clickscore.stream.settings import KafkaSettings, environment_of
from tests.integration.live import Installation, installation
from tests.model.builders import TINY, shoppers

pytestmark = [pytest.mark.kafka, pytest.mark.train]

HOUR_MS = 3_600_000


def timed(sessions: Iterable[ClosedSession], first_hour: float, hours: float) -> list[ClosedSession]:
    """Return sessions spread over some hours, a minute long each, with the ids that a worker would give."""
    listed = list(sessions)
    now_ms = int(time.time() * 1000)
    timed_sessions: list[ClosedSession] = []
    for number, session in enumerate(listed):
        opened_at = now_ms + round((first_hour + hours * number / len(listed)) * HOUR_MS)
        events = tuple(
            msgspec.structs.replace(event, ts=opened_at + 1_000 * second) for second, event in enumerate(session.events)
        )
        timed_sessions.append(
            msgspec.structs.replace(
                session,
                id=f"clickstream-events-0-{round(1_000 * (100 + first_hour)) + number}",
                opened_at=opened_at,
                closed_at=events[-1].ts,
                events=events,
            )
        )
    return timed_sessions


async def send(settings: KafkaSettings, topic: str, values: Iterable[bytes]) -> None:
    async with EventSender(settings, topic) as sender:
        for value in values:
            await sender.add(value, b"key", partition=0)


def run(live: Installation, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments], env=environment_of(live.settings))


def rollout_status(live: Installation) -> dict[str, Any]:
    return json.loads(run(live, "rollout", "status", "--json").stdout)


def test_first_bundle_a_kill_and_the_ramp_of_a_better_one(broker: str, tmp_path: Path) -> None:
    preset, folder = tmp_path / "tiny.toml", tmp_path / "runs"
    preset.write_text(format_preset(TINY, "a tiny model"))
    words = ["retrain", "--folder", str(folder), "--preset", str(preset), "--min-sessions", "100"]
    with installation(broker, tmp_path, bundle_store=str(tmp_path / "store")) as live:
        kafka = live.settings.kafka
        first = timed(shoppers(300, items=12), first_hour=-30, hours=20)
        asyncio.run(send(kafka, CLOSED_SESSIONS.name, map(encode_session, first)))
        erased = Erased(event_id="e", user_id="user-7", record_id="clickstream-events-0-999999", ts=1)
        asyncio.run(send(kafka, ERASURE_RECEIPTS.name, [encode_receipt(erased)]))

        # A run that is killed while it trains goes on with the same sessions
        killed = subprocess.Popen(
            [sys.executable, "-m", "clickscore.stream", *words],
            env={**os.environ, **environment_of(live.settings)},
            stderr=subprocess.DEVNULL,
        )
        while not (folder / "run-0001" / "plan.json").is_file():
            assert killed.poll() is None
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        plan = (folder / "run-0001" / "plan.json").read_bytes()
        done = run(live, *words, "--json")
        assert done.exit_code == 0, done.output
        outcome = json.loads(done.stdout)
        assert (folder / "run-0001" / "plan.json").read_bytes() == plan
        assert (outcome["plan"]["method"], outcome["publication"]) == ("train", "store")
        assert outcome["plan"]["training"] + outcome["plan"]["held_out"] < len(first)
        assert run(live, "rollout", "set", outcome["content_hash"][:12]).exit_code == 0

        # Nothing new: no run
        done = run(live, *words)
        assert "too few new sessions" in done.output
        assert not (folder / "run-0002").exists()

        # Items that the champion does not know: the new bundle is better, and its ramp begins
        asyncio.run(send(kafka, CLOSED_SESSIONS.name, map(encode_session, timed(shoppers(900), -8, 8))))
        done = run(live, *words, "--held-out-hours", "2", "--json")
        assert done.exit_code == 0, done.output
        better = json.loads(done.stdout)
        assert (better["plan"]["method"], better["publication"]) == ("top up", "ramp"), better["reason"]
        assert better["plan"]["champion"] == outcome["content_hash"]
        assert better["newest_learned"] < better["plan"]["held_out_from"]
        status = rollout_status(live)
        assert (status["champion"], status["challenger"]) == (outcome["content_hash"], better["content_hash"])
        report = (folder / "run-0002" / "report.md").read_text()
        assert "Its guarded ramp has begun" in report
        assert "not yet" in report

        # Another machine retrains: this one does not begin
        now_ms = int(time.time() * 1000)
        other = RetrainingLease(holder="another", taken_at=now_ms, ends_at=now_ms + 60_000)
        asyncio.run(write_lease(kafka, live.settings.scoring.rollout, other))
        done = run(live, *words)
        assert done.exit_code == 1
        assert "another retraining of this rollout runs" in str(done.exception or done.output)
