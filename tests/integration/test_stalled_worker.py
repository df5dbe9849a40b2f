"""Stalled worker: snapshots that another producer writes late are repaired while the worker keeps the partition."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.open_decisions import ledger_key
from clickscore.schemas.snapshots import PARTITION_KEY
from clickscore.schemas.topics import SNAPSHOTS
from tests.integration.comparison import stale_keys
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import Installation, installation

pytestmark = pytest.mark.kafka

USERS = [f"user-{number}" for number in range(8)]
REPAIR_S = 60


def views(second: int) -> list[Sent]:
    return [
        Sent(
            encode_event(View(event_id=f"{user}-{second}", user_id=user, ts=BEGAN + second * 1_000, item_id="kettle")),
            user.encode(),
        )
        for user in USERS
    ]


def other_views(partitions: set[int]) -> list[Sent]:
    """Return an event of another user for each partition."""
    return [
        Sent(encode_event(View(event_id=f"n-{p}", user_id=f"n-{p}", ts=BEGAN + 2_000, item_id="mug")), b"", p)
        for p in sorted(partitions)
    ]


async def write_late(live: Installation, records: Sequence[ConsumerRecord]) -> None:
    """Write records of the changelog once more, as a stalled worker that wakes up."""
    async with AIOKafkaProducer(bootstrap_servers=live.settings.kafka.bootstrap_servers) as producer:
        for record in records:
            await producer.send_and_wait(record.topic, record.value, record.key, partition=record.partition)


def test_older_snapshots_between_two_writes_are_written_over_within_seconds(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path) as live:
        worker = live.start_worker()
        live.produce(views(0))
        live.wait_finished()
        older = [record for records in live.read(SNAPSHOTS).values() for record in records]
        live.produce(views(1))
        live.wait_finished()
        asyncio.run(write_late(live, [record for record in older if record.key != PARTITION_KEY]))
        stale = sorted(key for records in live.read(SNAPSHOTS).values() for key in stale_keys(records))
        assert stale == sorted(key.encode() for user in USERS for key in (user, ledger_key(user)))
        partitions = {record.partition for record in older}
        live.produce(other_views(partitions))
        deadline = time.monotonic() + REPAIR_S
        while stale := [key for records in live.read(SNAPSHOTS).values() for key in stale_keys(records)]:
            assert time.monotonic() < deadline, f"still stale: {stale}\n{worker.output}"
            time.sleep(0.2)
        assert "another worker wrote" in worker.output
        worker.stop()
