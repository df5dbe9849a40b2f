"""Changed topics: lost events are reported; a topic that grows or is made anew stops a running worker in words."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
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
    live.wait_finished()
    first.stop()
    live.produce(views(30, first=10))
    asyncio.run(delete_records(live, before=25))
    second = live.start_worker()
    live.wait_finished()
    line = f"{live.settings.kafka.topic(EVENTS.name)}-0: offsets 10 to 24 are lost, 15 in all"
    assert line in second.said
    assert second.health()["lost"] == 15
    assert metrics(second)['clickscore_events_total{outcome="lost"}'] == 15
    second.stop()
    assert len(live.read(RECOMMENDATIONS)[0]) == 25


def test_topic_that_was_made_anew_stops_a_running_worker(live: Installation) -> None:
    live.produce(views(10))
    worker = live.start_worker()
    live.wait_finished()
    asyncio.run(delete_topics(live.settings.kafka, [EVENTS]))
    asyncio.run(create_topics(live.settings.kafka))
    live.produce(views(20))
    assert worker.wait(NOTICE_S) == 1
    last = worker.said.splitlines()[-1]
    assert "the topic was deleted and created again" in last
    assert "Traceback" not in worker.said


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
    assert "the topic was deleted and created again" in worker.said.splitlines()[-1]


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
    assert "has grown from 2 to 3 partitions. Start the worker again" in worker.said.splitlines()[-1]
    assert "Traceback" not in worker.said
    counts = asyncio.run(list_topics(live.settings.kafka))
    assert {counts[live.settings.kafka.topic(topic.name)] for topic in TOPICS if topic.per_user} == {3}
    assert asyncio.run(check_topics(live.settings.kafka)) == 3
    again = live.start_worker()
    again.wait_health(lambda health: health.get("restored") and health["partitions"] == [0, 1, 2])
    assert again.health()["users"] == 10
    again.stop()


def test_description_of_a_topic_has_its_partitions_and_its_id(live: Installation) -> None:
    async def run() -> None:
        async with open_reader(live.settings.kafka) as reader:
            description = await reader.describe(live.settings.kafka.topic(EVENTS.name))
            assert (description.partitions, len(description.topic_id)) == (2, 32)
            assert await reader.describe("no-such-topic") == (0, "")

    asyncio.run(run())
