"""Engine: the worker's parts together, on a log in memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clickscore.schemas.catalogue import Item
from clickscore.schemas.events import encode_event
from clickscore.schemas.topics import CATALOGUE, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Record
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.worker.engine import Engine
from clickscore.stream.worker.prometheus_metrics import Metrics
from tests.events import view
from tests.memory_kafka import MemoryBatch, MemoryGroup, MemoryLog
from tests.stream.worker.stage import Clock, make_settings, until


def new_pipeline(settings: Settings, kind: type[Pipeline] = Pipeline) -> Pipeline:
    return kind(settings.sessions, settings.policy, EVENTS.name, Catalogue())


class EngineStage:
    """A worker on a log in memory."""

    def __init__(self, *partitions: int, log: MemoryLog | None = None, **changes: object) -> None:
        self.settings = make_settings(**changes)
        self.log = log or MemoryLog()
        self.group = MemoryGroup(self.log, EVENTS.name, partitions or (0,))
        self.pipeline = new_pipeline(self.settings)
        self.engine = Engine(
            group=self.group,
            settings=self.settings,
            pipeline=self.pipeline,
            metrics=Metrics(),
            open_reader=self.log.open_reader,
            clock=Clock(),
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the engine in a block, its partitions restored."""
        await self.engine.on_assigned()
        async with self.engine.running():
            yield

    async def read_until(self, condition: Callable[[], bool], partition: int = 0) -> None:
        """Fetch the records of a partition, such as epochs, until a condition holds."""
        while not condition():
            batch = self.group.fetch(partition)
            if batch.records:
                await self.engine.put(batch)
                await until(lambda batch=batch: batch.acked)
            await asyncio.sleep(0.001)

    async def decide(self, *users: str, partition: int = 0) -> MemoryBatch:
        """Send a view of each user, and wait until the batch of them is released."""
        for number, user in enumerate(users):
            self.log.append(EVENTS.name, partition, None, encode_event(view(user, number)))
        batch = self.group.fetch(partition)
        await self.engine.put(batch)
        await until(lambda: batch.acked)
        return batch


def test_events_are_decided_and_committable():
    async def run() -> tuple[int, bool]:
        stage = EngineStage()
        async with stage.running():
            batch = await stage.decide("ann", "bob")
        return len(stage.log.records(RECOMMENDATIONS.name)), batch.committable

    assert asyncio.run(run()) == (2, True)


def test_next_worker_goes_on_with_the_state_of_the_last_one():
    async def run() -> tuple[object, object]:
        first = EngineStage()
        async with first.running():
            await first.decide("ann")
        second = EngineStage(log=first.log)
        async with second.running():
            await second.decide("bob")
        third = EngineStage(log=first.log)
        async with third.running():
            return second.pipeline.partitions[0].contents(), third.pipeline.partitions[0].contents()

    second, third = asyncio.run(run())
    assert second == third


def test_catalogue_is_loaded_before_the_first_event_and_followed():
    async def run() -> None:
        stage = EngineStage()
        send_item(stage.log, "kettle")
        async with stage.running():
            assert stage.pipeline.catalogue.version == 1
            send_item(stage.log, "mug")
            await stage.read_until(lambda: stage.pipeline.catalogue.item_ids == {"kettle", "mug"})

    asyncio.run(run())


def send_item(log: MemoryLog, item_id: str) -> None:
    log.append(CATALOGUE.name, 0, item_id.encode(), msgspec.json.encode(Item(item_id=item_id)))


def test_catalogue_is_loaded_once():
    async def run() -> int:
        stage = EngineStage()
        send_item(stage.log, "kettle")
        await stage.engine.on_assigned()
        stage.group.rebalance(0)
        await stage.engine.on_assigned()
        return stage.pipeline.catalogue.version

    assert asyncio.run(run()) == 1


def test_restore_that_fails_stops_the_worker():
    async def run() -> EngineStage:
        stage = EngineStage()
        async with stage.running():
            await stage.decide("ann")
        successor = EngineStage()
        for record in stage.log.records(SNAPSHOTS.name):
            successor.log.append(SNAPSHOTS.name, 0, record.key, record.value)
        await successor.engine.on_assigned()
        return successor

    stage = asyncio.run(run())
    assert stage.group.crashes == [stage.engine.failure]
    assert isinstance(stage.engine.failure, TopicMissingError)


def test_refused_decisions_stop_the_worker_and_commit_nothing():
    async def run() -> tuple[EngineStage, MemoryBatch]:
        stage = EngineStage()
        stage.group.producer.refusals[RECOMMENDATIONS.name] = KafkaError("no")
        async with stage.running():
            stage.log.append(EVENTS.name, 0, None, encode_event(view("ann", 0)))
            batch = stage.group.fetch(0)
            await stage.engine.put(batch)
            await until(lambda: stage.group.crashes)
        return stage, batch

    stage, batch = asyncio.run(run())
    assert isinstance(stage.engine.failure, BrokerError)
    assert not batch.committable
    assert not stage.engine.health().alive


class BrokenPipeline(Pipeline):
    """A pipeline with a bug."""

    def begin(self, batches: Sequence[tuple[int, Sequence[Record]]]):
        del batches
        message = "a bug"
        raise RuntimeError(message)


def test_bug_stops_the_worker_with_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture):
    async def run() -> EngineStage:
        stage = EngineStage()
        stage.engine = Engine(
            group=stage.group,
            settings=stage.settings,
            pipeline=new_pipeline(stage.settings, BrokenPipeline),
            metrics=Metrics(),
            open_reader=stage.log.open_reader,
        )
        async with stage.running():
            stage.log.append(EVENTS.name, 0, None, encode_event(view("ann", 0)))
            await stage.engine.put(stage.group.fetch(0))
            await until(lambda: stage.group.crashes)
        return stage

    stage = asyncio.run(run())
    assert isinstance(stage.engine.failure, RuntimeError)
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("lacking", "words"),
    [("lacks rights: read on topic catalogue-items", "lacks rights"), ("", "TopicAuthorizationFailedError")],
    ids=["still lacking", "granted again"],
)
def test_right_that_is_taken_away_is_named(lacking: str, words: str, caplog: pytest.LogCaptureFixture):
    async def run() -> EngineStage:
        stage = EngineStage()
        async with stage.running():
            stage.log.lacking_right = lacking
            stage.log.fetch_errors = [TopicAuthorizationFailedError("catalogue-items")]
            while not stage.group.crashes:  # noqa: ASYNC110 (the double sets no event)
                await asyncio.sleep(0)
        return stage

    stage = asyncio.run(run())
    assert isinstance(stage.engine.failure, BrokerError)
    assert words in str(stage.engine.failure)
    assert "Traceback" not in caplog.text


def test_log_that_was_cut_back_under_the_worker_stops_it():
    async def run() -> EngineStage:
        stage = EngineStage()
        async with stage.running():
            stage.group.losses.report_cut_back(0, 99, 0)
            while not stage.group.crashes:  # noqa: ASYNC110 (the double sets no event)
                await asyncio.sleep(0)
        return stage

    stage = asyncio.run(run())
    assert isinstance(stage.engine.failure, TopicMissingError)
    assert "clickstream-events-0 was read up to offset 99, but its log no longer reached that far" in str(
        stage.engine.failure
    )


def test_first_failure_is_the_reason():
    first, second = ValueError("first"), ValueError("second")
    stage = EngineStage()
    stage.engine.fail(first)
    stage.engine.fail(second)
    assert stage.engine.failure is first


def test_worker_is_ready_once_restored():
    async def run() -> list[bool]:
        stage = EngineStage()
        reports = [stage.engine.health()]
        async with stage.running():
            reports.append(stage.engine.health())
        return [report.ready for report in reports]

    assert asyncio.run(run()) == [False, True]


def test_rebalance_under_load_loses_and_repeats_nothing_in_the_state():
    async def run() -> tuple[object, object]:
        first = EngineStage(0, 1)
        second = EngineStage(1, log=first.log)
        async with first.running():
            await first.decide("ann", partition=1)
            for user in ("bob", "eve"):
                first.log.append(EVENTS.name, 1, None, encode_event(view(user, 5)))
            in_flight = first.group.fetch(1)
            await first.engine.put(in_flight)
            first.group.rebalance(0)
            await first.engine.on_assigned()
            await until(lambda: in_flight.acked)
            async with second.running():
                batch = second.group.fetch(1)
                await second.engine.put(batch)
                await until(lambda: batch.acked)
        whole = new_pipeline(first.settings)
        end = second.pipeline.partitions[1].offset + 1  # an epoch may lie behind the last event
        whole.process(1, first.log.records(EVENTS.name, 1)[:end])
        return second.pipeline.partitions[1].contents(), whole.partitions[1].contents()

    taken_over, whole = asyncio.run(run())
    assert taken_over == whole
