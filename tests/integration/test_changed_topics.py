"""Changed topics: lost events are reported; a topic that grows or is made anew stops a running worker in words."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, TOPICS
from clickscore.stream.__main__ import cli
from clickscore.stream.kafka.log_reader import open_reader
from clickscore.stream.kafka.topics import check_topics, create_topics, delete_topics, list_topics
from clickscore.stream.settings import environment_of
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import Installation, installation
from tests.integration.test_worker import metrics

pytestmark = pytest.mark.kafka

NOTICE_S = 20
"""The worker looks every 3 s and looks twice; a busy machine takes longer."""


def views(count: int, first: int = 0) -> list[Sent]:
    """Return events of one user each, in partition 0."""
    return [
        Sent(
            encode_event(View(event_id=f"e-{n}", user_id=f"u-{n}", ts=BEGAN + n * 1_000, item_id="kettle")),
            f"u-{n}".encode(),
            0,
        )
        for n in range(first, first + count)
    ]


async def limit_records(live: Installation, max_bytes: int) -> None:
    """Let the topic of events refuse larger records; send an event of now before."""
    kafka = live.settings.kafka
    now = View(event_id="now", user_id="now", ts=int(time.time() * 1_000), item_id="kettle")
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(kafka.topic(EVENTS.name), encode_event(now), b"now", partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        limit = {"max.message.bytes": str(max_bytes)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic(EVENTS.name), configs=limit)])
    finally:
        await admin.close()


@pytest.fixture
def live(broker: str, tmp_path: Path) -> Iterator[Installation]:
    with installation(broker, tmp_path, partitions=2, tick_after_ms=0) as running:
        yield running


async def delete_records(live: Installation, before: int) -> None:
    """Remove the events of partition 0 before an offset, as retention does."""
    kafka = live.settings.kafka
    tp = TopicPartition(kafka.topic(EVENTS.name), 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before)})
    finally:
        await admin.close()
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        while (await consumer.beginning_offsets([tp]))[tp] < before:  # noqa: ASYNC110 (the broker sets no event)
            await asyncio.sleep(0.05)


def test_events_that_retention_took_are_reported(live: Installation) -> None:
    live.produce(views(10))
    first = live.start_worker()
    end = live.wait_settled()[0]
    first.stop()
    live.produce(views(30, first=10))
    asyncio.run(delete_records(live, before=end + 15))
    second = live.start_worker()
    live.wait_finished()
    line = f"{live.settings.kafka.topic(EVENTS.name)}-0: offsets {end} to {end + 14} are lost, 15 in all"
    assert line in second.output
    assert second.health()["lost"] == 15
    assert metrics(second)['clickscore_events_total{outcome="lost"}'] == 15
    second.stop()
    assert len(live.read(RECOMMENDATIONS)[0]) == 25


def test_offset_that_is_reset_under_a_running_worker_is_a_loss_and_no_end(live: Installation) -> None:
    live.produce(views(10))
    worker = live.start_worker(session_timeout_ms=30_000)
    end = live.wait_settled()[0]
    worker.signal(signal.SIGSTOP)
    time.sleep(1)  # the broker answers the fetch that is under way, which could bring the events before they are gone
    live.produce(views(30, first=10))
    asyncio.run(delete_records(live, before=end + 15))
    worker.signal(signal.SIGCONT)
    live.wait_finished()
    assert len(live.read(RECOMMENDATIONS)[0]) == 25
    assert (
        f"{live.settings.kafka.topic(EVENTS.name)}-0: offsets {end} to {end + 14} are lost, 15 in all" in worker.output
    )
    assert "Traceback" not in worker.output
    worker.stop()


def test_tick_that_the_topic_refuses_does_not_end_the_worker(live: Installation) -> None:
    worker = live.start_worker(tick_after_ms=1_000)
    worker.wait_restored()
    asyncio.run(limit_records(live, max_bytes=10))
    deadline = time.monotonic() + NOTICE_S
    while not metrics(worker).get("clickscore_failed_ticks_total"):
        assert time.monotonic() < deadline, worker.output
        time.sleep(0.2)
    assert "no tick can be written into" in worker.output
    assert "Traceback" not in worker.output
    worker.stop()


def test_topic_that_was_made_anew_stops_a_running_worker(live: Installation) -> None:
    live.produce(views(10))
    worker = live.start_worker()
    live.wait_finished()
    asyncio.run(delete_topics(live.settings.kafka, [EVENTS]))
    asyncio.run(create_topics(live.settings.kafka))
    live.produce(views(20))
    assert worker.wait(NOTICE_S) == 1
    last = worker.output.splitlines()[-1]
    assert "the topic was deleted and created again" in last
    assert "Traceback" not in worker.output


def test_worker_refuses_the_state_of_an_earlier_topic_that_was_shorter(live: Installation) -> None:
    live.produce(views(10))
    live.start_worker()
    live.wait_finished()
    live.stop_workers()
    asyncio.run(delete_topics(live.settings.kafka, [EVENTS]))
    asyncio.run(create_topics(live.settings.kafka))
    live.produce(views(20))
    worker = live.start_worker()
    assert worker.wait(NOTICE_S) == 1
    assert "the topic was deleted and created again" in worker.output.splitlines()[-1]


def test_running_worker_notices_partitions_and_serves_them_after_a_start(live: Installation) -> None:
    live.produce(views(10))
    worker = live.start_worker()
    live.wait_finished()
    result = CliRunner().invoke(
        cli, ["topics", "grow", "--partitions", "3"], env=environment_of(live.settings), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    grown_at = time.monotonic()
    assert worker.wait(NOTICE_S) == 1
    assert time.monotonic() - grown_at < NOTICE_S
    assert "has grown from 2 to 3 partitions. Start the worker again" in worker.output.splitlines()[-1]
    assert "Traceback" not in worker.output
    counts = asyncio.run(list_topics(live.settings.kafka))
    assert {counts[live.settings.kafka.topic(topic.name)] for topic in TOPICS if topic.per_user} == {3}
    assert asyncio.run(check_topics(live.settings.kafka)) == 3
    again = live.start_worker()
    again.wait_health(lambda health: health.get("restored") and health["partitions"] == [0, 1, 2])
    assert again.health()["users"] == 10
    again.stop()


def test_partitions_without_a_worker_are_known(live: Installation) -> None:
    live.produce(views(5))
    topic, group = live.settings.kafka.topic(EVENTS.name), live.settings.worker.group

    async def look() -> tuple[set[int] | None, dict[TopicPartition, int]]:
        async with open_reader(live.settings.kafka) as reader:
            partitions = [TopicPartition(topic, number) for number in range(2)]
            return await reader.served_partitions(group, topic), await reader.committed_offsets(group, partitions)

    assert asyncio.run(look()) == (None, {})
    worker = live.start_worker()
    live.wait_finished()
    committed = {TopicPartition(topic, partition): offset for partition, offset in live.committed().items()}
    assert committed[TopicPartition(topic, 0)] >= 5  # the views, and epochs of the worker
    assert asyncio.run(look()) == ({0, 1}, committed)
    assert worker.health()["unserved"] == []
    worker.stop()


def test_description_of_a_topic_has_its_partitions_and_its_id(live: Installation) -> None:
    async def run() -> None:
        async with open_reader(live.settings.kafka) as reader:
            description = await reader.describe(live.settings.kafka.topic(EVENTS.name))
            assert (description.partitions, len(description.topic_id)) == (2, 32)
            assert await reader.describe("no-such-topic") == (0, "")

    asyncio.run(run())
