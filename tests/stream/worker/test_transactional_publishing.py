"""Transactions of the publisher: outputs and state become readable together, and only by the present owner."""

import asyncio

import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.topics import DEAD_LETTERS, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.errors import BrokerError, SettingsError
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.settings import Settings
from clickscore.stream.worker.outgoing import PublishJob
from tests.events import identify, view
from tests.memory_kafka import MemoryLog
from tests.stream.worker.stage import Stage, settle, until


async def owning(*partitions: int, log: MemoryLog | None = None, epochs: dict[int, int] | None = None) -> Stage:
    stage = Stage(*partitions, log=log, epochs=epochs, delivery="exactly_once")
    await stage.publisher.take_over(stage.group.assignment())
    stage.own()
    return stage


async def publish(stage: Stage, *jobs: PublishJob) -> None:
    """Publish jobs until all are released."""
    async with stage.publishing():
        for job in jobs:
            await stage.publisher.put(job)
        await until(lambda: all(job.batch.acked for job in jobs))


def test_outputs_and_state_become_readable_together_and_before_the_commit_of_the_offset() -> None:
    async def run() -> None:
        stage = await owning()
        stage.transactions.commits_held = asyncio.Event()
        job = stage.compute_job(view("ann", 0), b"no event")
        async with stage.publishing():
            await stage.publisher.put(job)
            await settle()
            topics = (RECOMMENDATIONS.name, DEAD_LETTERS.name, SNAPSHOTS.name)
            assert [stage.log.records(topic) for topic in topics] == [[], [], []]
            assert not job.batch.committable
            stage.transactions.commits_held.set()
            await until(lambda: job.batch.acked)
            assert [len(stage.log.records(topic)) for topic in topics] == [1, 1, 3]
            assert stage.journal == ["partition 0 committed", "committable", "acked"]

    asyncio.run(run())


def test_handover_is_stored_before_the_transaction_so_that_no_other_partition_waits_for_its_end() -> None:
    async def run() -> None:
        stage = await owning()
        stage.group.partitions = 4
        stage.transactions.commits_held = asyncio.Event()
        job = stage.compute_job(view("cookie", 0), identify("cookie", 1, "ann"))
        async with stage.publishing():
            await stage.publisher.put(job)
            await settle()
            assert stage.journal == [f"{EVENTS.name} acknowledged"]
            assert stage.log.records(EVENTS.name, partition_of(b"ann", 4))[-1].key == b"ann"
            stage.transactions.commits_held.set()
            await until(lambda: job.batch.acked)
        assert stage.journal[1:] == ["partition 0 committed", "committable", "acked"]

    asyncio.run(run())


def test_waiting_batches_of_a_partition_share_a_transaction() -> None:
    async def run() -> None:
        stage = await owning(0, 1)
        jobs = [stage.compute_job(view("ann", n), partition=partition) for n in range(2) for partition in (0, 1)]
        await publish(stage, *jobs)
        assert sorted(entry for entry in stage.journal if "committed" in entry) == [
            "partition 0 committed",
            "partition 1 committed",
        ]
        assert len(stage.log.records(SNAPSHOTS.name, 0)) == 3  # Ann's newest state and decisions, and the partition

    asyncio.run(run())


def test_a_fenced_worker_stores_nothing_commits_nothing_and_goes_on() -> None:
    async def run() -> None:
        log, epochs = MemoryLog(), {}
        stalled = await owning(0, 1, log=log, epochs=epochs)
        jobs = [stalled.compute_job(view("ann", 0), partition=0), stalled.compute_job(view("bob", 0), partition=1)]
        await owning(0, log=log, epochs=epochs)  # the successor takes over partition 0
        await publish(stalled, *jobs)
        assert [job.batch.committable for job in jobs] == [False, True]
        assert [len(log.records(RECOMMENDATIONS.name, partition)) for partition in (0, 1)] == [0, 1]
        assert 0 not in stalled.pipeline.partitions
        assert not stalled.ownership.is_restored([0])
        assert stalled.ownership.is_restored([1])

    asyncio.run(run())


def test_a_batch_that_began_on_an_empty_state_after_the_fence_writes_nothing() -> None:
    """The state is discarded while the next batch waits for the compute thread, and no rebalance has come yet."""

    async def run() -> None:
        log, epochs = MemoryLog(), {}
        stalled = await owning(log=log, epochs=epochs)
        stalled.group.partitions = 4
        first = stalled.compute_job(view("ann", 0))
        await owning(log=log, epochs=epochs)  # the successor
        await publish(stalled, first)
        second = stalled.compute_job(view("cookie", 1), identify("cookie", 2, "ann"))
        await publish(stalled, second)
        assert log.records(EVENTS.name, partition_of(b"ann", 4)) == []
        assert log.records(RECOMMENDATIONS.name) == []

    asyncio.run(run())


def test_batches_of_an_earlier_generation_are_given_up() -> None:
    async def run() -> None:
        stage = await owning()
        job = stage.compute_job(view("ann", 0))
        stage.group.rebalance(0)
        await publish(stage, job)
        assert not job.batch.committable
        assert stage.log.records(RECOMMENDATIONS.name) == []

    asyncio.run(run())


def test_a_refused_transaction_stops_the_worker_in_words() -> None:
    async def run() -> None:
        stage = await owning()
        stage.transactions.refusal = KafkaError("no")
        job = stage.compute_job(view("ann", 0))
        async with stage.publishing() as loops:
            await stage.publisher.put(job)
            await loops

    with pytest.raises(BrokerError, match="Nothing of it is committed"):
        asyncio.run(run())


def test_the_marker_of_a_transaction_does_not_make_the_changelog_look_foreign() -> None:
    async def run() -> None:
        stage = await owning()
        await publish(stage, stage.compute_job(view("ann", 0)))
        await publish(stage, stage.compute_job(view("ann", 1)))
        assert stage.publisher.written == {0: stage.log.end(SNAPSHOTS.name)}
        assert not stage.publisher.overlays.is_pending(0)

    asyncio.run(run())


def test_exactly_once_needs_committed_reads() -> None:
    with pytest.raises(SettingsError, match="isolation_level=read_committed"):
        Settings.of(delivery="exactly_once", isolation_level="read_uncommitted")
