"""Published decisions: found by the event, wherever the log has been cut, repeated or contradicted."""

import asyncio

import msgspec
import pytest
from aiokafka import TopicPartition

from clickscore.schemas.topics import RECOMMENDATIONS
from clickscore.stream.decision_ids import DecisionId, parse_decision_id
from clickscore.stream.errors import SettingsError
from clickscore.stream.replay.published_decisions import (
    REPEAT_EVENTS,
    SEARCHED_RECORDS,
    DecisionRecords,
    find_published,
    read_decision_id,
)
from tests.memory_kafka import MemoryLog, MemoryReader

TP = TopicPartition(RECOMMENDATIONS.name, 0)


def decision(offset: int, note: str = "") -> bytes:
    return msgspec.json.encode({"decision_id": f"events-0-{offset}", "note": note})


def publish(log: MemoryLog, *values: bytes | None) -> MemoryLog:
    for value in values:
        log.append(*TP, None, value)
    return log


class CountingReader(MemoryReader):
    """A reader that counts the records that it returns."""

    fetched = 0

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None):
        records = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        self.fetched += sum(map(len, records.values()))
        return records


def find(log: MemoryLog, *offsets: int) -> tuple[DecisionRecords, int]:
    reader, published = CountingReader(log), DecisionRecords()
    asyncio.run(find_published(reader, TP, offsets, published))
    return published, reader.fetched


def test_parts_of_an_id():
    assert parse_decision_id("shop-clickstream-events-3-1017-ad") == DecisionId(
        "shop-clickstream-events", 3, 1017, True
    )
    assert str(parse_decision_id("events-0-5")) == "events-0-5"


@pytest.mark.parametrize(
    "text", ["", "events", "events-1", "-1-2", "events-1-x", "events-1-2-add", "events-1-٣", "a-01-2", "a-1-02"]
)
def test_other_texts_are_no_ids(text: str):
    with pytest.raises(SettingsError, match="is no decision id: an id is TOPIC-PARTITION-OFFSET"):
        parse_decision_id(text)


@pytest.mark.parametrize("value", [None, b"", b"rubbish", b'{"decision_id": 5}', b'{"decision_id": "x"}', b"\xff"])
def test_record_without_an_id_is_passed_over(value: bytes | None):
    assert read_decision_id(value) is None


def test_repeat_with_equal_bytes_is_no_second_decision():
    log = publish(MemoryLog(), decision(1), decision(2), b"rubbish", decision(1), decision(2, "other"), decision(3))
    published, _ = find(log, 1, 2)
    assert published.values == {"events-0-1": decision(1), "events-0-2": decision(2)}
    assert published.repeats == {"events-0-1": 1}
    assert published.contradictions == {"events-0-2": decision(2, "other")}


def test_log_that_retention_has_cut_is_read_from_its_beginning():
    log = publish(MemoryLog(), *map(decision, range(10)))
    log.delete_before(*TP, 4)
    assert list(find(log, 2, 7)[0].values) == ["events-0-7"]


def test_empty_topic_has_no_decision():
    assert find(MemoryLog(), 2)[0].values == {}


def test_long_log_is_searched_by_halves_and_read_no_further_than_repeats_may_come():
    count = 40 * SEARCHED_RECORDS
    log = publish(MemoryLog(), *(decision(2 * number) for number in range(count // 8)))
    published, fetched = find(log, 120_000)
    assert list(published.values) == ["events-0-120000"]
    assert fetched < SEARCHED_RECORDS + 2 * REPEAT_EVENTS


def test_unreadable_record_in_the_middle_of_the_search_hides_no_decision():
    log = publish(MemoryLog(), *map(decision, range(SEARCHED_RECORDS)))
    publish(log, *[b"rubbish"] * SEARCHED_RECORDS, decision(SEARCHED_RECORDS))
    assert list(find(log, SEARCHED_RECORDS)[0].values) == [f"events-0-{SEARCHED_RECORDS}"]
