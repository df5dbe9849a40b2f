"""Codecs: records of every compression are read by the worker, its restore, the catalogue feed and the tools."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import CATALOGUE, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.settings import environment_of
from tests.integration.event_log import BEGAN
from tests.integration.live import ROOT, Installation, installation

pytestmark = pytest.mark.kafka

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
EVENTS_SENT = 60  # a batch large enough that clients really compress it


async def set_topic_codec(live: Installation, codec: str) -> None:
    """Let the broker store snapshots in a codec, as a cluster's policy does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=live.settings.kafka.bootstrap_servers)
    await admin.start()
    try:
        name = live.settings.kafka.topic(SNAPSHOTS.name)
        configs = {"compression.type": "uncompressed" if codec == "none" else codec, **SNAPSHOTS.config}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
    finally:
        await admin.close()


async def produce(live: Installation, codec: str, events: range) -> None:
    """Send views of one user and a sold-out item, compressed."""
    kafka = live.settings.kafka
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        compression_type=None if codec == "none" else codec,
        linger_ms=50,
    )
    async with producer:
        sold_out = Item(item_id="item-1", stock=0)
        await producer.send_and_wait(kafka.topic(CATALOGUE.name), encode(sold_out), b"item-1", partition=0)
        for number in events:
            view = View(event_id=f"e{number}", user_id="anna", ts=BEGAN + number * 1_000, item_id=f"item-{number % 7}")
            await producer.send(kafka.topic(EVENTS.name), encode_event(view), b"anna", partition=0)
        await producer.flush()


def decisions(live: Installation) -> list[Recommendation]:
    return [decode_decision(record.value) for record in live.read(RECOMMENDATIONS)[0]]


def clickscore(live: Installation, *arguments: object) -> str:
    """Run a command and return its standard output."""
    command = [sys.executable, "-m", "clickscore.stream", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment_of(live.settings)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_every_codec_are_read_everywhere(codec: str, broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=1) as live:
        asyncio.run(set_topic_codec(live, codec))
        asyncio.run(produce(live, codec, range(EVENTS_SENT)))
        worker = live.start_worker()
        live.wait_decisions(EVENTS_SENT)
        live.wait_finished()
        worker.kill()
        asyncio.run(produce(live, codec, range(EVENTS_SENT, 2 * EVENTS_SENT)))
        live.start_worker().wait_restored()
        live.wait_decisions(2 * EVENTS_SENT)
        lengths = [decision.session_length for decision in decisions(live)]
        assert lengths == list(range(1, 2 * EVENTS_SENT + 1))  # the second worker has the first one's state
        assert all(choice.item_id != "item-1" for decision in decisions(live) for choice in decision.items)

        lines = clickscore(live, "tail", EVENTS.name, "--from-beginning", "--until-end", "--json")
        sent = [record["event_id"] for line in lines.splitlines() if (record := json.loads(line))["type"] == "view"]
        assert sent == [f"e{n}" for n in range(2 * EVENTS_SENT)]
        clickscore(live, "replay", f"kafka:{EVENTS.name}", "--out", tmp_path / "out.jsonl")
        replayed = [decode_decision(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
        assert replayed == decisions(live)
