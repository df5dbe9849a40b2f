"""Ticks: which idle partitions get one, and when."""

import asyncio

import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.events import Tick, decode_record
from clickscore.schemas.topics import EVENTS
from clickscore.stream.worker.ticks import LIVE_MS, IdleTicks
from tests.events import START, view
from tests.stream.worker.stage import Clock, Stage, background, until

TICK_AFTER_MS = 60_000


class TickStage(Stage):
    """A stage with a view in partition 0, at the time that its clock shows."""

    def __init__(self, *, tick_after_ms: int = TICK_AFTER_MS) -> None:
        super().__init__(0)
        self.clock = Clock(START / 1000)
        self.ticks = IdleTicks(
            self.pipeline,
            self.group,
            topic=EVENTS.name,
            tick_after_ms=tick_after_ms,
            clock=self.clock,
            metrics=self.metrics,
            check_s=0.001,
        )
        self.compute_job(view("ann", 0))
        self.ticks.assign([0], [])

    def wait(self, ms: int) -> None:
        self.clock.now += ms / 1000

    def written(self) -> list[Tick]:
        """Write the ticks that are due; return all ticks of the log."""
        asyncio.run(self.ticks.write_due())
        events = [decode_record(record.value or b"") for record in self.log.records(EVENTS.name)]
        return [event for event in events if isinstance(event, Tick)]


def test_idle_partition_with_an_open_session_gets_a_tick_of_the_present_time():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS)
    assert stage.written() == [Tick(ts=START + TICK_AFTER_MS)]


def test_partition_that_is_not_idle_long_enough_gets_none():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS - 1)
    assert stage.written() == []


def test_batch_starts_the_idle_time_again():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS)
    stage.ticks.note_batch(0, stage.clock.now)
    assert stage.written() == []


def test_next_tick_comes_after_another_idle_time():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS)
    stage.written()
    stage.wait(TICK_AFTER_MS - 1)
    assert len(stage.written()) == 1
    stage.wait(1)
    assert len(stage.written()) == 2


def test_partition_without_open_sessions_gets_none():
    stage = TickStage()
    stage.pipeline.partitions[0].close_all()
    stage.wait(TICK_AFTER_MS)
    assert stage.written() == []


def test_partition_without_state_gets_none():
    stage = TickStage()
    stage.pipeline.drop([0])
    stage.wait(TICK_AFTER_MS)
    assert stage.written() == []


def test_backfill_gets_none():
    stage = TickStage()
    stage.wait(LIVE_MS)
    assert stage.written() == []


def test_partition_of_another_worker_gets_none():
    stage = TickStage()
    stage.ticks.assign([], [])
    stage.wait(TICK_AFTER_MS)
    assert stage.written() == []


def test_idle_time_of_a_retained_partition_goes_on():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS)
    stage.ticks.assign([0], retained=[0])
    assert len(stage.written()) == 1


def test_idle_time_of_a_restored_partition_starts_again():
    stage = TickStage()
    stage.wait(TICK_AFTER_MS)
    stage.ticks.assign([0], retained=[])
    assert stage.written() == []


def test_ticks_are_written_until_cancelled():
    async def run(stage: TickStage) -> None:
        stage.wait(TICK_AFTER_MS)
        async with background(stage.ticks.run):
            await until(lambda: stage.log.end(EVENTS.name) == 2)

    asyncio.run(run(TickStage()))


def test_ticks_that_are_switched_off_end_at_once():
    asyncio.run(TickStage(tick_after_ms=0).ticks.run())


@pytest.mark.parametrize("error", [KafkaError("not allowed"), ValueError("too large")])
def test_tick_that_kafka_refuses_is_counted_and_tried_again_in_its_time(
    error: Exception, caplog: pytest.LogCaptureFixture
):
    stage = TickStage()
    stage.group.producer.refusals[EVENTS.name] = error
    stage.wait(TICK_AFTER_MS)
    assert stage.written() == []
    assert stage.metric("clickscore_failed_ticks_total") == 1
    assert str(error) in caplog.text
    del stage.group.producer.refusals[EVENTS.name]
    assert stage.written() == []
    stage.wait(TICK_AFTER_MS)
    assert len(stage.written()) == 1
