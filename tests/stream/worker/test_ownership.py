"""Ownership: which batches are current, and which state in memory is valid."""

from tests.events import view
from tests.stream.worker.stage import Stage


def restored(*partitions: int) -> Stage:
    stage = Stage(*partitions)
    stage.own()
    return stage


def test_batch_of_the_generation_in_which_its_state_was_restored_is_current():
    stage = restored(0)
    assert stage.ownership.is_current(stage.fetch(0))


def test_batch_that_a_rebalance_overtook_is_not_current():
    stage = restored(0)
    batch = stage.fetch(0)
    stage.group.rebalance(0)
    assert not stage.ownership.is_current(batch)


def test_batch_that_a_restore_overtook_is_not_current():
    stage = restored(0)
    batch = stage.fetch(0)
    stage.group.rebalance(0)
    stage.own()
    assert not stage.ownership.is_current(batch)


def test_batch_of_a_partition_without_restored_state_is_not_current():
    assert not restored(0).ownership.is_current(Stage(1).fetch(1))


def test_empty_assignment_is_restored_only_once_the_group_has_said_so():
    stage = Stage()
    assert not stage.ownership.is_restored([])
    stage.ownership.own([], generation=1)
    assert stage.ownership.is_restored([])


def test_assignment_with_a_partition_without_state_is_not_restored():
    assert not restored(0).ownership.is_restored([0, 1])


def test_partition_with_a_held_batch_is_not_settled():
    stage = restored(0)
    batch = stage.fetch(0)
    assert not stage.ownership.is_settled(0)
    stage.ownership.release(batch)
    assert stage.ownership.is_settled(0)


def test_release_tells_the_group():
    stage = restored(0)
    batch = stage.fetch(0)
    stage.ownership.release(batch)
    assert batch.acked


def test_discarded_state_leaves_the_pipeline():
    stage = restored(0, 1)
    jobs = [stage.compute_job(view("ann", 0), partition=partition) for partition in (0, 1)]
    stage.ownership.discard_state(jobs[0].batch)
    assert list(stage.pipeline.partitions) == [1]


def test_state_is_discarded_once():
    stage = restored(0)
    job = stage.compute_job(view("ann", 0))
    stage.ownership.discard_state(job.batch)
    stage.ownership.discard_state(job.batch)
    assert not stage.ownership.is_settled(0)
