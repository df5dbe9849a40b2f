"""Reader: partitions are read from their beginning to the end that they had when the reading began."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import cast

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from clickscore.schemas.topics import ROLLOUTS
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.log_reader import LogReader, PartitionReader, read_promptly, read_to_end
from clickscore.stream.settings import Settings
from tests.memory_kafka import MemoryLog

PARTITIONS = [TopicPartition("topic", partition) for partition in (0, 1)]


def offsets(log: MemoryLog, *, grows: bool = False) -> dict[int, list[int]]:
    """Return the offsets that are read of each partition; a log that grows gets a record with each fetch."""

    async def run() -> dict[int, list[int]]:
        result: dict[int, list[int]] = {0: [], 1: []}
        async with log.open_reader() as reader:
            async for partition, records in read_to_end(reader, PARTITIONS):
                result[partition.partition] += [record.offset for record in records]
                if grows:
                    log.append("topic", 0, None, b"")
        return result

    return asyncio.run(run())


def filled(*counts: int) -> MemoryLog:
    log = MemoryLog()
    for partition, count in enumerate(counts):
        for _ in range(count):
            log.append("topic", partition, None, b"")
    return log


def test_empty_partitions_end_at_once():
    assert offsets(filled(0, 0)) == {0: [], 1: []}


def test_all_records_of_all_partitions_are_read():
    assert offsets(filled(3, 1)) == {0: [0, 1, 2], 1: [0]}


def test_records_after_the_end_at_the_start_are_not_read():
    assert offsets(filled(2, 2), grows=True) == {0: [0, 1], 1: [0, 1]}


def test_compacted_offsets_are_skipped():
    log = filled(1)
    log.append("topic", 0, None, b"", offset=7)
    assert offsets(log) == {0: [0, 7], 1: []}


def test_worker_that_follows_a_rollout_needs_rights_on_its_topic():
    kafka = Settings().kafka

    async def run() -> list[bool]:
        return [kafka.topic(ROLLOUTS.name) in LogReader(kafka, rollouts=follows)._rights for follows in (False, True)]

    assert asyncio.run(run()) == [False, True]


def test_command_reads_to_the_end():
    async def run() -> list[int]:
        async with filled(3, 2).open_reader() as reader:
            batches = [records async for _, records in read_promptly(Settings().kafka, reader, PARTITIONS)]
            return sorted(record.offset for records in batches for record in records)

    assert asyncio.run(run()) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (None, "has sent no record of topic for 0.05 s (broker_wait_ms)"),
        (KafkaConnectionError(), "topic cannot be read to the end: KafkaConnectionError"),
    ],
)
def test_command_does_not_wait_for_a_lost_broker(failure, message):
    class LostBroker:
        """Reader whose broker is gone: it fails, or never answers."""

        def assign(self, partitions: list[TopicPartition]) -> None:
            pass

        async def end_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
            if failure:
                raise failure
            await asyncio.sleep(60)
            raise AssertionError

    async def run() -> None:
        kafka = msgspec.structs.replace(Settings().kafka, broker_wait_ms=50)
        async for _ in read_promptly(kafka, cast("PartitionReader", LostBroker()), PARTITIONS):
            pass

    with pytest.raises(BrokerError, match=re.escape(message)):
        asyncio.run(run())
