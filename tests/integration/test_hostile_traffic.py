"""Hostile traffic at one live worker: a bomb of records, a second partitioner, and a clock that is ahead."""

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS
from clickscore.stream.kafka.partitioner import partition_of
from tests.integration.event_log import BEGAN
from tests.integration.live import Installation, Sent, Worker, installation
from tests.integration.test_worker import metrics

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000
RECORDS, RECORD_BYTES = 50, 2_000_000
"""100 MB, about 100 kB on the wire."""


class Outcome(NamedTuple):
    worker: Worker
    scraped: dict[str, float]
    letters: list[ConsumerRecord]
    peak_kilobytes: int


async def produce_bomb(live: Installation) -> None:
    """Send a small compressed batch of huge records."""
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


def sent(user: str, ts: int, shift: int = 0) -> Sent:
    """Return a view for the user's partition, or for a later partition; a later view is of another item."""
    view = View(event_id=f"{user}-{ts}", user_id=user, ts=ts, item_id="kettle" if ts == BEGAN else "teapot")
    return Sent(encode_event(view), user.encode(), (partition_of(user.encode(), 4) + shift) % 4)


@pytest.fixture(scope="module")
def outcome(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    log = [sent("anna", BEGAN), sent("bert", BEGAN, shift=1), sent("anna", BEGAN + 2 * HOUR_MS), sent("carl", BEGAN)]
    with installation(broker, tmp_path_factory.mktemp("hostile")) as live:
        worker = live.start_worker()
        worker.wait_restored()
        asyncio.run(produce_bomb(live))
        live.produce(log)
        live.wait_finished()
        scraped = metrics(worker)
        letters = live.read(DEAD_LETTERS)[0]
        status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
        live.stop_workers()
    return Outcome(worker, scraped, letters, int(status["VmHWM"].split()[0]))


def test_bomb_costs_bounded_dead_letters(outcome: Outcome) -> None:
    limit = outcome.worker.settings.sessions.max_event_bytes
    assert [len(letter.value) for letter in outcome.letters] == [limit] * RECORDS
    assert all(len(letter.key) == 1024 for letter in outcome.letters)
    assert dict(outcome.letters[0].headers)["cut-from-bytes"] == str(RECORD_BYTES).encode()
    assert dict(outcome.letters[0].headers)["key-cut-from-bytes"] == str(RECORD_BYTES // 100).encode()


def test_bomb_costs_bounded_memory(outcome: Outcome) -> None:
    assert outcome.peak_kilobytes < 500_000


def test_worker_goes_on_behind_a_bomb(outcome: Outcome) -> None:
    assert outcome.scraped['clickscore_events_total{outcome="dead"}'] == RECORDS
    assert outcome.scraped['clickscore_events_total{outcome="decided"}'] == 4


def test_worker_notices_a_second_partitioner(outcome: Outcome) -> None:
    assert outcome.scraped["clickscore_foreign_partition_total"] == 1
    assert "by murmur2 of the user id" in outcome.worker.output
    assert "user bert" not in outcome.worker.output


def test_worker_notices_a_jump_of_the_clock(outcome: Outcome) -> None:
    ahead = {name: value for name, value in outcome.scraped.items() if "watermark_ahead_ms{" in name}
    assert ahead
    assert all(value < 0 for value in ahead.values())
    assert f"event 'anna-{BEGAN + 2 * HOUR_MS}' of the user with the hash" in outcome.worker.output


def test_worker_without_a_model_counts_popular_items(outcome: Outcome) -> None:
    assert outcome.scraped['clickscore_items_total{reason="popular",variant="model"}'] > 0
