"""Schema registry: Avro and Protobuf records of a real topic become events, and a replay reads the same events."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, RECOMMENDATIONS, Topic
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import environment_of
from tests.integration.live import ROOT, Installation, installation
from tests.registry_stub import RegistryStub
from tests.stream.event_files.test_registered_records import AVRO, EVENT, avro, framed, protobuf_payload, shop_file

pytestmark = pytest.mark.kafka

SOURCE = Topic(name="shop-records", per_user=True, config={"cleanup.policy": "delete", "max.message.bytes": "1000000"})


@pytest.fixture
def registry() -> Iterator[RegistryStub]:
    stub = RegistryStub()
    stub.add_avro(7, AVRO)
    stub.add_protobuf(9, "shop", shop_file().SerializeToString())
    yield stub
    stub.close()


async def produce(live: Installation) -> None:
    """Send ten records of Avro, ten of Protobuf, and one of an unknown schema."""
    kafka = live.settings.kafka
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(10):
            names = {"event_id": f"a{number}", "user_id": f"user-{number}"}
            await producer.send(kafka.topic(SOURCE.name), framed(7, avro(AVRO, EVENT | names)))
            names = {"event_id": f"p{number}", "user_id": f"user-{number}"}
            await producer.send(kafka.topic(SOURCE.name), framed(9, protobuf_payload(**names)))
        await producer.send(kafka.topic(SOURCE.name), framed(11, b"x"))
        await producer.flush()


def test_replay_reads_the_events_of_a_registry_without_the_registry(
    broker: str, tmp_path: Path, registry: RegistryStub
) -> None:
    with installation(broker, tmp_path) as live:
        kafka = live.settings.kafka
        asyncio.run(create_topics(kafka, [SOURCE]))
        try:
            worker = live.start_worker()
            asyncio.run(produce(live))
            environment = {**os.environ, **environment_of(live.settings)}
            command = [sys.executable, "-m", "clickscore.stream"]
            options = ["--from-topic", kafka.topic(SOURCE.name), "--format", "shop-events"]
            relay = subprocess.Popen(
                [*command, "relay", *options, "--schema-registry", registry.url], cwd=ROOT, env=environment
            )
            try:
                live.wait_decisions(20)
            finally:
                relay.terminate()
                relay.wait()
            live.wait_finished()
            worker.stop()
            registry.close()
            letters = [record for records in live.read(DEAD_LETTERS).values() for record in records]
            assert [dict(letter.headers)["error"] for letter in letters] == [
                b"schema id 11: the registry does not know the schema id"
            ]
            events = {json.loads(record.value)["event_id"] for record in live.events()}
            assert events == {f"{kind}{number}" for kind in "ap" for number in range(10)}

            out = tmp_path / "replayed.jsonl"
            source = f"kafka:{EVENTS.name}"
            subprocess.run([*command, "replay", source, "--out", str(out)], cwd=ROOT, env=environment, check=True)
            published = [record.value for records in live.read(RECOMMENDATIONS).values() for record in records]
            replayed = out.read_bytes().splitlines()
            assert sorted(replayed) == sorted(published)
            assert {decode_decision(value).event_id for value in replayed} == events
        finally:
            asyncio.run(delete_topics(kafka, [SOURCE]))
