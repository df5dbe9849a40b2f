"""Repair: late snapshots of another writer are noticed between two own writes, and written over."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import KafkaConnectionError

from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY, PartitionSnapshot, decode_user, encode
from clickscore.schemas.topics import SNAPSHOTS
from clickscore.stream.state.changelog import StateRestorer
from clickscore.stream.worker.batches import BatchLoop
from clickscore.stream.worker.repair import OverlayRepair
from clickscore.stream.worker.restore import tombstone_offset
from clickscore.stream.worker.ticks import IdleTicks
from tests.events import view
from tests.memory_kafka import MemoryReader, StoredRecord
from tests.stream.worker.stage import Stage, background, until


class RepairStage(Stage):
    """A stage with the loop of batches and the repair at work."""

    def __init__(self, *partitions: int, **changes: object) -> None:
        super().__init__(*partitions, **changes)
        self.open_errors: list[Exception] = []
        """Errors with which the next readers fail to open."""
        self.ticks = IdleTicks(
            self.pipeline, self.group, topic="events", tick_after_ms=0, clock=self.clock, metrics=self.metrics
        )
        self.batches = BatchLoop(
            pipeline=self.pipeline,
            ownership=self.ownership,
            publisher=self.publisher,
            ticks=self.ticks,
            compute=self.compute,
            metrics=self.metrics,
            max_batch=64,
            clock=self.clock,
        )
        self.repair = OverlayRepair(
            kafka=self.settings.kafka,
            open_reader=self.open_reader,
            group=self.group,
            pipeline=self.pipeline,
            compute=self.compute,
            overlays=self.publisher.overlays,
            put=self.batches.put,
            metrics=self.metrics,
            retry_s=0.001,
        )

    @asynccontextmanager
    async def open_reader(self) -> AsyncGenerator[MemoryReader]:
        if self.open_errors:
            raise self.open_errors.pop()
        async with self.log.open_reader() as reader:
            yield reader

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        self.own()
        async with (
            self.publishing(),
            background(self.batches.run, self.repair.run),
        ):
            yield

    async def decide(self, user: str, minute: float) -> None:
        """Send an event, and wait until its batch is released."""
        self.send(view(user, minute))
        batch = self.group.fetch(0)
        await self.batches.put(batch)
        await until(lambda: batch.acked)

    def write_late(self, record: StoredRecord) -> None:
        """Write a record of the changelog once more, as a stalled worker does."""
        self.log.append(SNAPSHOTS.name, 0, record.key, record.value, headers=record.headers)

    def changelog(self) -> list[StoredRecord]:
        return self.log.records(SNAPSHOTS.name)

    def stale_keys(self) -> list[bytes]:
        restorer = StateRestorer()
        for record in self.changelog():
            restorer.add(record.key or b"", record.value, tombstone_offset(record))
        return [change.key for change in restorer.repairs()]

    def repaired(self) -> float | None:
        return self.metric("clickscore_repaired_snapshots_total")


async def overlaid() -> tuple[RepairStage, StoredRecord]:
    """Return a stage that has decided on two events of a user, and the snapshot after the first event."""
    stage = RepairStage()
    async with stage.running():
        await stage.decide("ann", 0)
        older = stage.changelog()[0]
        await stage.decide("ann", 1)
    return stage, older


def test_overlaid_snapshot_is_written_again_after_the_next_own_write():
    async def run() -> None:
        stage, older = await overlaid()
        async with stage.running():
            stage.write_late(older)
            await stage.decide("bob", 2)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert stage.stale_keys() == []
        assert [record.key for record in stage.changelog()[-2:]] == [b"ann", PARTITION_KEY]
        assert decode_user(stage.changelog()[-2].value or b"").offset == 1
        assert stage.repaired() == 1

    asyncio.run(run())


def test_own_writes_that_join_are_no_overlay():
    async def run() -> None:
        stage, _ = await overlaid()
        assert not stage.publisher.overlays.is_pending(0)
        assert len(stage.changelog()) == 6

    asyncio.run(run())


def test_late_snapshot_of_a_forgotten_user_is_removed_again():
    async def run() -> None:
        stage, older = await overlaid()
        async with stage.running():
            await stage.decide("bob", 120)
            assert stage.pipeline.partitions[0].user("ann").length == 0
            stage.write_late(older)
            await stage.decide("bob", 121)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert stage.stale_keys() == []
        last = next(record for record in reversed(stage.changelog()) if record.key == b"ann")
        assert (last.value, dict(last.headers)) == (None, {OFFSET_HEADER: b"3"})

    asyncio.run(run())


def test_user_that_changes_meanwhile_is_written_once():
    async def run() -> None:
        stage, older = await overlaid()
        async with stage.running():
            stage.write_late(older)
            await stage.decide("ann", 2)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert stage.stale_keys() == []
        assert decode_user([r for r in stage.changelog() if r.key == b"ann"][-1].value or b"").offset == 2

    asyncio.run(run())


def test_foreign_records_of_the_same_age_need_no_repair():
    async def run() -> None:
        stage, _ = await overlaid()
        async with stage.running():
            stage.write_late(stage.changelog()[-2])
            await stage.decide("bob", 2)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert stage.repaired() == 0

    asyncio.run(run())


def test_worker_that_is_behind_the_other_writer_repairs_nothing():
    async def run() -> None:
        stage, older = await overlaid()
        async with stage.running():
            stage.write_late(older)
            ahead = encode(PartitionSnapshot(offset=1_000))
            stage.log.append(SNAPSHOTS.name, 0, PARTITION_KEY, ahead)
            await stage.decide("bob", 2)
            await stage.decide("bob", 3)
        assert stage.publisher.overlays.is_pending(0)
        assert stage.repaired() == 0

    asyncio.run(run())


def test_foreign_record_that_is_no_snapshot_is_named_and_written_over(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage, older = await overlaid()
        async with stage.running():
            stage.log.append(SNAPSHOTS.name, 0, b"ann", b"no snapshot")
            stage.log.append(SNAPSHOTS.name, 0, b"\xff", older.value)
            await stage.decide("bob", 2)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert decode_user([r for r in stage.changelog() if r.key == b"ann"][-1].value or b"").offset == 1

    asyncio.run(run())
    assert "session-snapshots-0 at offset 6 is no snapshot" in caplog.text
    assert "session-snapshots-0 at offset 7 is no snapshot" in caplog.text


def test_repair_waits_for_a_broker_that_does_not_answer(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage, older = await overlaid()
        stage.open_errors = [KafkaConnectionError("gone")]
        async with stage.running():
            stage.write_late(older)
            await stage.decide("bob", 2)
            await until(lambda: not stage.publisher.overlays.is_pending(0))
        assert stage.stale_keys() == []

    asyncio.run(run())
    assert "trying again" in caplog.text


def test_restore_of_the_partition_makes_a_repair_needless():
    async def run() -> None:
        stage, older = await overlaid()
        stage.write_late(older)
        async with stage.publishing(), background(stage.batches.run):
            await stage.decide("bob", 2)
        assert stage.publisher.overlays.is_pending(0)
        stage.publisher.overlays.resolve_partition(0)
        async with stage.running():
            await stage.decide("bob", 3)
        assert stage.repaired() == 0

    asyncio.run(run())
