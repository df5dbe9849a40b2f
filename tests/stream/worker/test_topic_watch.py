"""Topic watch: a topic that changes under a running worker stops the worker with one sentence."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from clickscore.schemas.topics import EVENTS, SNAPSHOTS
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.topic_description import TopicDescription
from clickscore.stream.worker.topic_watch import TopicWatch
from tests.events import view
from tests.memory_kafka import MemoryReader
from tests.stream.worker.stage import Stage


class WatchStage(Stage):
    """A stage with a watch on the topic of events."""

    def __init__(self) -> None:
        super().__init__(0)
        self.open_errors: list[Exception] = []
        self.watch = TopicWatch(
            topic=EVENTS.name,
            changelog=SNAPSHOTS.name,
            open_reader=self.open_reader,
            group=self.group,
            pipeline=self.pipeline,
            group_name="workers",
            look_s=0.001,
        )
        self.describe(4, "first")

    @asynccontextmanager
    async def open_reader(self) -> AsyncGenerator[MemoryReader]:
        if self.open_errors:
            raise self.open_errors.pop()
        async with self.log.open_reader() as reader:
            yield reader

    def describe(self, partitions: int, topic_id: str) -> None:
        self.log.descriptions[EVENTS.name] = TopicDescription(partitions, topic_id)

    def failure_after(self, *changes: tuple[int, str]) -> str:
        """Look once, change the topic, and return why the watch stops the worker."""

        async def run() -> None:
            async with self.log.open_reader() as reader:
                await self.watch.look(reader)
            for change in changes:
                self.describe(*change)
            await asyncio.wait_for(self.watch.run(), 30)

        with pytest.raises(TopicMissingError) as caught:
            asyncio.run(run())
        return str(caught.value)


def test_topic_that_has_grown_stops_the_worker():
    assert WatchStage().failure_after((6, "first")) == (
        "clickstream-events has grown from 4 to 6 partitions. Start the worker again to serve all of them"
    )


def test_topic_that_was_made_anew_stops_the_worker():
    assert "the topic was deleted and created again" in WatchStage().failure_after((4, "second"))


def test_topic_that_is_gone_stops_the_worker():
    assert "clickstream-events is gone" in WatchStage().failure_after((0, ""))


def test_log_that_ends_before_the_state_stops_the_worker():
    stage = WatchStage()
    stage.compute_job(view("ann", 0), view("ann", 1))
    stage.log.cut_back(EVENTS.name, 0, 1)
    assert "up to offset 1, but that partition ends earlier, at 1" in stage.failure_after()


def test_partition_that_nobody_reads_is_counted_from_its_committed_offset():
    async def unserved(served: set[int] | None) -> dict[int, int]:
        stage = WatchStage()
        for partition in (1, 2, 3):
            stage.send(view("ann", 0), view("ann", 1), view("ann", 2), partition=partition)
        stage.log.delete_before(EVENTS.name, 2, 1)
        stage.log.committed = {TopicPartition(EVENTS.name, 3): 3}
        stage.log.served = served
        async with stage.log.open_reader() as reader:
            await stage.watch.look(reader)
        return stage.watch.unserved

    assert asyncio.run(unserved({0})) == {1: 3, 2: 2, 3: 0}
    assert asyncio.run(unserved({0, 1, 2, 3})) == {}
    assert asyncio.run(unserved(None)) == {}


def test_topic_that_has_grown_before_the_first_look_stops_the_worker():
    stage = WatchStage()
    stage.group.partitions = 3
    with pytest.raises(TopicMissingError, match="has grown from 3 to 4 partitions"):
        asyncio.run(asyncio.wait_for(stage.watch.run(), 30))


def test_right_that_is_taken_away_stops_the_worker():
    stage = WatchStage()
    stage.log.lacking_right = "read on group {}"
    with pytest.raises(BrokerError, match="read on group workers"):
        asyncio.run(asyncio.wait_for(stage.watch.run(), 30))


def test_topic_that_stays_the_same_does_not_stop_the_worker():
    async def run() -> None:
        stage = WatchStage()
        stage.open_errors = [KafkaConnectionError("gone")]
        stage.compute_job(view("ann", 0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.watch.run(), 0.05)

    asyncio.run(run())


def test_one_look_without_the_topic_is_not_believed():
    async def run() -> None:
        stage = WatchStage()
        async with stage.log.open_reader() as reader:
            await stage.watch.look(reader)
            stage.describe(0, "")
            await stage.watch.look(reader)
            stage.describe(4, "first")
            await stage.watch.look(reader)
            stage.describe(0, "")
            await stage.watch.look(reader)

    asyncio.run(run())
