"""Epochs: when a worker writes one, what waits for it, and that a successor decides with the same bytes."""

import asyncio
import random

import msgspec
import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.catalogue import encode as encode_item
from clickscore.schemas.events import Epoch, decode_record, encode_event
from clickscore.schemas.topics import ADS, CAMPAIGNS, CATALOGUE, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import CatalogueHistory, Offsets
from clickscore.stream.worker.epoch_gate import EpochGate
from clickscore.stream.worker.epochs import RETRY_S
from tests.events import view
from tests.memory_kafka import MemoryBatch, MemoryLog
from tests.stream.worker.stage import settle, until
from tests.stream.worker.test_assignment import AssignmentStage
from tests.stream.worker.test_engine import EngineStage


def send_item(log: MemoryLog, item_id: str, stock: int = 1) -> None:
    log.append(CATALOGUE.name, 0, item_id.encode(), encode_item(Item(item_id=item_id, stock=stock)))


def send_campaign(log: MemoryLog, campaign_id: str, bid: float) -> None:
    campaign = Campaign(campaign_id=campaign_id, item_id=f"ad-{campaign_id}", bid=bid)
    log.append(CAMPAIGNS.name, 0, campaign_id.encode(), encode_item(campaign))


def epochs(log: MemoryLog, partition: int = 0) -> list[Epoch]:
    records = [decode_record(record.value or b"") for record in log.records(EVENTS.name, partition)]
    return [record for record in records if isinstance(record, Epoch)]


def restored(*partitions: int, log: MemoryLog | None = None) -> AssignmentStage:
    stage = AssignmentStage(*partitions, log=log)
    stage.restore()
    return stage


def write_due(stage: AssignmentStage) -> None:
    asyncio.run(stage.epochs.write_due())


def read(stage: AssignmentStage, partition: int = 0) -> None:
    """Process the unread records of a partition."""
    batch = stage.group.fetch(partition)
    stage.pipeline.process(partition, batch.records)


def take_up(stage: AssignmentStage) -> None:
    """Add the new records of catalogue and campaigns, as the reader of the topics does."""
    for name in (CATALOGUE.name, CAMPAIGNS.name):
        position = stage.reference.position[name == CAMPAIGNS.name]
        for record in stage.log.records(name, start=position):
            assert stage.pipeline.history.add(name, record.offset, record.key, record.value) is None


def test_first_record_repeats_the_epoch_of_the_first_events():
    stage = restored(0)
    send_item(stage.log, "kettle")
    take_up(stage)
    write_due(stage)
    assert [(epoch.number, epoch.catalogue) for epoch in epochs(stage.log)] == [(1, 0)]


def test_changes_are_written_as_one_epoch():
    stage = restored(0)
    write_due(stage)
    read(stage)
    for item in ("kettle", "mug"):
        send_item(stage.log, item)
    take_up(stage)
    write_due(stage)
    read(stage)
    write_due(stage)
    assert [(epoch.number, epoch.catalogue) for epoch in epochs(stage.log)] == [(1, 0), (2, 2)]


def test_partition_that_lags_gets_no_second_record():
    stage = restored(0)
    write_due(stage)
    send_item(stage.log, "kettle")
    take_up(stage)
    write_due(stage)
    assert len(epochs(stage.log)) == 1


def test_each_partition_gets_its_own_record():
    stage = restored(0, 1)
    write_due(stage)
    assert [len(epochs(stage.log, partition)) for partition in (0, 1)] == [1, 1]


def test_partition_of_another_worker_gets_none():
    stage = restored(0)
    stage.epochs.assign([])
    write_due(stage)
    assert epochs(stage.log) == []


def test_other_settings_than_the_last_epoch_are_a_new_epoch():
    stage = restored(0)
    write_due(stage)
    job = stage.compute_job(view("ann", 0))
    stage.publish(job)
    successor = AssignmentStage(0, log=stage.log)
    successor.epochs._settings_hash = "other"
    successor.restore()
    write_due(successor)
    assert [(epoch.number, epoch.settings) for epoch in epochs(stage.log)] == [
        (1, stage.settings.identity_hash),
        (2, "other"),
    ]


@pytest.mark.parametrize("error", [KafkaError("not allowed"), ValueError("too large")])
def test_epoch_that_kafka_refuses_is_counted_and_tried_again_later(error: Exception, caplog: pytest.LogCaptureFixture):
    stage = restored(0)
    stage.group.producer.refusals[EVENTS.name] = error
    write_due(stage)
    write_due(stage)
    assert stage.metric("clickscore_failed_epochs_total") == 1
    assert str(error) in caplog.text
    del stage.group.producer.refusals[EVENTS.name]
    stage.clock.now += RETRY_S
    write_due(stage)
    assert stage.metric("clickscore_epochs_total") == 1


def test_worker_that_has_read_less_than_the_epoch_writes_none():
    stage = restored(0)
    stage.pipeline.begin_epoch(0, ahead(stage, 5))
    write_due(stage)
    assert epochs(stage.log) == []


def ahead(stage: AssignmentStage, catalogue: int) -> Epoch:
    return msgspec.structs.replace(stage.epochs.present(3), catalogue=catalogue)


def test_catalogue_that_was_made_anew_is_taken_up_by_the_next_epoch(caplog: pytest.LogCaptureFixture):
    stage = restored(0)
    stage.reference._wait_s = 5.0
    send_item(stage.log, "kettle", stock=0)
    take_up(stage)
    stage.pipeline.begin_epoch(0, ahead(stage, 500))
    assert not asyncio.run(stage.reference.reach(Offsets(500, 0)))
    assert "made anew" in caplog.text
    write_due(stage)
    assert [(epoch.number, epoch.catalogue) for epoch in epochs(stage.log)] == [(4, 1)]
    read(stage)
    assert "kettle" in stage.pipeline.history.view(Offsets(1, 0)).out_of_stock


def test_gate_holds_a_partition_until_its_epoch_is_reached_and_lets_the_others_go_on():
    async def run() -> list[int]:
        stage = AssignmentStage(0, 1)
        await stage.assignment.restore()
        stage.reference._wait_s = 5.0
        passed: list[int] = []

        async def put(batch: MemoryBatch) -> None:
            passed.append(batch.partition)

        gate = EpochGate(stage.reference, put)  # pyright: ignore[reportArgumentType]  (the double takes no other batch)
        stage.send(encode_event(ahead(stage, 1)), partition=0)
        stage.send(view("ann", 0), partition=1)
        await gate.put(stage.group.fetch(0))
        stage.send(view("bob", 0), partition=0)
        await gate.put(stage.group.fetch(0))
        await gate.put(stage.group.fetch(1))
        await settle()
        assert passed == [1]
        send_item(stage.log, "kettle")
        await until(lambda: len(passed) == 3)
        return passed

    assert asyncio.run(run()) == [1, 0, 0]


def test_wait_for_an_epoch_has_an_end(caplog: pytest.LogCaptureFixture):
    stage = restored(0)
    assert not asyncio.run(stage.reference.reach(Offsets(1, 0)))
    assert "go on with the present catalogue" in caplog.text
    assert stage.metric("clickscore_incomplete_epochs_total") == 1


def recompute(log: MemoryLog, stage: EngineStage) -> dict[str, bytes]:
    """Return the decisions that follow from the records of the log alone."""
    pipeline = Pipeline(stage.settings.sessions, stage.settings.policy, EVENTS.name, Catalogue())
    history = CatalogueHistory()
    for name in (CATALOGUE.name, CAMPAIGNS.name):
        for record in log.records(name):
            history.add(name, record.offset, record.key, record.value)
    pipeline.replace_history(history)
    first = epochs(log)[0]
    pipeline.begin_epoch(0, msgspec.structs.replace(first, number=0))
    output = pipeline.process(0, log.records(EVENTS.name))
    return by_id([message.value or b"" for message in output.recommendations + output.ads])


def by_id(decisions: list[bytes]) -> dict[str, bytes]:
    return {decision_id(decision): decision for decision in decisions}


def decision_id(decision: bytes) -> str:
    return msgspec.json.decode(decision)["decision_id"]


@pytest.mark.parametrize("seed", range(4))
def test_workers_that_die_between_catalogue_changes_decide_what_the_log_alone_says(seed: int):
    """Each worker dies with its last decisions published and without their snapshots, so they are decided again."""
    rng, log = random.Random(seed), MemoryLog()
    items = [f"item-{number}" for number in range(12)]

    def send() -> None:
        for _ in range(rng.randrange(4)):
            send_item(log, rng.choice(items), stock=rng.randrange(2))
        if rng.random() < 0.3:
            send_campaign(log, rng.choice("abc"), bid=float(rng.randrange(9)))
        for _ in range(rng.randrange(1, 5)):
            event = view(rng.choice(("ann", "bob")), len(log.records(EVENTS.name)), item=rng.choice(items))
            log.append(EVENTS.name, 0, None, encode_event(event))

    async def work(steps: int) -> EngineStage:
        stage = EngineStage(log=log)
        async with stage.running():
            for step in range(steps):
                send()
                if step == steps - 1:
                    stage.group.producer.refusals[SNAPSHOTS.name] = KafkaError("the worker dies here")
                batch = stage.group.fetch(0)
                await stage.engine.put(batch)
                await until(lambda batch=batch: batch.acked or stage.group.crashes)
                await until(lambda: log.end(CATALOGUE.name) == stage.pipeline.history.position.catalogue)
                await stage.engine._epochs.write_due()
        return stage

    for _ in range(5):
        stage = asyncio.run(work(rng.randrange(1, 6)))
    expected = recompute(log, stage)
    published = [record.value or b"" for topic in (RECOMMENDATIONS, ADS) for record in log.records(topic.name)]
    assert [decision for decision in published if expected[decision_id(decision)] != decision] == []
    assert len(published) > len(set(published))
    assert len(epochs(log)) > 3
