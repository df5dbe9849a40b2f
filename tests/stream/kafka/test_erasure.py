"""Erasure: which receipts count, and how the ids that remain are listed."""

import asyncio

import pytest
from aiokafka import TopicPartition

from clickscore.schemas.erasure import MAX_IDS, Erased, Remains, encode_receipt
from clickscore.schemas.topics import ERASURE_RECEIPTS
from clickscore.stream.kafka.erasure import Erasure, RemainingIds, await_receipts, remains_parts
from tests.memory_kafka import MemoryLog, MemoryReader


def receipt(event_id: str, partition: int, offset: int) -> bytes:
    record_id = f"clickstream-events-{partition}-{offset}"
    return encode_receipt(Erased(event_id=event_id, user_id="ann", record_id=record_id, ts=0))


def wait(log: MemoryLog, erasures: dict[str, Erasure], partitions: int, timeout_s: float) -> list[str]:
    reader = MemoryReader(log)
    reader.assign([TopicPartition(ERASURE_RECEIPTS.name, partition) for partition in range(partitions)])
    return asyncio.run(await_receipts(reader, erasures, partitions, timeout_s))  # pyright: ignore[reportArgumentType]


def test_erasure_is_answered_when_every_partition_has_a_receipt():
    log, erasures = MemoryLog(), {"e": Erasure("e", "ann")}
    for partition, offset in ((0, 7), (1, 3)):
        log.append(ERASURE_RECEIPTS.name, partition, b"ann", receipt("e", partition, offset))
    log.append(ERASURE_RECEIPTS.name, 0, b"bob", receipt("of another command", 0, 9))
    assert wait(log, erasures, 2, 10) == []
    assert erasures["e"].offsets == {0: 7, 1: 3}


def test_erasure_without_the_receipt_of_a_partition_is_named():
    log, erasures = MemoryLog(), {"e": Erasure("e", "ann")}
    log.append(ERASURE_RECEIPTS.name, 0, b"ann", receipt("e", 0, 7))
    remains = Remains(event_id="e", user_id="ann", part=1, parts=1)
    log.append(ERASURE_RECEIPTS.name, 1, b"ann", encode_receipt(remains))
    assert wait(log, erasures, 2, 0.05) == ["e"]


@pytest.mark.parametrize(
    "value", [None, b"", b"no receipt", b"[" * 5_000, b"\xff", receipt("e", 0, 7)[:-9] + b"}", b"here"]
)
def test_record_that_is_no_receipt_is_passed_over(value: bytes | None):
    log, erasures = MemoryLog(), {"e": Erasure("e", "ann")}
    foreign = Erased(event_id="e", user_id="ann", record_id="here", ts=0)
    log.append(ERASURE_RECEIPTS.name, 0, b"ann", encode_receipt(foreign) if value == b"here" else value)
    log.append(ERASURE_RECEIPTS.name, 0, b"ann", receipt("e", 0, 7))
    assert wait(log, erasures, 1, 10) == []
    assert erasures["e"].offsets == {0: 7}


def test_erasure_without_remaining_records_is_listed_too():
    assert remains_parts(Erasure("e", "ann"), RemainingIds()) == [Remains(event_id="e", user_id="ann", part=1, parts=1)]


def test_long_list_comes_in_parts():
    decisions = [f"d-{number}" for number in range(MAX_IDS)]
    parts = remains_parts(Erasure("e", "ann"), RemainingIds(decisions, ["a"], ["s"]))
    assert [(part.part, part.parts, len(part.decisions), part.ads, part.sessions) for part in parts] == [
        (1, 2, MAX_IDS, (), ()),
        (2, 2, 0, ("a",), ("s",)),
    ]
