"""Relay on a real broker: nothing lost over a kill, each user in the right partition, dead letters, a clean end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, Topic
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings, environment_of

pytestmark = pytest.mark.kafka

CALLS = Topic(name="calls", per_user=True, config={"cleanup.policy": "delete", "max.message.bytes": "1000000"})
CALL_COUNT = 10_000
BROKEN = b'{"type":"track","event":"Product Viewed","userId":"u1"'


def call(number: int) -> bytes:
    """Return a track call of Segment; every fifth is an order of two items without an id of its own."""
    properties = {"product_id": f"p{number}"} if number % 5 else {"products": [{"sku": "a"}, {"sku": "b"}]}
    return json.dumps(
        {
            "event": "Product Viewed" if number % 5 else "Order Completed",
            "userId": f"u{number % 97}",
            "timestamp": "2026-03-01T08:00:00.123Z",
            "properties": properties,
        }
        | ({"messageId": f"m{number}"} if number % 5 else {})
    ).encode()


@pytest.fixture
def source(settings: Settings) -> Iterator[str]:
    """The full name of a topic of another system."""
    asyncio.run(create_topics(settings.kafka, [CALLS]))
    yield settings.kafka.topic(CALLS.name)
    asyncio.run(delete_topics(settings.kafka, [CALLS]))


async def fill(settings: Settings, source: str) -> None:
    """Send calls, without a key; one in a transaction that is aborted; and records that cannot be mapped."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=20)
    async with producer:
        sends = [await producer.send(source, call(number), partition=number % 4) for number in range(CALL_COUNT)]
        sends.append(await producer.send(source, BROKEN, b"k", partition=2))
        sends.append(await producer.send(source, b'{"event":"Signed Up","userId":"u1"}', partition=0))
        await asyncio.gather(*sends)
    kafka = settings.kafka
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{source}-aborted")
    async with producer:
        await producer.begin_transaction()
        await producer.send_and_wait(source, call(1).replace(b'"m1"', b'"ghost"'), partition=0)
        await producer.abort_transaction()


async def read(settings: Settings, topic: str, partitions: int = 4) -> list[ConsumerRecord]:
    """Return all records of a topic of the installation."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        assigned = [TopicPartition(settings.kafka.topic(topic), partition) for partition in range(partitions)]
        consumer.assign(assigned)
        ends = await consumer.end_offsets(assigned)
        records: list[ConsumerRecord] = []
        while len(records) < sum(ends.values()):
            for fetched in (await asyncio.wait_for(consumer.getmany(timeout_ms=500), 30)).values():
                records.extend(fetched)
    return records


async def count(settings: Settings, topic: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers)
    async with consumer:
        partitions = [TopicPartition(settings.kafka.topic(topic), partition) for partition in range(4)]
        return sum((await consumer.end_offsets(partitions)).values())


def start(settings: Settings, source: str, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "clickscore.stream", "relay", "--from-topic", source, "--format", "segment"]
    with log.open("ab") as file:
        return subprocess.Popen(
            command, env={**os.environ, **environment_of(settings)}, stdout=file, stderr=subprocess.STDOUT
        )


def wait_count(settings: Settings, topic: str, least: int) -> int:
    """Return the number of records of a topic once it has as many as wanted."""
    deadline = time.monotonic() + 60
    while (records := asyncio.run(count(settings, topic))) < least:
        assert time.monotonic() < deadline, f"{topic} has {records} records"
        time.sleep(0.05)
    return records


def test_relay_that_is_killed_loses_nothing_and_repeats_with_the_same_ids(
    settings: Settings, source: str, tmp_path: Path
) -> None:
    asyncio.run(fill(settings, source))
    first = start(settings, source, tmp_path / "first.log")
    relayed = wait_count(settings, EVENTS.name, 1)
    first.kill()
    first.wait()
    assert relayed < CALL_COUNT
    second = start(settings, source, tmp_path / "second.log")
    expected = {f"m{number}" for number in range(CALL_COUNT) if number % 5} | {
        f"{source}-{number % 4}-{number // 4}-{position}" for number in range(0, CALL_COUNT, 5) for position in (0, 1)
    }
    wait_count(settings, DEAD_LETTERS.name, 1)
    wait_count(settings, EVENTS.name, len(expected))
    time.sleep(1)  # the last batch
    second.send_signal(signal.SIGINT)
    assert second.wait(20) == 0
    text = (tmp_path / "second.log").read_text()
    assert f"to {settings.kafka.topic(EVENTS.name)}, ignored 1, 1 dead letters" in text
    assert "(offset 2500)" in text

    records = asyncio.run(read(settings, EVENTS.name))
    values: dict[str, bytes] = {}
    for record in records:
        assert record.value is not None
        assert record.key is not None
        event = decode_record(record.value)
        assert record.key == event.user_id.encode()  # type: ignore[union-attr]
        assert record.partition == partition_of(record.key, 4)
        assert values.setdefault(event.event_id, record.value) == record.value  # type: ignore[union-attr]
    assert set(values) == expected
    (letter,) = asyncio.run(read(settings, DEAD_LETTERS.name))
    headers = dict(letter.headers)
    assert (letter.value, letter.key, headers["topic"]) == (BROKEN, b"k", source.encode())
    assert b"no JSON object" in headers["error"]


def test_relay_stops_with_a_sentence_when_the_topic_of_events_grows(
    settings: Settings, source: str, tmp_path: Path
) -> None:
    async def grow_and_send() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        await admin.start()
        await admin.create_partitions({settings.kafka.topic(EVENTS.name): NewPartitions(6)})
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
        async with producer:
            while process.poll() is None:
                await producer.send_and_wait(source, call(1), partition=0)
                await asyncio.sleep(0.5)

    process = start(settings, source, tmp_path / "relay.log")
    deadline = time.monotonic() + 30
    while "Ctrl-C ends it" not in (tmp_path / "relay.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asyncio.run(asyncio.wait_for(grow_and_send(), 30))
    assert process.wait() == 1
    assert (
        "had 4 partitions at the start and has 6 now: start the command again" in (tmp_path / "relay.log").read_text()
    )
