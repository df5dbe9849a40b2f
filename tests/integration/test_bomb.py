"""Bomb: a small record batch that unpacks to a gigabyte costs dead letters of bounded size, and the worker goes on."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from aiokafka import AIOKafkaProducer

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import environment_of
from tests.integration.event_log import BEGAN
from tests.integration.live import ROOT, Installation, Sent, installation
from tests.integration.test_worker import metrics
from tests.record_batches import RECORD_BYTES, RECORDS, batch_of, gigabyte

pytestmark = pytest.mark.kafka

ZSTD = 4
KEY = b"k" * 5_000


async def produce_bomb(live: Installation) -> None:
    kafka = live.settings.kafka
    batch_bytes = batch_of(ZSTD, gigabyte(zstandard.ZstdCompressor(1).compressobj(), KEY), RECORDS)
    assert len(batch_bytes) < 1_000_000
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, request_timeout_ms=60_000) as producer:
        batch = producer.create_batch()
        batch._buffer, batch._relative_offset, batch._closed = batch_bytes, RECORDS, True
        await (await producer.send_batch(batch, kafka.topic(EVENTS.name), partition=0))


def replay(live: Installation, out: Path) -> str:
    """Replay the topic into a file, and return the output of the command."""
    command = [sys.executable, "-m", "clickscore.stream", "replay", f"kafka:{EVENTS.name}", "--out", str(out)]
    environment = {**os.environ, **environment_of(live.settings)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, capture_output=True, text=True)
    return done.stderr + done.stdout


def test_bomb_costs_bounded_dead_letters_and_memory(broker: str, tmp_path: Path) -> None:
    view = encode_event(View(event_id="after", user_id="anna", ts=BEGAN, item_id="item-1"))
    with installation(broker, tmp_path, partitions=1, tick_after_ms=0) as live:
        worker = live.start_worker()
        worker.wait_restored()
        asyncio.run(produce_bomb(live))
        live.produce([Sent(view, b"anna", 0)])
        live.wait_finished()
        letters = live.read(DEAD_LETTERS)[0]
        decisions = [record.value for record in live.read(RECOMMENDATIONS)[0]]
        outcomes = metrics(worker)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
        live.stop_workers()
        replay(live, tmp_path / "out.jsonl")
    assert [decode_decision(decision).event_id for decision in decisions] == ["after"]
    assert (tmp_path / "out.jsonl").read_bytes().splitlines() == decisions
    limit = live.settings.sessions.max_event_bytes
    assert [len(letter.value) for letter in letters] == [limit] * RECORDS
    assert {letter.key for letter in letters} == {KEY[:1024]}
    headers = [dict(letter.headers) for letter in letters]
    assert [int(header["offset"]) for header in headers] == list(range(RECORDS))
    assert {(header["cut-from-bytes"], header["key-cut-from-bytes"]) for header in headers} == {
        (str(RECORD_BYTES).encode(), str(len(KEY)).encode())
    }
    assert outcomes['clickscore_events_total{outcome="dead"}'] == RECORDS
    assert outcomes['clickscore_events_total{outcome="decided"}'] == 1
    assert int(status["VmHWM"].split()[0]) < 500_000
