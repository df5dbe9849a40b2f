"""Reader: partitions are read from their beginning to the end that they had when the reading began."""

import asyncio

from aiokafka import TopicPartition

from clickscore.schemas.topics import ROLLOUTS
from clickscore.stream.kafka.log_reader import LogReader, read_to_end
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
