"""Topic reference: the epoch in which a range begins, and the values that compaction has removed."""

import asyncio

import pytest
from aiokafka import TopicPartition

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.events import Epoch, encode_event
from clickscore.schemas.topics import CATALOGUE, EVENTS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import Offsets
from clickscore.stream.replay.reference_log import ReferenceLog, ReferenceRecord, start_pipeline
from clickscore.stream.replay.source import OffsetRange
from clickscore.stream.replay.topic_reference import GapFinder, find_first_epoch
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.events import view
from tests.memory_kafka import MemoryLog

TP = TopicPartition(EVENTS.name, 0)


def make_log(*numbers: int | None) -> MemoryLog:
    """Return a log of epochs of these numbers, and an event for each None."""
    log = MemoryLog()
    for number in numbers:
        event = view("ann", 0) if number is None else Epoch(number=number, catalogue=number, campaigns=0)
        log.append(EVENTS.name, 0, None, encode_event(event))
    return log


def first_epoch(log: MemoryLog, warm_up: int) -> int | None:
    async def find() -> Epoch | None:
        async with log.open_reader() as reader:
            return await find_first_epoch(reader, TP, OffsetRange(warm_up, log.end(EVENTS.name), warm_up, 0))

    epoch = asyncio.run(find())
    return None if epoch is None else epoch.number


def test_range_begins_in_the_last_epoch_before_it():
    assert first_epoch(make_log(1, None, 2, None, 3), 4) == 2


def test_late_epoch_of_a_stalled_worker_before_the_range_had_no_effect():
    assert first_epoch(make_log(1, 3, 2, None), 3) == 3


def test_first_epoch_of_the_log_holds_for_the_events_before():
    assert first_epoch(make_log(None, None, 1, 2), 0) == 1


def test_log_without_epochs_has_none():
    assert first_epoch(make_log(None, None), 0) is None


@pytest.mark.parametrize(
    ("offsets", "end", "missing"),
    [
        ([0, 1, 2, 3], 4, None),
        ([1, 2, 3], 4, None),  # replaced before the first epoch
        ([0, 1, 3], 4, (2, 2)),
        ([0, 1, 2], 4, (3, 3)),
        ([], 0, None),
    ],
)
def test_values_after_the_first_epoch_that_are_gone_are_missing(
    offsets: list[int], end: int, missing: tuple[int, int] | None
):
    finder = GapFinder(needed_from=2, kept_since_ms=0)
    for offset in offsets:
        finder.add(offset, timestamp=1_000)
    assert finder.missing(end) == missing


def test_value_before_the_first_epoch_may_be_gone_if_an_old_record_has_replaced_it():
    finder = GapFinder(needed_from=2, kept_since_ms=5_000)
    for offset in (1, 2):
        finder.add(offset, timestamp=1_000)
    assert finder.missing(3) == (0, 1)


def reference_log(**fields: object) -> ReferenceLog:
    stocks = (1, 0, 1)
    records = [
        ReferenceRecord(CATALOGUE.name, offset, b"a", encode(Item(item_id="a", stock=stock)))
        for offset, stock in enumerate(stocks)
    ]
    return ReferenceLog(records=records, catalogue=len(stocks), **fields)  # pyright: ignore[reportArgumentType]


def sold_out(pipeline: Pipeline, partition: int) -> bool:
    epoch = pipeline.partitions[partition].epoch
    assert epoch is not None
    return "a" in pipeline.history.view(Offsets(epoch.catalogue, epoch.campaigns)).out_of_stock


def test_each_partition_begins_in_its_first_epoch():
    pipeline = Pipeline(SessionSettings(), PolicySettings(), EVENTS.name, Catalogue())
    epochs = {
        0: Epoch(number=7, catalogue=1, campaigns=0),
        1: Epoch(number=8, catalogue=2, campaigns=0),
    }
    start_pipeline(pipeline, reference_log(epochs=epochs), range(3), {})
    assert [sold_out(pipeline, partition) for partition in range(3)] == [False, True, False]


def test_replay_without_reference_data_has_no_epochs():
    pipeline = Pipeline(SessionSettings(), PolicySettings(), EVENTS.name, Catalogue())
    start_pipeline(pipeline, ReferenceLog(), range(3), {})
    assert not pipeline.partitions
