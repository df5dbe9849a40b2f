"""Faust group: the worker's protocols, over Faust's own objects that are built and never started."""

from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.types import TP

from clickscore.schemas.topics import EVENTS
from clickscore.stream.worker.faust_group import FaustBatch, FaustGroup
from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.transport import Batch, BatchProducer
from tests.stream.worker.test_transport_contract import HERE, OTHER, in_app, messages, recorded

Use = Callable[[faust.App, FaustGroup], Awaitable[Any]]


def in_group(use: Use) -> Any:
    """Return what `use` makes of an app and the group over it."""

    async def run(app: faust.App) -> Any:
        return await use(app, FaustGroup(app, EVENTS.name))

    return in_app(run)


class Event:
    """A Faust event, as the agent gets it."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1


def test_batch_has_the_partition_the_records_and_the_generation_of_its_message():
    async def use(app: faust.App, group: FaustGroup) -> None:
        del group
        batch = FaustBatch(Event(messages(app.consumer, (4, 5), tp=OTHER)[0]))
        assert (batch.partition, [record.offset for record in batch.records], batch.generation) == (1, [4, 5], 0)
        assert isinstance(batch.records, Batch)
        assert not batch.ends_fetch

    in_group(use)


def test_batch_that_is_marked_committable_is_committed():
    async def use(app: faust.App, group: FaustGroup) -> dict[TP, int]:
        del group
        (message,) = messages(app.consumer, (0, 1))
        FaustBatch(Event(message)).mark_committable()
        return app.consumer._filter_committable_offsets([HERE])

    assert in_group(use) == {HERE: 2}


def test_ack_goes_to_the_event():
    async def use(app: faust.App, group: FaustGroup) -> int:
        del group
        event = Event(messages(app.consumer, (0, 1))[0])
        FaustBatch(event).ack()
        return event.acks

    assert in_group(use) == 1


def test_group_that_has_not_started_has_no_partitions():
    async def use(app: faust.App, group: FaustGroup) -> list[int]:
        del app
        return group.assignment()

    assert in_group(use) == []


def test_partitions_of_other_topics_are_left_out():
    async def use(app: faust.App, group: FaustGroup) -> list[int]:
        consumer = recorded(app)
        consumer.assigned = {OTHER, HERE, TP("another", 7)}
        app.consumer = consumer
        return group.assignment()

    assert in_group(use) == [0, 1]


class Ended:
    """A consumer whose partitions end at known offsets."""

    def readable_end(self, tp: TP) -> int | None:
        return {HERE: 17}.get(tp)


def test_highwater_is_the_readable_end_of_a_partition_of_events():
    async def use(app: faust.App, group: FaustGroup) -> tuple[int | None, int | None]:
        app.consumer = Ended()
        return group.highwater(0), group.highwater(1)

    assert in_group(use) == (17, None)


def test_expected_offsets_reach_the_consumer():
    losses = Losses(EVENTS.name, Metrics(), lambda *_: None)

    async def use(app: faust.App, group: FaustGroup) -> dict[TP, int]:
        group.expect({0: 5}, losses)
        app.consumer._losses.report(0, 5, 7)
        return app.consumer._expected

    assert in_group(use) == {HERE: 5}
    assert losses.events == 2


def test_group_has_the_generation_the_rebalance_and_the_producer_of_the_app():
    async def use(app: faust.App, group: FaustGroup) -> None:
        app.consumer_generation_id, app.rebalancing = 4, True
        assert (group.generation, group.rebalancing) == (4, True)
        assert isinstance(group.producer, BatchProducer)

    in_group(use)


def test_crash_stops_the_app_without_waiting_for_batches():
    async def use(app: faust.App, group: FaustGroup) -> tuple[bool, bool]:
        await group.crash(ValueError("a bug"))
        return app.crashed, app.conf.stream_wait_empty

    assert in_group(use) == (True, False)
