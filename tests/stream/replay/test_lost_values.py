"""Lost values: a replay and an explanation say what compaction has removed, and only where a decision needs it."""

import asyncio

import pytest
from aiokafka import TopicPartition

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.events import Epoch, encode_event
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS
from clickscore.stream.replay.lost_values import LostValues
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.source import OffsetRange
from clickscore.stream.replay.topic_reference import collect_reference_log, kept_since
from clickscore.stream.settings import KafkaSettings
from tests.events import view
from tests.memory_kafka import MemoryLog

TOPICS = {TopicPartition(topic.name, 0): topic.name for topic in (CATALOGUE, CAMPAIGNS)}
KEPT_SINCE = 1_000
OLD, NEW = KEPT_SINCE - 1, KEPT_SINCE + 1


def read_log(*items: tuple[int, int], epoch: int | None, end: int = 0) -> ReferenceLog:
    """Return the reference log of a partition in an epoch, from the offset and the append time of each item record."""
    log = MemoryLog()
    for offset, timestamp in items:
        value = encode(Item(item_id=f"item-{offset}"))
        log.append(CATALOGUE.name, 0, f"item-{offset}".encode(), value, timestamp=timestamp, offset=offset)
    for _ in range(log.end(CATALOGUE.name), end):
        log.mark(CATALOGUE.name, 0)
    event = view("ann", 0) if epoch is None else Epoch(number=1, catalogue=epoch, campaigns=0)
    log.append(EVENTS.name, 0, None, encode_event(event))

    async def read() -> ReferenceLog:
        async with log.open_reader() as reader:
            return await collect_reference_log(reader, TOPICS, EVENTS.name, {0: OffsetRange(0, 1, 0, 0)}, KEPT_SINCE)

    return asyncio.run(read())


def lost(log: ReferenceLog, catalogue: int) -> list[str]:
    return LostValues(log, KEPT_SINCE).describe(Epoch(number=1, catalogue=catalogue, campaigns=0))


def test_complete_topic_has_lost_nothing():
    log = read_log((0, OLD), (1, OLD), (2, NEW), epoch=1)
    assert (log.gaps, lost(log, 1), lost(log, 3)) == (None, [], [])


def test_replay_names_the_values_that_compaction_has_removed():
    log = read_log((0, OLD), (3, OLD), (4, NEW), epoch=1)
    assert log.gaps == "catalogue-items between offsets 1 and 2"


def test_replay_names_values_from_before_the_epoch_whose_replacement_is_old():
    log = read_log((1, OLD), (2, OLD), epoch=2)
    assert log.gaps == "catalogue-items between offsets 0 and 1"


def test_decision_lacks_a_value_that_a_later_record_has_replaced():
    log = read_log((1, OLD), (2, OLD), (3, NEW), epoch=2)
    (words,) = lost(log, 2)
    assert words.startswith("compaction has removed values of catalogue-items from before offset 2")


@pytest.mark.parametrize("epoch", [3, 4])
def test_values_that_are_too_young_to_be_removed_are_there(epoch: int):
    log = read_log((1, OLD), (2, OLD), (3, NEW), epoch=1)
    assert lost(log, epoch) == []


def test_values_before_the_first_gap_are_there():
    log = read_log((0, OLD), (2, OLD), epoch=1)
    assert (lost(log, 1), len(lost(log, 2))) == ([], 1)


def test_topic_without_records_has_lost_nothing():
    assert lost(read_log(epoch=0), 0) == []


def test_log_without_epochs_uses_the_present_values():
    log = read_log((0, OLD), epoch=None)
    assert log.gaps is None
    assert LostValues(log, KEPT_SINCE).describe(None) == [
        "the log has no epoch, so the present catalogue and campaigns were used"
    ]
    assert LostValues(ReferenceLog(), KEPT_SINCE).describe(None) == []


def test_retention_without_an_end_keeps_everything():
    assert kept_since(KafkaSettings(retention_ms=-1), 5_000) == 0.0
    assert kept_since(KafkaSettings(retention_ms=1_000), 5_000) == 4_000
