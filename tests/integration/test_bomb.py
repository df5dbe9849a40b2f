"""Bomb: a small compressed batch of huge records costs dead letters of bounded size, and the worker goes on."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS
from tests.integration.event_log import BEGAN
from tests.integration.live import Installation, Sent, installation

pytestmark = pytest.mark.kafka

RECORDS, RECORD_BYTES = 50, 2_000_000
"""100 MB, about 100 kB on the wire."""


async def produce_bomb(live: Installation) -> None:
    size = RECORDS * RECORD_BYTES * 2
    kafka = live.settings.kafka
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, compression_type="gzip", max_batch_size=size, max_request_size=size
    )
    async with producer:
        batch = producer.create_batch()
        for _ in range(RECORDS):
            assert batch.append(timestamp=None, key=bytes(RECORD_BYTES // 100), value=bytes(RECORD_BYTES)) is not None
        await (await producer.send_batch(batch, kafka.topic(EVENTS.name), partition=0))


def test_bomb_costs_bounded_dead_letters_and_memory(broker: str, tmp_path: Path) -> None:
    view = encode_event(View(event_id="after", user_id="anna", ts=BEGAN, item_id="item-1"))
    with installation(broker, tmp_path) as live:
        worker = live.start_worker()
        worker.wait_restored()
        asyncio.run(produce_bomb(live))
        live.produce([Sent(view, b"anna", 0)])
        live.wait_finished()
        live.wait_decisions(1)
        letters = live.read(DEAD_LETTERS)[0]
        status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
        live.stop_workers()
    limit = live.settings.sessions.max_event_bytes
    assert [len(letter.value) for letter in letters] == [limit] * RECORDS
    assert all(len(letter.key) == 1024 for letter in letters)
    assert dict(letters[0].headers)["cut-from-bytes"] == str(RECORD_BYTES).encode()
    assert dict(letters[0].headers)["key-cut-from-bytes"] == str(RECORD_BYTES // 100).encode()
    assert int(status["VmHWM"].split()[0]) < 500_000
