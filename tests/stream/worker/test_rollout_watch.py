"""Rollout watch: workers count and report, and the owner of partition 0 takes the next step or rolls back."""

import asyncio
import threading

import pytest
from aiokafka.errors import KafkaError

from clickscore.schemas.events import Epoch, encode_event
from clickscore.schemas.outcome_counts import PartitionReport, RatioSums, VariantCounts, encode_report
from clickscore.schemas.rollouts import Rollout, decode_rollout, encode_rollout
from clickscore.schemas.topics import EVENTS, ROLLOUTS
from clickscore.stream.policy.rollout_guard import MIN_DECISIONS
from clickscore.stream.worker.rollout_watch import SHADOW_WAITING
from clickscore.stream.worker.rollouts import RETRY_S
from tests.events import erase, view
from tests.events import records as recorded
from tests.memory_kafka import MemoryBatch, MemoryLog
from tests.stream.worker.stage import settle, until
from tests.stream.worker.test_rollouts import BAD, NEW, OLD, RolloutStage, champion, decisions

USERS = [f"user-{number}" for number in range(40)]


class WatchStage(RolloutStage):
    """A worker whose guard looks when a test says so."""

    def __init__(self, log: MemoryLog | None = None, partition: int = 0) -> None:
        super().__init__(log)
        self.group.rebalance(partition)
        assert self.engine._rollout_watch is not None
        self.watch = self.engine._rollout_watch

    def set_rollout(self, rollout: Rollout) -> None:
        self.log.append(ROLLOUTS.name, 0, rollout.name.encode(), encode_rollout(rollout))

    async def show(self, *users: str) -> None:
        """Send a view of each user and decide on all."""
        for user in users:
            self.log.append(EVENTS.name, 0, None, encode_event(view(user, self.log.end(EVENTS.name) / 100)))
        await self.work()

    def rollouts(self) -> list[Rollout]:
        records = self.log.records(ROLLOUTS.name)
        return [decode_rollout(record.value or b"") for record in records if record.key == b"default"]

    def report(self) -> PartitionReport:
        assert self.keeper.rollout is not None
        return self.keeper.reports(self.keeper.rollout)[0]


def canary(**changes: object) -> Rollout:
    fields = {"name": "default", "champion": OLD, "challenger": NEW, "share": 0.5, "changed_at": 7}
    return Rollout(**(fields | changes))  # pyright: ignore[reportArgumentType]


def counts(clicks: int, decisions: int = 10 * MIN_DECISIONS) -> VariantCounts:
    made = RatioSums()
    for user in range(decisions // 10):
        made.move_user((0, 0), (10, clicks + user % 2))
    return VariantCounts(decisions=decisions, model_items=decisions, clicks=made)


def total(report: PartitionReport) -> int:
    return report.champion.decisions + report.challenger.decisions


def send_report(log: MemoryLog, partition: int, champion: VariantCounts, challenger: VariantCounts) -> None:
    report = PartitionReport(changed_at=7, champion=champion, challenger=challenger)
    log.append(ROLLOUTS.name, 0, f"default/{partition}".encode(), encode_report(report))


async def started(stage: WatchStage, rollout: Rollout) -> None:
    """Decide on events of all users in the rollout."""
    await stage.reach(rollout.deciding)
    await stage.show(*USERS)
    await stage.show(*USERS)


def test_counts_of_both_variants_are_reported():
    async def run() -> PartitionReport:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(canary()))
            return stage.report()

    report = asyncio.run(run())
    assert report.champion.decisions + report.challenger.decisions == 80
    assert min(report.champion.clicks.users, report.challenger.clicks.users) > 5


def test_next_owner_goes_on_with_the_counts_of_the_last_one():
    async def run() -> int:
        stage = WatchStage()
        stage.set_rollout(canary())
        send_report(stage.log, 0, counts(1), counts(1))
        async with stage.running():
            await started(stage, canary())
            await stage.watch.look()
            await until(lambda: total(stage.report()) > 20 * MIN_DECISIONS)
            return total(stage.report())

    assert asyncio.run(run()) == 20 * MIN_DECISIONS + 80


def test_next_owner_keeps_the_counts_of_the_last_one_until_its_first_decision():
    async def run() -> int:
        stage = WatchStage()
        stage.set_rollout(canary(challenger=BAD))
        send_report(stage.log, 0, counts(1), counts(1))
        async with stage.running():
            await until(lambda: stage.keeper.refused)
            await stage.watch.look()
            await until(lambda: stage.report().refused)
            return total(stage.report())

    assert asyncio.run(run()) == 20 * MIN_DECISIONS


def test_report_that_has_not_changed_is_not_written_again():
    async def run() -> list[int]:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(canary()))
            ends = [stage.log.end(ROLLOUTS.name)]
            await stage.watch.look()
            return [*ends, stage.log.end(ROLLOUTS.name)]

    assert asyncio.run(run()) == [2, 2]


def test_counts_of_a_rollout_are_not_charged_to_the_next():
    later = canary(champion=NEW, challenger=OLD, changed_at=8)

    async def run() -> int:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            stage.set_rollout(later)
            await until(lambda: stage.keeper.rollout == later)
            end = stage.log.end(ROLLOUTS.name)
            await stage.watch.look()
            return stage.log.end(ROLLOUTS.name) - end

    assert asyncio.run(run()) == 0


def test_decisions_of_an_earlier_epoch_do_not_count():
    later = canary(challenger=BAD, changed_at=8)

    async def run() -> PartitionReport:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            stage.set_rollout(later)
            await until(lambda: stage.keeper.refused)
            await stage.show(*USERS)
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(later))
            return stage.report()

    report = asyncio.run(run())
    assert (report.champion.decisions, report.challenger.decisions) == (0, 0)


def test_decisions_of_the_champion_in_place_of_a_missing_challenger_do_not_count():
    async def run() -> WatchStage:
        stage = WatchStage()
        stage.broken.add(NEW)
        stage.set_rollout(canary())
        await stage.engine.prepare()
        return stage

    stage = asyncio.run(run())
    stage.pipeline.begin_epoch(0, Epoch(number=1, catalogue=0, campaigns=0, rollout=canary().deciding))
    batch = MemoryBatch(0, list(recorded(*(view(user, 0) for user in USERS))), 1)  # pyright: ignore[reportArgumentType]
    output = stage.pipeline.process(0, batch.records)
    stage.watch.observe([batch], [output])
    counter = stage.watch._counters[0]
    assert output.items["challenger", "model"] > 0
    assert counter.challenger.decisions == 0
    assert counter.champion.decisions == output.items["model", "model"] > 0


def test_challenger_with_fewer_clicks_is_rolled_back_and_the_log_says_why(caplog: pytest.LogCaptureFixture):
    async def run() -> WatchStage:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            send_report(stage.log, 3, counts(3), counts(1))
            await until(lambda: 3 in stage.keeper.reports(canary()))
            await stage.watch.look()
            await stage.watch.look()  # the same state is judged once
            await stage.reach(champion(OLD))
        return stage

    stage = asyncio.run(run())
    assert len(stage.rollouts()) == 2
    assert "is rolled back: clicks per 100 decisions" in stage.rollouts()[-1].reason
    assert "is rolled back: clicks per 100 decisions" in caplog.text
    assert stage.metric("clickscore_rollbacks_total") == 1


def test_command_during_a_look_of_the_guard_counts():
    command = canary(challenger=None, share=0.0, changed_at=8)

    async def run() -> list[Rollout]:
        stage = WatchStage()
        stage.set_rollout(canary())
        is_commanded = threading.Event()
        async with stage.running():
            send_report(stage.log, 3, counts(3), counts(1))
            await until(lambda: 3 in stage.keeper.reports(canary()))
            busy = asyncio.create_task(stage.engine._compute.call(is_commanded.wait))
            look = asyncio.create_task(stage.watch.look())
            await settle()  # the look waits for the compute thread
            stage.set_rollout(command)
            await until(lambda: stage.keeper.rollout == command)
            is_commanded.set()
            await asyncio.gather(busy, look)
        return stage.rollouts()

    assert asyncio.run(run()) == [canary(), command]


def test_rollback_that_kafka_refuses_is_not_counted_and_is_tried_again(caplog: pytest.LogCaptureFixture):
    async def run() -> list[float | None]:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            send_report(stage.log, 3, counts(3), counts(1))
            await until(lambda: 3 in stage.keeper.reports(canary()))
            stage.group.producer.refusals[ROLLOUTS.name] = KafkaError("not allowed")
            await stage.watch.look()
            assert "is rolled back" not in caplog.text
            rollbacks = [stage.metric("clickscore_rollbacks_total")]
            del stage.group.producer.refusals[ROLLOUTS.name]
            await stage.watch.look()
            return [*rollbacks, stage.metric("clickscore_rollbacks_total")]

    assert asyncio.run(run()) == [0, 1]


def test_ramp_goes_on_when_its_time_is_over():
    async def run() -> list[Rollout]:
        stage = WatchStage()
        ramp = canary(steps=(1.0,), step_ms=1_000)
        stage.set_rollout(ramp)
        async with stage.running():
            await started(stage, ramp)
            send_report(stage.log, 3, counts(3), counts(3))
            await until(lambda: 3 in stage.keeper.reports(ramp))
            await stage.watch.look()
            await until(lambda: stage.keeper.rollout and stage.keeper.rollout.share == 1.0)
            await stage.reach(stage.rollouts()[-1].deciding)
            await stage.show(*USERS)
            await stage.watch.look()
            assert stage.keeper.rollout is not None
            await until(lambda: stage.keeper.reports(stage.rollouts()[-1]))
        return stage.rollouts()

    assert [rollout.share for rollout in asyncio.run(run())] == [0.5, 1.0]


def test_owner_of_another_partition_judges_nothing():
    async def run() -> WatchStage:
        stage = WatchStage(partition=1)
        stage.set_rollout(canary())
        async with stage.running():
            send_report(stage.log, 3, counts(3), counts(1))
            await until(lambda: 3 in stage.keeper.reports(canary()))
            await stage.watch.look()
        return stage

    assert len(asyncio.run(run()).rollouts()) == 1


def test_worker_without_a_rollout_reports_nothing():
    async def run() -> int:
        stage = WatchStage()
        async with stage.running():
            await stage.show("ann")
            await stage.watch.look()
        return stage.log.end(ROLLOUTS.name)

    assert asyncio.run(run()) == 0


def test_refused_bundle_is_reported():
    async def run() -> dict[str, str]:
        stage = WatchStage()
        stage.set_rollout(canary(challenger=BAD))
        async with stage.running():
            await stage.show("ann")
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(canary(challenger=BAD)))
            return stage.report().refused

    assert asyncio.run(run()) == {BAD: "the graph has no output 'scores'"}


def test_report_of_a_refused_bundle_is_taken_back_once_it_is_loaded():
    async def run() -> dict[str, str]:
        stage = WatchStage()
        stage.broken.add(NEW)
        stage.set_rollout(shadow())
        async with stage.running():
            await until(lambda: stage.keeper.refused)
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(shadow()) and stage.report().refused)
            stage.broken.remove(NEW)
            stage.clock.now += RETRY_S
            await until(lambda: NEW in stage.bundles)
            await stage.watch.look()
            await until(lambda: not stage.report().refused)
            return stage.report().refused

    assert asyncio.run(run()) == {}


def test_shadow_counts_move_to_the_first_partition():
    async def run() -> list[int]:
        stage = WatchStage(partition=1)
        stage.set_rollout(shadow())
        async with stage.running():
            stage.watch._begin_state()
            stage.watch._shadow.events = 7
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(shadow()))
            stage.group.rebalance(0, 1)
            await stage.watch.look()
            await until(lambda: len(stage.keeper.reports(shadow())) > 1)
            return [stage.keeper.reports(shadow())[partition].shadow.events for partition in (0, 1)]

    assert asyncio.run(run()) == [7, 0]


def test_report_that_kafka_refuses_is_tried_again_with_the_next(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            stage.group.producer.refusals[ROLLOUTS.name] = KafkaError("not allowed")
            await stage.watch.look()
            del stage.group.producer.refusals[ROLLOUTS.name]
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(canary()))

    asyncio.run(run())
    assert "no report on the rollout default can be written: " in caplog.text
    assert "not allowed" in caplog.text


def test_erased_user_and_lost_partitions_are_forgotten():
    async def run() -> None:
        stage = WatchStage()
        stage.set_rollout(canary())
        async with stage.running():
            await started(stage, canary())
            assert len(stage.watch._counters[0]) == len(USERS)
            stage.log.append(EVENTS.name, 0, None, encode_event(erase(USERS[0], 9)))
            await stage.work()
            assert len(stage.watch._counters[0]) == len(USERS) - 1
            stage.group.rebalance(1)
            await stage.watch.look()
            assert stage.watch._counters == {}

    asyncio.run(run())


def shadow(**changes: object) -> Rollout:
    return canary(**({"share": 0.0, "shadow_share": 1.0} | changes))


def test_challenger_in_the_shadow_scores_and_decides_nothing():
    async def run() -> tuple[WatchStage, PartitionReport]:
        stage = WatchStage()
        stage.set_rollout(shadow())
        async with stage.running():
            await started(stage, shadow())
            await until(lambda: stage.pipeline.shadow_share)
            await stage.show(*USERS)
            await until(lambda: (stage.metric("clickscore_shadow_events_total") or 0) >= len(USERS))
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(shadow()) and stage.report().shadow.events >= len(USERS))
            return stage, stage.report()

    stage, report = asyncio.run(run())
    assert {decision.bundle for decision in decisions(stage.log)} == {"old"}
    assert report.shadow.events >= len(USERS)
    assert (report.shadow.agreement, report.challenger.decisions) == (0, 0)


def test_challenger_that_fails_in_the_shadow_is_counted(caplog: pytest.LogCaptureFixture):
    async def run() -> PartitionReport:
        stage = WatchStage()
        stage.set_rollout(shadow())
        async with stage.running():
            await until(lambda: NEW in stage.bundles)
            stage.bundles[NEW].submit = None  # pyright: ignore[reportAttributeAccessIssue]
            await started(stage, shadow())
            await until(lambda: stage.pipeline.shadow_share)
            await stage.show(*USERS)
            await until(lambda: (stage.metric("clickscore_shadow_events_total") or 0) >= 32)
            await stage.watch.look()
            await until(lambda: stage.keeper.reports(shadow()) and stage.report().shadow.events >= 32)
            return stage.report()

    assert asyncio.run(run()).shadow.unscored >= 32
    assert "the challenger fails on an event that it does not decide on" in caplog.text


def test_events_beyond_the_room_for_the_shadow_are_dropped():
    async def run() -> int:
        stage = WatchStage()
        stage.set_rollout(shadow())
        await stage.engine.prepare()
        stage.pipeline.shadow_share = 1.0
        records = [view(f"user-{number}", 0) for number in range(SHADOW_WAITING + 5)]
        stage.pipeline.begin_epoch(0, stage.engine._epochs.present(1))
        batch = MemoryBatch(0, list(recorded(*records)), 1)  # pyright: ignore[reportArgumentType]
        stage.watch.observe([batch], [stage.pipeline.process(0, batch.records)])
        return stage.watch._shadow.dropped

    assert asyncio.run(run()) == 5


def test_loop_looks_until_it_is_cancelled():
    async def run() -> None:
        stage = WatchStage()
        stage.set_rollout(canary())
        stage.watch._report_s = 0.01
        async with stage.running():
            await started(stage, canary())
            await until(lambda: stage.keeper.reports(canary()))

    asyncio.run(run())
