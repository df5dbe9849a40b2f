"""Reference data of a worker: memory is bounded while a partition lags, and no decision differs for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.events import Epoch
from clickscore.schemas.topics import CATALOGUE
from clickscore.stream.reference.catalogue_history import Offsets
from clickscore.stream.reference.feed import CatalogueFeed
from clickscore.stream.worker.reference import ReferenceData
from tests.stream.worker.stage import Stage, until

MAX_CHANGES = 6


class ReferenceStage(Stage):
    """A stage with reference data that holds few changes."""

    def __init__(self, *partitions: int) -> None:
        super().__init__(*partitions)
        self.tasks: list[asyncio.Task[None]] = []
        self.reference = ReferenceData(
            feed=CatalogueFeed(self.settings.kafka, self.log.open_reader, retained=0),
            pipeline=self.pipeline,
            compute=self.compute,
            metrics=self.metrics,
            start=self.start,
            wait_ms=5_000,
            max_changes=MAX_CHANGES,
        )

    def start(self, work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        async def run() -> None:
            await work()

        task = asyncio.create_task(run())
        self.tasks.append(task)
        return task

    def sell_out(self, count: int) -> None:
        """Send this many further items without stock."""
        begin = self.log.end(CATALOGUE.name)
        for number in range(begin, begin + count):
            self.log.append(
                CATALOGUE.name, 0, f"item-{number}".encode(), encode(Item(item_id=f"item-{number}", stock=0))
            )

    def begin_epoch(self, partition: int, catalogue: int, number: int = 0) -> None:
        self.pipeline.begin_epoch(partition, Epoch(number=number, catalogue=catalogue, campaigns=0))

    def sold_out(self, partition: int) -> int:
        """Return how many items are sold out in a partition's epoch."""
        epoch = self.pipeline.state(partition).epoch
        assert epoch is not None
        view = self.pipeline.history.view(Offsets(epoch.catalogue, epoch.campaigns))
        return sum(f"item-{number}" in view.out_of_stock for number in range(100))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def test_reading_waits_for_a_partition_that_lags_and_goes_on_when_it_has_caught_up(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage = ReferenceStage(0, 1)
        stage.sell_out(2)
        await stage.reference.prepare([None])
        stage.begin_epoch(0, 2)
        stage.begin_epoch(1, 2)
        stage.sell_out(MAX_CHANGES)
        await until(lambda: stage.metric("clickscore_catalogue_waits") == 1)
        assert stage.reference.position == Offsets(8, 0)
        stage.begin_epoch(1, 8, 1)
        stage.sell_out(3)
        assert (stage.sold_out(0), stage.sold_out(1)) == (2, 8)
        stage.begin_epoch(0, 8, 1)
        await until(lambda: stage.reference.position == Offsets(11, 0))
        assert stage.metric("clickscore_catalogue_waits") == 0
        await stage.end()

    asyncio.run(run())
    assert "6 changes of catalogue and campaigns are in memory for partitions that lag" in caplog.text


def test_records_that_an_epoch_names_are_read_in_any_case():
    async def run() -> None:
        stage = ReferenceStage(0)
        await stage.reference.prepare([None])
        stage.begin_epoch(0, 0)
        stage.sell_out(MAX_CHANGES)
        await until(lambda: stage.metric("clickscore_catalogue_waits") == 1)
        stage.sell_out(4)
        assert await stage.reference.reach(Offsets(10, 0))
        await stage.end()

    asyncio.run(run())


def test_a_start_under_lag_reads_no_more_than_the_newest_epoch_and_the_bound():
    async def run() -> None:
        stage = ReferenceStage(0, 1)
        stage.sell_out(20)
        epochs = [Epoch(number=1, catalogue=2, campaigns=0), Epoch(number=1, catalogue=12, campaigns=0)]
        await stage.reference.prepare(epochs)
        assert stage.reference.position == Offsets(12, 0)
        for partition, epoch in enumerate(epochs):
            stage.pipeline.begin_epoch(partition, epoch)
        assert (stage.sold_out(0), stage.sold_out(1)) == (2, 12)
        await stage.end()

    asyncio.run(run())
