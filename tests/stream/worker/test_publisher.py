"""Publisher: decisions are stored before snapshots, snapshots before the commit, whatever Kafka does."""

import asyncio

import msgspec
import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.events import decode_record, encode_event
from clickscore.schemas.handover import Handover
from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY
from clickscore.schemas.topics import ADS, CLOSED_SESSIONS, DEAD_LETTERS, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline_records import Output
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.worker.outgoing import PublishJob
from clickscore.stream.worker.publisher import SNAPSHOT_BATCH_BYTES
from tests.events import identify, view
from tests.memory_kafka import MemoryBatch
from tests.stream.worker.stage import Stage, settle, until


def publish(stage: Stage, *jobs: PublishJob) -> None:
    """Publish jobs until all are released."""

    async def run() -> None:
        async with stage.publishing():
            for job in jobs:
                await stage.publisher.put(job)
            await until(lambda: all(job.batch.acked for job in jobs))

    asyncio.run(run())


def failure(stage: Stage, *jobs: PublishJob) -> BaseException:
    """Return the error with which the publisher stops."""

    async def run() -> None:
        async with stage.publishing() as loops:
            for job in jobs:
                await stage.publisher.put(job)
            await loops

    with pytest.raises(BrokerError) as caught:
        asyncio.run(run())
    return caught.value


def owning(**changes: object) -> Stage:
    stage = Stage(**changes)
    stage.own()
    return stage


# The order


def test_decisions_are_acknowledged_then_snapshots_and_then_the_batch_is_committable():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0)))
    assert stage.journal == [
        f"{RECOMMENDATIONS.name} acknowledged",
        f"{SNAPSHOTS.name} acknowledged",
        "committable",
        "acked",
    ]


def test_handover_goes_to_the_partition_of_the_user_and_is_acknowledged_before_the_snapshots():
    async def run() -> None:
        stage = owning()
        stage.group.partitions = 4
        job = stage.compute_job(view("cookie", 0), identify("cookie", 1, "ann"))
        acknowledge = stage.group.producer.hold(EVENTS.name)
        async with stage.publishing():
            await stage.publisher.put(job)
            await until(lambda: stage.log.records(EVENTS.name, partition_of(b"ann", 4), start=0)[-1:])
            await settle()
            assert (stage.log.records(SNAPSHOTS.name), job.batch.committable) == ([], False)
            acknowledge.set()
            await until(lambda: job.batch.committable)
        record = stage.log.records(EVENTS.name, partition_of(b"ann", 4))[-1]
        assert record.key == b"ann"
        assert isinstance(decode_record(record.value or b""), Handover)

    asyncio.run(run())


def test_handover_waits_until_the_number_of_partitions_is_known():
    async def run() -> None:
        stage = owning()
        job = stage.compute_job(view("cookie", 0), identify("cookie", 1, "ann"))
        async with stage.publishing():
            await stage.publisher.put(job)
            await settle()
            assert not stage.log.records(RECOMMENDATIONS.name)
            stage.group.partitions = 4
            await until(lambda: job.batch.committable)
        assert stage.log.records(EVENTS.name, partition_of(b"ann", 4))

    asyncio.run(run())


def test_no_snapshot_is_stored_before_the_decisions_are_acknowledged():
    async def run() -> None:
        stage = owning()
        job, acknowledge = stage.compute_job(view("ann", 0)), stage.group.producer.hold(RECOMMENDATIONS.name)
        async with stage.publishing():
            await stage.publisher.put(job)
            await until(lambda: stage.log.records(RECOMMENDATIONS.name))
            await settle()
            assert (stage.log.records(SNAPSHOTS.name), job.batch.committable) == ([], False)
            acknowledge.set()
            await until(lambda: job.batch.committable)

    asyncio.run(run())


def test_batch_is_not_committable_before_its_snapshots_are_acknowledged():
    async def run() -> None:
        stage = owning()
        job, acknowledge = stage.compute_job(view("ann", 0)), stage.group.producer.hold(SNAPSHOTS.name)
        async with stage.publishing():
            await stage.publisher.put(job)
            await until(lambda: stage.log.records(SNAPSHOTS.name))
            await settle()
            assert (job.batch.committable, job.batch.acked) == (False, False)
            acknowledge.set()
            await until(lambda: job.batch.acked)

    asyncio.run(run())


def test_decisions_of_the_next_batch_do_not_wait_for_the_snapshots_of_the_last_one():
    async def run() -> None:
        stage = owning()
        stage.group.producer.hold(SNAPSHOTS.name)
        async with stage.publishing():
            await stage.publisher.put(stage.compute_job(view("ann", 0)))
            await until(lambda: stage.log.records(SNAPSHOTS.name))
            await stage.publisher.put(stage.compute_job(view("ann", 1)))
            await until(lambda: len(stage.log.records(RECOMMENDATIONS.name)) == 2)

    asyncio.run(run())


# What is stored


def test_few_snapshots_wait_a_moment_for_more():
    stage = owning(light_wait_s=0.005)
    publish(stage, stage.compute_job(view("ann", 0)), stage.compute_job(view("bob", 1)))
    assert stage.journal.count(f"{SNAPSHOTS.name} acknowledged") == 1


def test_snapshots_of_waiting_batches_are_stored_once_a_key_with_the_partition_last():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0)), stage.compute_job(view("ann", 1), view("bob", 1)))
    assert [record.key for record in stage.log.records(SNAPSHOTS.name)] == [
        b"ann",
        b"\0uann",
        b"bob",
        b"\0ubob",
        PARTITION_KEY,
    ]


def test_partition_record_comes_last_when_only_the_later_batch_touches_a_user():
    stage = owning()
    publish(stage, stage.compute_job(b"broken"), stage.compute_job(view("ann", 1)))
    assert [record.key for record in stage.log.records(SNAPSHOTS.name)][-1] == PARTITION_KEY


def test_changelog_offset_after_the_own_write_is_remembered():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0)))
    assert stage.publisher.written == {0: stage.log.end(SNAPSHOTS.name)}


def test_writing_no_change_stores_nothing_and_keeps_the_changelog_offset():
    stage = owning()
    assert asyncio.run(stage.publisher.write(0, [])) == -1
    assert stage.log.records(SNAPSHOTS.name) == []


def test_tombstone_carries_its_event_offset_as_a_header():
    stage = owning()
    asyncio.run(stage.publisher.write(0, [ChangelogRecord(b"ann", None, 17)]))
    assert stage.log.records(SNAPSHOTS.name)[0].headers == [(OFFSET_HEADER, b"17")]


def test_decisions_carry_the_headers_of_their_job():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0)))
    assert stage.log.records(RECOMMENDATIONS.name)[0].headers == [("scored", b"{}")]


def test_ads_go_to_their_topic():
    stage = owning()
    stage.pipeline.catalogue.update_campaign(
        b"c", msgspec.json.encode(Campaign(campaign_id="c", item_id="kettle", bid=1.0))
    )
    publish(stage, stage.compute_job(view("ann", 0)))
    assert len(stage.log.records(ADS.name)) == 1


def test_closed_sessions_go_to_their_topic():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0), view("ann", 60)))
    assert [record.key for record in stage.log.records(CLOSED_SESSIONS.name)] == [b"ann"]


def test_dead_letter_keeps_the_raw_bytes_and_says_where_they_were():
    stage = owning()
    publish(stage, stage.compute_job(b"broken"))
    (letter,) = stage.log.records(DEAD_LETTERS.name)
    headers = dict(letter.headers)
    assert (letter.value, headers["topic"], headers["partition"], headers["offset"]) == (
        b"broken",
        b"clickstream-events",
        b"0",
        b"0",
    )
    assert headers["error"]


def test_dead_letter_that_is_too_large_is_cut_and_says_its_length():
    stage = owning()
    publish(stage, stage.compute_job(bytes(70_000)))
    (letter,) = stage.log.records(DEAD_LETTERS.name)
    assert len(letter.value or b"") == stage.settings.sessions.max_event_bytes
    assert dict(letter.headers)["cut-from-bytes"] == b"70000"


def test_snapshots_share_a_record_batch_up_to_its_size():
    def large_job(stage: Stage) -> PublishJob:
        change = ChangelogRecord(b"ann", bytes(SNAPSHOT_BATCH_BYTES), 0)
        return PublishJob(stage.fetch(), Output(changes=[change] * 64), [])

    stage = owning()
    publish(stage, large_job(stage), large_job(stage))
    assert stage.journal.count(f"{SNAPSHOTS.name} acknowledged") == 2


def test_outcomes_are_counted_once_their_batch_is_committable():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0), view("ann", 0), b"broken"))
    counts = {
        outcome: stage.metric("clickscore_events_total", outcome=outcome) for outcome in ("decided", "repeated", "dead")
    }
    assert counts == {"decided": 1, "repeated": 1, "dead": 1}
    assert stage.metric("clickscore_unscored_total") == 1
    assert stage.metric("clickscore_published_total", topic=RECOMMENDATIONS.name) == 1


# Refused and slow acknowledgements


@pytest.mark.parametrize("topic", [RECOMMENDATIONS.name, SNAPSHOTS.name])
@pytest.mark.parametrize("error", [KafkaError("no"), ValueError("too large")])
def test_refusal_stops_the_publisher_with_its_reason(topic: str, error: Exception):
    stage = owning()
    stage.group.producer.refusals[topic] = error
    assert str(error) in str(failure(stage, stage.compute_job(view("ann", 0))))


@pytest.mark.parametrize("topic", [RECOMMENDATIONS.name, SNAPSHOTS.name])
def test_refused_batch_is_never_committable(topic: str):
    stage = owning()
    stage.group.producer.refusals[topic] = KafkaError("no")
    job = stage.compute_job(view("ann", 0))
    failure(stage, job)
    assert not job.batch.committable


@pytest.mark.parametrize("topic", [RECOMMENDATIONS.name, SNAPSHOTS.name])
def test_state_of_a_refused_batch_is_discarded(topic: str):
    stage = owning()
    stage.group.producer.refusals[topic] = KafkaError("no")
    failure(stage, stage.compute_job(view("ann", 0)))
    assert dict(stage.pipeline.partitions) == {}
    assert not stage.ownership.is_restored([0])


def test_refused_decisions_leave_no_snapshot():
    stage = owning()
    stage.group.producer.refusals[RECOMMENDATIONS.name] = KafkaError("no")
    failure(stage, stage.compute_job(view("ann", 0)))
    assert stage.log.records(SNAPSHOTS.name) == []


@pytest.mark.parametrize("topic", [RECOMMENDATIONS.name, SNAPSHOTS.name])
def test_acknowledgement_that_does_not_come_stops_the_publisher(topic: str):
    async def run() -> BaseException:
        stage = owning(broker_wait_ms=20)
        stage.group.producer.hold(topic)
        async with stage.publishing() as loops:
            job = stage.compute_job(view("ann", 0))
            await stage.publisher.put(job)
            with pytest.raises(BrokerError) as caught:
                await loops
            assert not job.batch.committable
            assert dict(stage.pipeline.partitions) == {}
            return caught.value

    assert "has not acknowledged for 0 s (broker_wait_ms)" in str(asyncio.run(run()))


def test_slow_acknowledgement_is_warned_of_and_waited_for(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage = owning()
        job, acknowledge = stage.compute_job(view("ann", 0)), stage.group.producer.hold(RECOMMENDATIONS.name)
        async with stage.publishing():
            await stage.publisher.put(job)
            await until(lambda: caplog.messages)
            acknowledge.set()
            await until(lambda: job.batch.committable)

    asyncio.run(run())
    assert caplog.messages == ["waiting for Kafka to acknowledge what was published, for at most 5 s"]


# Abandoned batches


def test_batch_of_another_generation_is_released_and_nothing_of_it_is_stored():
    stage = owning()
    job = stage.compute_job(view("ann", 0))
    stage.group.rebalance(0)
    publish(stage, job)
    assert (stage.log.records(RECOMMENDATIONS.name), stage.journal) == ([], ["acked"])


def test_state_of_a_batch_of_another_generation_is_discarded():
    stage = owning()
    job = stage.compute_job(view("ann", 0))
    stage.group.rebalance(0)
    publish(stage, job)
    assert dict(stage.pipeline.partitions) == {}


def test_rebalance_between_decisions_and_snapshots_gives_the_batch_up():
    async def run() -> tuple[Stage, MemoryBatch]:
        stage = owning()
        job, acknowledge = stage.compute_job(view("ann", 0)), stage.group.producer.hold(RECOMMENDATIONS.name)
        async with stage.publishing():
            await stage.publisher.put(job)
            await until(lambda: stage.log.records(RECOMMENDATIONS.name))
            stage.group.rebalance(0)
            acknowledge.set()
            await until(lambda: job.batch.acked)
        return stage, job.batch

    stage, batch = asyncio.run(run())
    assert (stage.log.records(SNAPSHOTS.name), batch.committable) == ([], False)


def test_batch_of_another_generation_does_not_discard_a_state_that_was_restored_since():
    stage = owning()
    job = stage.compute_job(view("ann", 0))
    stage.group.rebalance(0)
    stage.own()
    publish(stage, job)
    assert list(stage.pipeline.partitions) == [0]


def test_a_batch_without_changes_leaves_the_partitions_record_of_the_batch_before_in_place():
    """Kafka delivers a batch again after a rebalance, and nothing in it is new: its job has no changes."""

    async def run() -> None:
        stage = owning()
        job, acknowledge = stage.compute_job(view("ann", 0)), stage.group.producer.hold(RECOMMENDATIONS.name)
        again = PublishJob(job.batch, stage.pipeline.process(0, job.batch.records), job.headers)
        assert (again.output.changes, again.output.outcomes) == ([], {"skipped": 1})
        async with stage.publishing():
            await stage.publisher.put(job)
            await stage.publisher.put(again)
            await settle()
            acknowledge.set()
            await until(lambda: stage.log.records(SNAPSHOTS.name))
        assert [record.key for record in stage.log.records(SNAPSHOTS.name)] == [b"ann", b"\0uann", PARTITION_KEY]

    asyncio.run(run())


# Latency


def test_time_from_event_to_decision_is_counted_between_the_append_times():
    stage = owning()
    first, second = view("ann", 0), view("bob", 1)
    stage.group.producer.append_time = second.ts + 30
    publish(stage, stage.compute_job(first, second))
    registry = stage.metrics.registry
    assert registry.get_sample_value("clickscore_event_to_decision_seconds_count") == 2
    assert registry.get_sample_value("clickscore_event_to_decision_seconds_sum") == 60.06


def test_time_to_a_decision_without_an_append_time_is_not_counted():
    stage = owning()
    publish(stage, stage.compute_job(view("ann", 0)))
    assert stage.metrics.registry.get_sample_value("clickscore_event_to_decision_seconds_count") == 0


def test_time_from_an_event_without_an_append_time_is_not_counted():
    stage = owning()
    stage.group.producer.append_time = 5
    publish(stage, stage.compute_job(encode_event(view("ann", 0))))
    assert stage.metrics.registry.get_sample_value("clickscore_event_to_decision_seconds_count") == 0
