"""Batches: what is scored together, what overlaps, and what is given up."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest

from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.request import Request
from clickscore.stream.worker.batches import (
    FETCH_REST_S,
    INBOX_BATCHES,
    OVERLAP_RECORDS,
    OVERLAP_SWITCH_S,
    BatchLoop,
)
from clickscore.stream.worker.ticks import IdleTicks
from tests.events import view
from tests.memory_kafka import MemoryBatch
from tests.stream.worker.stage import DullScorer, NoScores, Stage, background, settle, until


class BatchStage(Stage):
    """A stage with the loop of batches."""

    def __init__(
        self,
        *partitions: int,
        scorer: DullScorer | None = None,
        fetch_rest_s: float = FETCH_REST_S,
        **changes: object,
    ) -> None:
        super().__init__(*partitions, scorer=scorer, **changes)
        ticks = IdleTicks(
            self.pipeline, self.group, topic=EVENTS.name, tick_after_ms=0, clock=self.clock, metrics=self.metrics
        )
        self.loop = BatchLoop(
            pipeline=self.pipeline,
            ownership=self.ownership,
            publisher=self.publisher,
            ticks=ticks,
            compute=self.compute,
            metrics=self.metrics,
            max_batch=self.settings.worker.max_batch,
            clock=self.clock,
            fetch_rest_s=fetch_rest_s,
        )
        self.own()

    async def put(self, *batches: MemoryBatch) -> None:
        for batch in batches:
            await self.loop.put(batch)

    def fetched(self, *users: str, partition: int = 0, ends_fetch: bool = True) -> MemoryBatch:
        """Send a view of each user and fetch them as one batch."""
        self.send(*(view(user, number / 100) for number, user in enumerate(users)), partition=partition)
        return self.group.fetch(partition, ends_fetch=ends_fetch)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        loops = self.loop.run, self.publisher.publish_decisions, self.publisher.publish_states
        async with background(*loops):
            yield


def run_all(stage: BatchStage, *batches: MemoryBatch) -> None:
    """Put batches in, and run until all are released."""

    async def run() -> None:
        await stage.put(*batches)
        async with stage.running():
            await until(lambda: all(batch.acked for batch in batches))

    asyncio.run(run())


USERS = [f"user-{number}" for number in range(OVERLAP_RECORDS)]


def test_batch_is_decided_and_made_committable():
    stage = BatchStage()
    batch = stage.fetched("ann", "bob")
    run_all(stage, batch)
    assert (len(stage.log.records(RECOMMENDATIONS.name)), batch.committable) == (2, True)


def test_waiting_partitions_are_scored_in_one_call():
    scorer = DullScorer()
    stage = BatchStage(0, 1, scorer=scorer)
    run_all(stage, stage.fetched("ann", "bob"), stage.fetched("eve", partition=1))
    assert scorer.calls == [3]


def test_batches_above_max_batch_are_scored_apart():
    scorer = DullScorer()
    stage = BatchStage(0, 1, scorer=scorer, max_batch=2)
    run_all(stage, stage.fetched("ann", "bob"), stage.fetched("eve", partition=1))
    assert scorer.calls == [2, 1]


def test_rest_of_a_fetch_is_waited_for():
    async def run() -> list[int]:
        scorer = DullScorer()
        stage = BatchStage(0, 1, scorer=scorer, fetch_rest_s=30.0)
        first, rest = stage.fetched("ann", ends_fetch=False), stage.fetched("eve", partition=1)
        async with stage.running():
            await stage.put(first)
            await settle()
            await stage.put(rest)
            await until(lambda: rest.acked)
        return scorer.calls

    assert asyncio.run(run()) == [2]


def test_rest_of_a_fetch_that_never_comes_is_waited_for_only_a_moment():
    stage = BatchStage()
    batch = stage.fetched("ann", ends_fetch=False)
    run_all(stage, batch)
    assert batch.committable


def test_next_batch_is_begun_before_a_large_one_is_finished():
    scorer = DullScorer()
    stage = BatchStage(scorer=scorer, max_batch=OVERLAP_RECORDS)
    run_all(stage, stage.fetched(*USERS), stage.fetched(*(f"other-{user}" for user in USERS)))
    assert scorer.order == ["submit", "submit", "results", "results"]


class TimedScorer(DullScorer):
    """A scorer that remembers Python's switch interval at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.intervals: list[float] = []

    def submit(self, requests: list[Request]) -> NoScores:
        self.intervals.append(sys.getswitchinterval())
        return super().submit(requests)


def test_threads_switch_sooner_only_while_batches_overlap():
    scorer, usual = TimedScorer(), sys.getswitchinterval()
    stage = BatchStage(scorer=scorer, max_batch=OVERLAP_RECORDS)
    run_all(stage, stage.fetched(*USERS), stage.fetched("eve"))
    assert scorer.intervals == [pytest.approx(OVERLAP_SWITCH_S), pytest.approx(usual)]


def test_small_batch_is_finished_before_the_next_one_is_begun():
    scorer = DullScorer()
    stage = BatchStage(scorer=scorer, max_batch=1)
    run_all(stage, stage.fetched("ann"), stage.fetched("bob"))
    assert scorer.order == ["submit", "results", "submit", "results"]


def test_outputs_of_overlapping_batches_go_to_their_own_batch():
    stage = BatchStage(0, 1, scorer=DullScorer(), max_batch=OVERLAP_RECORDS)
    run_all(stage, stage.fetched(*USERS), stage.fetched("eve", partition=1))
    counts = [len(stage.log.records(RECOMMENDATIONS.name, partition)) for partition in (0, 1)]
    assert counts == [OVERLAP_RECORDS, 1]


def test_batch_of_another_generation_is_released_uncomputed():
    stage = BatchStage()
    batch = stage.fetched("ann")
    stage.group.rebalance(0)
    stage.own()
    run_all(stage, batch)
    assert (stage.log.records(RECOMMENDATIONS.name), batch.committable) == ([], False)


def test_batch_of_a_partition_that_is_not_restored_is_released_uncomputed():
    stage = BatchStage()
    stage.ownership.own([], stage.group.generation)
    batch = stage.fetched("ann")
    run_all(stage, batch)
    assert stage.log.records(RECOMMENDATIONS.name) == []


def test_current_batch_beside_a_stale_one_is_computed():
    stage = BatchStage(0, 1)
    stage.ownership.own([1], stage.group.generation)
    run_all(stage, stage.fetched("ann"), stage.fetched("bob", partition=1))
    assert len(stage.log.records(RECOMMENDATIONS.name, 1)) == 1


def test_put_waits_while_too_many_batches_wait():
    async def run() -> None:
        stage = BatchStage()
        await stage.put(*(stage.fetched("ann") for _ in range(INBOX_BATCHES)))
        waiting = asyncio.create_task(stage.put(stage.fetched("ann")))
        await settle()
        assert not waiting.done()
        async with stage.running():
            await waiting

    asyncio.run(run())


def test_decision_says_who_scored_it_when_and_how_long_it_took():
    stage = BatchStage()
    run_all(stage, stage.fetched("ann"))
    facts = msgspec.json.decode(dict(stage.log.records(RECOMMENDATIONS.name)[0].headers)["scored"])
    assert (facts.keys(), facts["at"]) == ({"worker", "at", "took_ms"}, int(stage.clock.now * 1000))


def test_time_of_the_last_batch_is_remembered():
    stage = BatchStage()
    assert stage.loop.last_batch_at is None
    run_all(stage, stage.fetched("ann"))
    assert stage.loop.last_batch_at == stage.clock.now


def test_records_of_a_batch_are_counted():
    stage = BatchStage()
    run_all(stage, stage.fetched("ann", "bob"))
    assert stage.metric("clickscore_batch_records_sum") == 2
