"""Assignment: what is restored, what is kept in memory, and what a stalled worker has overlaid."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.snapshots import decode_partition, decode_user
from clickscore.schemas.topics import CATALOGUE, EVENTS, SNAPSHOTS
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.topic_description import TopicDescription
from clickscore.stream.reference.catalogue_history import Offsets
from clickscore.stream.reference.feed import CatalogueFeed
from clickscore.stream.worker.assignment import Assignment
from clickscore.stream.worker.epochs import EpochWriter
from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.outgoing import PublishJob
from clickscore.stream.worker.overlays import Overlay
from clickscore.stream.worker.reference import ReferenceData
from clickscore.stream.worker.ticks import IdleTicks
from tests.events import view
from tests.memory_kafka import MemoryLog, MemoryReader
from tests.stream.worker.stage import Stage


class AssignmentStage(Stage):
    """A stage whose group has just assigned partitions."""

    def __init__(self, *partitions: int, log: MemoryLog | None = None, **changes: object) -> None:
        super().__init__(*partitions, log=log, **changes)
        self.rebalances: list[tuple[int, ...]] = []
        """Partitions that a rebalance assigns while the changelog is being read."""
        self.after_reader: Callable[[], None] = lambda: None
        """Called as a reader of the log is closed."""
        self.losses = Losses(EVENTS.name, self.metrics, lambda *_: None)
        self.reference = ReferenceData(
            feed=CatalogueFeed(self.settings.kafka, self.open_reader),
            pipeline=self.pipeline,
            compute=self.compute,
            metrics=self.metrics,
            start=lambda work: asyncio.ensure_future(work()),  # pyright: ignore[reportArgumentType]
            wait_ms=20,
        )
        self.epochs = EpochWriter(
            self.pipeline,
            self.group,
            self.reference,
            topic=EVENTS.name,
            settings_hash=self.settings.identity_hash,
            gather_ms=10,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.assignment = Assignment(
            settings=self.settings,
            open_reader=self.open_reader,
            group=self.group,
            pipeline=self.pipeline,
            ownership=self.ownership,
            publisher=self.publisher,
            ticks=IdleTicks(
                self.pipeline, self.group, topic=EVENTS.name, tick_after_ms=0, clock=self.clock, metrics=self.metrics
            ),
            compute=self.compute,
            metrics=self.metrics,
            losses=self.losses,
            reference=self.reference,
            epochs=self.epochs,
        )

    @asynccontextmanager
    async def open_reader(self) -> AsyncGenerator[MemoryReader]:
        async with self.log.open_reader() as reader:
            yield reader
        if self.rebalances:
            self.group.rebalance(*self.rebalances.pop())
        self.after_reader()

    def restore(self) -> None:
        asyncio.run(self.assignment.restore())

    def publish(self, job: PublishJob) -> None:
        """Store a job's snapshots and release its batch, as the publisher's loop does."""
        written = asyncio.run(self.publisher.write(job.batch.partition, job.output.changes))
        self.publisher.written[job.batch.partition] = written
        self.ownership.release(job.batch)

    def states(self) -> dict[int, dict[bytes, bytes]]:
        return {partition: state.contents() for partition, state in self.pipeline.partitions.items()}


def worked(*partitions: int) -> AssignmentStage:
    """Return a stage that has decided on an event of each partition."""
    stage = AssignmentStage(*partitions)
    stage.restore()
    for partition in partitions:
        stage.publish(stage.compute_job(view("ann", 0), partition=partition))
    return stage


def heir(stage: AssignmentStage, *partitions: int) -> AssignmentStage:
    """Return another worker on the same log, before its restore."""
    return AssignmentStage(*partitions, log=stage.log)


def test_new_partition_starts_empty():
    stage = AssignmentStage(0, 1)
    stage.restore()
    assert {partition: len(state) for partition, state in stage.pipeline.partitions.items()} == {0: 0, 1: 0}


def test_state_of_another_worker_is_restored():
    stage = worked(0)
    successor = heir(stage, 0)
    successor.restore()
    assert successor.states() == stage.states()


def test_partition_is_read_on_behind_its_restored_state():
    successor = heir(worked(0), 0)
    successor.restore()
    assert successor.group.expected == {0: 1}


def test_restored_partitions_are_owned_in_the_present_generation():
    stage = AssignmentStage(0)
    stage.restore()
    assert stage.ownership.is_current(stage.fetch(0))


def test_state_that_is_still_the_newest_stays_in_memory():
    stage = worked(0)
    state = stage.pipeline.partitions[0]
    stage.group.rebalance(0)
    stage.restore()
    assert stage.pipeline.partitions[0] is state


def test_state_that_another_worker_wrote_after_is_restored():
    stage = worked(0)
    successor = heir(stage, 0)
    successor.restore()
    successor.publish(successor.compute_job(view("bob", 1)))
    stage.group.rebalance(0)
    stage.restore()
    assert stage.states() == successor.states()


def test_state_with_an_overlay_that_waits_for_its_repair_is_restored():
    stage = worked(0)
    state = stage.pipeline.partitions[0]
    stage.publisher.overlays.note(Overlay(0, 0, 1))
    stage.group.rebalance(0)
    stage.restore()
    assert stage.pipeline.partitions[0] is not state
    assert not stage.publisher.overlays.is_pending(0)


def test_state_of_a_batch_that_is_still_to_be_published_is_restored():
    stage = worked(0)
    published = stage.states()
    stage.compute_job(view("bob", 1))
    stage.group.rebalance(0)
    stage.restore()
    assert stage.states() == published


def test_state_that_was_discarded_is_restored():
    stage = worked(0)
    published = stage.states()
    job = stage.compute_job(view("bob", 1))
    stage.ownership.discard_state(job.batch)
    stage.ownership.release(job.batch)
    stage.group.rebalance(0)
    stage.restore()
    assert stage.states() == published


def test_batch_that_is_given_up_in_the_middle_of_the_restore_does_not_take_the_restored_state():
    stage = worked(0)
    job = stage.compute_job(view("ann", 1))  # of a generation that ends before its output is stored
    former = stage.pipeline.partitions[0]

    def give_up() -> None:
        if stage.pipeline.partitions[0] is not former:
            stage.ownership.discard_state(job.batch)

    stage.group.rebalance(0)
    stage.after_reader = give_up
    stage.restore()
    assert stage.pipeline.partitions[0].offset == 0
    assert stage.ownership.is_restored([0])


def test_state_of_a_lost_partition_is_dropped():
    stage = worked(0, 1)
    stage.group.rebalance(1)
    stage.restore()
    assert list(stage.pipeline.partitions) == [1]


def test_worker_without_partitions_is_restored():
    stage = worked(0)
    stage.group.rebalance()
    stage.restore()
    assert (dict(stage.pipeline.partitions), stage.ownership.is_restored([])) == ({}, True)


def test_rebalance_in_the_middle_leaves_the_restore_to_the_next_call():
    stage = AssignmentStage(0)
    stage.rebalances = [(1,)]
    stage.restore()
    assert (dict(stage.pipeline.partitions), stage.ownership.is_restored([0])) == ({}, False)
    stage.restore()
    assert list(stage.pipeline.partitions) == [1]


def test_snapshot_of_a_stalled_worker_does_not_step_a_user_back():
    stage = worked(0)
    stale = next(record for record in stage.log.records(SNAPSHOTS.name) if record.key)
    stage.publish(stage.compute_job(view("ann", 1)))
    stage.log.append(SNAPSHOTS.name, 0, stale.key, stale.value)
    successor = heir(stage, 0)
    successor.restore()
    assert successor.states() == stage.states()


def test_overlaid_snapshot_is_written_again():
    stage = worked(0)
    stale = next(record for record in stage.log.records(SNAPSHOTS.name) if record.key)
    stage.publish(stage.compute_job(view("ann", 1)))
    stage.log.append(SNAPSHOTS.name, 0, stale.key, stale.value)
    successor = heir(stage, 0)
    successor.restore()
    last = stage.log.records(SNAPSHOTS.name)[-1]
    assert (last.key, decode_user(last.value or b"").offset) == (b"ann", 1)
    assert successor.metric("clickscore_repaired_snapshots_total") == 1


def test_repaired_partition_is_kept_in_memory_at_the_next_rebalance():
    stage = worked(0)
    stale = next(record for record in stage.log.records(SNAPSHOTS.name) if record.key)
    stage.publish(stage.compute_job(view("ann", 1)))
    stage.log.append(SNAPSHOTS.name, 0, stale.key, stale.value)
    successor = heir(stage, 0)
    successor.restore()
    state = successor.pipeline.partitions[0]
    successor.group.rebalance(0)
    successor.restore()
    assert successor.pipeline.partitions[0] is state


def test_stalled_worker_that_wrote_late_is_noticed():
    stage = worked(0)
    stale = next(record for record in stage.log.records(SNAPSHOTS.name) if record.key)
    state = stage.pipeline.partitions[0]
    stage.log.append(SNAPSHOTS.name, 0, stale.key, stale.value)
    stage.group.rebalance(0)
    stage.restore()
    assert stage.pipeline.partitions[0] is not state


def test_state_that_is_ahead_of_the_events_stops_the_restore():
    stage = worked(0)
    successor = AssignmentStage(0)
    for record in stage.log.records(SNAPSHOTS.name):
        successor.log.append(SNAPSHOTS.name, 0, record.key, record.value)
    with pytest.raises(TopicMissingError, match="up to offset 0, but that partition ends earlier"):
        successor.restore()


def test_first_epoch_is_stored_before_the_first_decision():
    stage = AssignmentStage(0)
    stage.restore()
    (record,) = stage.log.records(SNAPSHOTS.name)
    assert decode_partition(record.value or b"").epoch == stage.epochs.present(0)
    assert stage.publisher.written == {0: 1}


def test_successor_begins_in_the_first_epoch_of_its_predecessor():
    stage = AssignmentStage(0)
    stage.restore()
    stage.log.append(CATALOGUE.name, 0, b"kettle", encode(Item(item_id="kettle", stock=0)))
    successor = heir(stage, 0)
    successor.restore()
    assert successor.pipeline.partitions[0].epoch == stage.pipeline.partitions[0].epoch
    assert successor.reference.position == Offsets(1, 0)
    assert successor.pipeline.catalogue.item_ids == set()


def test_partition_in_an_earlier_epoch_than_the_others_is_served():
    stage = AssignmentStage(0)
    other = heir(stage, 1)
    stage.restore()
    stage.log.append(CATALOGUE.name, 0, b"kettle", encode(Item(item_id="kettle", stock=0)))
    other.restore()
    assert other.pipeline.catalogue.out_of_stock == {"kettle"}
    other.group.rebalance(0, 1)
    other.restore()
    views = [other.pipeline.history.view(Offsets(offset, 0)) for offset in (0, 1)]
    assert ["kettle" in view.out_of_stock for view in views] == [False, True]


def test_rebalances_and_restored_users_are_counted():
    successor = heir(worked(0, 1), 0, 1)
    successor.restore()
    assert successor.metric("clickscore_rebalances_total") == 1
    assert successor.metric("clickscore_restored_users") == 2


def test_log_with_another_event_at_the_offset_of_the_state_is_refused():
    stage = worked(0)
    stage.log.cut_back(EVENTS.name, 0, 0)
    stage.send(*[view("bob", minute) for minute in range(1, 6)])
    successor = heir(stage, 0)
    with pytest.raises(TopicMissingError, match="up to offset 0, but another event is at that offset now"):
        successor.restore()


def test_record_that_cannot_be_read_again_proves_nothing():
    stage = worked(0)
    stage.log.cut_back(EVENTS.name, 0, 0)
    stage.log.append(EVENTS.name, 0, None, b"{}", offset=-1)  # so that the log does not begin behind the state
    stage.log.append(EVENTS.name, 0, None, b"{}", offset=1)
    successor = heir(stage, 0)
    successor.restore()
    assert successor.group.expected == {0: 1}


def test_events_that_the_log_no_longer_has_are_reported_as_lost():
    stage = worked(0)
    stage.send(*[view("ann", minute) for minute in range(1, 6)])
    stage.log.delete_before(EVENTS.name, 0, 4)
    successor = heir(stage, 0)
    successor.restore()
    assert (successor.losses.events, successor.group.expected) == (3, {0: 4})


def test_markers_behind_the_last_event_are_no_loss_when_retention_has_emptied_the_log():
    stage = worked(0)
    stage.send(*[view("ann", minute) for minute in range(1, 6)])
    stage.log.delete_before(EVENTS.name, 0, 4)
    stage.log.committed = {TopicPartition(EVENTS.name, 0): 4}
    successor = heir(stage, 0)
    successor.restore()
    assert (successor.losses.events, successor.group.expected) == (0, {0: 4})


def test_first_worker_on_a_log_without_its_beginning_has_lost_nothing():
    stage = AssignmentStage(0)
    stage.send(*[view("ann", minute) for minute in range(5)])
    stage.log.delete_before(EVENTS.name, 0, 4)
    stage.restore()
    assert (stage.losses.events, stage.group.expected) == (0, {0: 4})


def test_state_remembers_the_id_of_its_topic():
    stage = AssignmentStage(0)
    stage.log.descriptions[EVENTS.name] = TopicDescription(1, "first")
    stage.restore()
    stage.publish(stage.compute_job(view("ann", 0)))
    assert decode_partition(stage.log.records(SNAPSHOTS.name)[-1].value or b"").topic_id == "first"


def test_state_of_an_earlier_topic_stops_the_restore():
    stage = AssignmentStage(0)
    stage.log.descriptions[EVENTS.name] = TopicDescription(1, "first")
    stage.restore()
    stage.publish(stage.compute_job(view("ann", 0)))
    stage.log.descriptions[EVENTS.name] = TopicDescription(1, "second")
    with pytest.raises(TopicMissingError, match="the topic was deleted and created again"):
        heir(stage, 0).restore()


@pytest.mark.parametrize(("before", "after"), [("", "second"), ("first", "")])
def test_state_or_broker_without_an_id_of_the_topic_is_accepted(before: str, after: str):
    stage = AssignmentStage(0)
    stage.log.descriptions[EVENTS.name] = TopicDescription(1, before)
    stage.restore()
    stage.publish(stage.compute_job(view("ann", 0)))
    stage.log.descriptions[EVENTS.name] = TopicDescription(1, after)
    successor = heir(stage, 0)
    successor.restore()
    assert len(successor.pipeline.partitions[0]) == 1


def test_with_transactions_the_restore_writes_in_a_transaction():
    stage = AssignmentStage(0, delivery="exactly_once")
    stage.restore()
    assert stage.journal == ["partition 0 committed"]
    assert stage.publisher.written == {0: stage.log.end(SNAPSHOTS.name)}
    assert stage.ownership.is_restored([0])


def test_worker_that_is_fenced_during_the_restore_writes_nothing_and_waits_for_the_next_rebalance():
    stage = AssignmentStage(0, delivery="exactly_once")

    def take_over() -> None:
        stage.transactions.epochs[0] += 1

    stage.after_reader = take_over
    stage.restore()
    assert stage.log.records(SNAPSHOTS.name) == []
    assert not stage.ownership.is_restored([0])
