"""Rollouts of a worker: bundles are loaded in the background, decide from an epoch on, and are released."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import Epoch, encode_event, read_epoch
from clickscore.schemas.rollouts import EpochRollout, Rollout, encode_rollout
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, ROLLOUTS, SNAPSHOTS
from clickscore.stream.errors import BrokerError, BundleError, PolicyError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.worker.engine import Engine
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.rollouts import RETRY_S, RolloutParts
from tests.events import view
from tests.memory_kafka import MemoryGroup, MemoryLog
from tests.stream.test_deciders import NamedScorer
from tests.stream.worker.stage import Clock, make_settings, until

OLD, NEW, BAD = "a" * 64, "b" * 64, "c" * 64
NAMES = {OLD: "old", NEW: "new"}


class RolloutStage:
    """A worker with a bundle store, on a log in memory."""

    def __init__(self, log: MemoryLog | None = None, wait_s: float = 5.0, bundle: str | None = "own") -> None:
        self.settings = make_settings(k=1, epoch_ms=10)
        self.log = log or MemoryLog()
        self.group = MemoryGroup(self.log, EVENTS.name, [0])
        self.bundles: dict[str, NamedScorer] = {}
        self.policies: dict[str, PolicyFile] = {}
        self.loads: list[str] = []
        self.broken: set[str] = {BAD}
        """Bundles that cannot be loaded."""
        self.fault: Exception | None = None
        """Error of each load."""
        self.clock = Clock()
        self.metrics = Metrics()
        self.pipeline = Pipeline(
            self.settings.sessions,
            self.settings.policy,
            EVENTS.name,
            Catalogue(),
            NamedScorer(bundle) if bundle else None,  # pyright: ignore[reportArgumentType]
            bundles=self.bundles,  # pyright: ignore[reportArgumentType]
            policies=self.policies,
        )
        self.engine = Engine(
            group=self.group,
            settings=self.settings,
            pipeline=self.pipeline,
            metrics=self.metrics,
            open_reader=self.log.open_reader,
            rollout_parts=RolloutParts(self.load, self.load_policy, self.bundles, self.policies),  # pyright: ignore[reportArgumentType]
            clock=self.clock,
        )
        assert self.engine._rollouts is not None
        self.keeper = self.engine._rollouts
        self.keeper._wait_s = wait_s

    def load(self, content_hash: str) -> NamedScorer:
        self.loads.append(content_hash)
        if self.fault is not None:
            raise self.fault
        if content_hash in self.broken:
            message = "the graph has no output 'scores'"
            raise BundleError(message)
        return NamedScorer(NAMES[content_hash])

    def load_policy(self, label: str) -> PolicyFile:
        self.loads.append(label)
        if label in self.broken:
            message = "the policy is wrong"
            raise PolicyError(message)
        return TWO_ITEMS

    def set(self, champion: str, challenger: str | None = None, share: float = 0.0, policy: str | None = None) -> None:
        """Write the rollout."""
        rollout = Rollout(name="default", champion=champion, challenger=challenger, share=share, policy=policy)
        self.log.append(ROLLOUTS.name, 0, b"default", encode_rollout(rollout))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        await self.engine.prepare()
        await self.engine.on_assigned()
        async with self.engine.running():
            yield

    async def work(self) -> None:
        """Decide on all records of the log."""
        batch = self.group.fetch(0)
        if batch.records:
            await self.engine.put(batch)
            await until(lambda: batch.acked)

    async def decide(self, user: str) -> str | None:
        """Send a view, decide on all records of the log, and return the bundle that decided on the view."""
        self.log.append(EVENTS.name, 0, None, encode_event(view(user, self.log.end(EVENTS.name) / 100)))
        await self.work()
        return decisions(self.log)[-1].bundle

    async def reach(self, rollout: EpochRollout | msgspec.UnsetType) -> None:
        """Read the log until the partition's epoch names a rollout."""
        async with asyncio.timeout(30):
            while (epoch := self.pipeline.partitions[0].epoch) is None or epoch.rollout != rollout or not epoch.number:
                await self.work()
                await asyncio.sleep(0.001)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


def decisions(log: MemoryLog) -> list[Recommendation]:
    decoded = [decode_decision(record.value or b"") for record in log.records(RECOMMENDATIONS.name)]
    return [decision for decision in decoded if isinstance(decision, Recommendation)]


def epochs(log: MemoryLog) -> list[Epoch]:
    return [epoch for record in log.records(EVENTS.name) if (epoch := read_epoch(record.value)) is not None]


TWO_ITEMS = PolicyFile(version="two", owner="tests", k=2)


def champion(content_hash: str) -> EpochRollout:
    return EpochRollout(champion=content_hash)


def test_rollout_is_loaded_before_the_first_event():
    async def run() -> tuple[RolloutStage, str | None]:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            return stage, await stage.decide("ann")

    stage, bundle = asyncio.run(run())
    assert bundle == "old"
    assert stage.loads == [OLD]


def test_champion_challenger_and_policy_are_loaded_before_the_first_event():
    async def run() -> RolloutStage:
        stage = RolloutStage(wait_s=2.0)
        stage.set(OLD, NEW, 0.5, policy=TWO_ITEMS.label)
        await stage.engine.prepare()
        return stage

    stage = asyncio.run(run())
    assert (sorted(stage.bundles), list(stage.policies)) == ([OLD, NEW], [TWO_ITEMS.label])
    assert stage.metric("clickscore_incomplete_epochs_total") == 0


def test_start_does_not_wait_for_a_challenger_that_decides_nothing(caplog: pytest.LogCaptureFixture):
    async def run() -> RolloutStage:
        stage = RolloutStage(wait_s=10.0)
        stage.broken.add(NEW)
        stage.set(OLD, NEW)
        async with stage.running():
            await until(lambda: stage.keeper.refused)
            assert await stage.decide("ann") == "old"
        return stage

    stage = asyncio.run(run())
    assert stage.metric("clickscore_incomplete_epochs_total") == 0
    assert "decisions go on with" not in caplog.text


def test_worker_with_a_champion_and_no_bundle_of_its_own_has_a_model(caplog: pytest.LogCaptureFixture):
    stage = RolloutStage(bundle=None)
    stage.set(OLD)
    counter = "clickscore_items_total"
    assert stage.metrics.registry.get_sample_value(counter, {"variant": "model", "reason": "popular"}) == 0

    async def run() -> None:
        async with stage.running():
            pass

    caplog.set_level(logging.INFO)
    asyncio.run(run())
    assert "bundle old: the catalogue has no items" in caplog.text


def test_worker_without_a_rollout_decides_with_its_own_bundle():
    async def run() -> tuple[str | None, list[str]]:
        stage = RolloutStage()
        async with stage.running():
            return await stage.decide("ann"), stage.loads

    assert asyncio.run(run()) == ("own", [])


def test_new_champion_decides_from_the_next_epoch_on_and_the_former_one_is_released():
    async def run() -> RolloutStage:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            assert await stage.decide("ann") == "old"
            stage.set(NEW)
            await stage.reach(champion(NEW))
            assert await stage.decide("bob") == "new"
            await until(lambda: list(stage.bundles) == [NEW])
            await until(lambda: stage.metric("clickscore_loaded_bundles") == 1)
        return stage

    stage = asyncio.run(run())
    assert stage.loads == [OLD, NEW]
    assert epochs(stage.log)[-1].bundle == NEW[:12]
    assert stage.engine.health().bundles == [NEW[:12]]


def test_bundle_that_fails_its_check_is_refused_loudly_and_the_champion_stays(caplog: pytest.LogCaptureFixture):
    async def run() -> RolloutStage:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            await stage.reach(champion(OLD))
            stage.set(BAD)
            await until(lambda: stage.keeper.refused)
            assert await stage.decide("ann") == "old"
            await stage.reach(champion(OLD))
        return stage

    stage = asyncio.run(run())
    assert stage.engine.health().refused_bundles == {BAD[:12]: "the graph has no output 'scores'"}
    assert stage.metric("clickscore_refused_bundles_total") == 1
    assert "is refused: the graph has no output 'scores'" in caplog.text


def test_policy_changes_with_an_epoch_and_back():
    async def run() -> RolloutStage:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            await stage.decide("ann")
            stage.set(OLD, policy=TWO_ITEMS.label)
            await stage.reach(EpochRollout(champion=OLD, policy=TWO_ITEMS.label))
            await stage.decide("bob")
            stage.set(OLD)
            await stage.reach(champion(OLD))
            await stage.decide("eve")
            await until(lambda: not stage.policies)
        return stage

    stage = asyncio.run(run())
    own = stage.pipeline.policy
    assert [decision.policy for decision in decisions(stage.log)] == [own, TWO_ITEMS.label, own]
    assert [epoch.policy for epoch in epochs(stage.log)][-2:] == [TWO_ITEMS.label, own]
    assert stage.loads == [OLD, TWO_ITEMS.label]


def test_policy_that_cannot_be_used_is_refused_and_the_epoch_stays(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage = RolloutStage()
        stage.set(OLD)
        stage.broken.add(TWO_ITEMS.label)
        async with stage.running():
            await stage.reach(champion(OLD))
            stage.set(NEW, policy=TWO_ITEMS.label)
            await until(lambda: stage.keeper.refused)
            assert await stage.decide("ann") == "old"

    asyncio.run(run())
    assert f"{TWO_ITEMS.label} of the rollout default is refused: the policy is wrong" in caplog.text


def test_refused_challenger_does_not_keep_a_new_champion_out():
    async def run() -> None:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            await stage.reach(champion(OLD))
            stage.set(NEW, BAD, 0.5)
            await stage.reach(champion(NEW))

    asyncio.run(run())


def test_bundle_that_finds_no_room_on_the_disk_is_refused_and_tried_again_later(caplog: pytest.LogCaptureFixture):
    async def run() -> list[str]:
        stage = RolloutStage()
        stage.fault = OSError(28, "No space left on device")
        stage.set(OLD)
        async with stage.running():
            assert stage.keeper.refused == {OLD: "[Errno 28] No space left on device"}
            stage.fault = None
            stage.clock.now += RETRY_S
            await stage.reach(champion(OLD))
        return stage.loads

    assert asyncio.run(run()) == [OLD, OLD]
    assert "is refused: [Errno 28] No space left on device" in caplog.text


def test_bug_in_the_loading_stops_the_worker():
    async def run() -> RolloutStage:
        stage = RolloutStage()
        stage.fault = KeyError()
        stage.set(OLD)
        await stage.engine.prepare()
        await until(lambda: stage.group.crashes)
        return stage

    stage = asyncio.run(run())
    assert stage.engine.failure is stage.fault
    assert stage.keeper.refused == {OLD: "KeyError"}


def test_refused_bundle_is_tried_again_later():
    async def run() -> list[str]:
        stage = RolloutStage()
        stage.set(BAD)
        async with stage.running():
            assert await stage.decide("ann") == "own"
            stage.broken.clear()
            NAMES[BAD] = "mended"
            stage.clock.now += RETRY_S
            stage.set(BAD)
            await stage.reach(champion(BAD))
            assert await stage.decide("bob") == "mended"
        return stage.loads

    assert asyncio.run(run()) == [BAD, BAD]


def test_refused_bundle_that_nobody_needs_any_more_is_forgotten():
    async def run() -> None:
        stage = RolloutStage()
        stage.set(BAD)
        async with stage.running():
            stage.set(NEW)
            await stage.reach(champion(NEW))
            await until(lambda: not stage.keeper.refused)

    asyncio.run(run())


def test_tombstone_brings_the_bundle_of_the_settings_back():
    async def run() -> None:
        stage = RolloutStage()
        stage.set(OLD)
        async with stage.running():
            await stage.reach(champion(OLD))
            stage.log.append(ROLLOUTS.name, 0, b"default", None)
            await stage.reach(msgspec.UNSET)
            assert await stage.decide("ann") == "own"
            await until(lambda: not stage.bundles)

    asyncio.run(run())


def test_epoch_of_an_earlier_rollout_waits_for_its_bundle():
    """A worker that takes over a partition in an earlier epoch decides with the bundle of that epoch."""

    async def run() -> tuple[list[str | None], int]:
        first = RolloutStage()
        first.set(OLD)
        async with first.running():
            await first.reach(champion(OLD))
            await first.decide("ann")
        first.set(NEW)
        second = RolloutStage(first.log)
        async with second.running():
            bundles = [await second.decide("bob")]
            await second.reach(champion(NEW))
            bundles.append(await second.decide("eve"))
        return bundles, len(decisions(first.log))

    assert asyncio.run(run()) == (["old", "new"], 3)


def test_wait_for_a_bundle_has_an_end(caplog: pytest.LogCaptureFixture):
    async def run() -> RolloutStage:
        first = RolloutStage()
        first.set(OLD)
        async with first.running():
            await first.reach(champion(OLD))
        second = RolloutStage(first.log, wait_s=0.05)
        second.broken.add(OLD)
        async with second.running():
            assert await second.decide("ann") == "own"
            assert await second.decide("bob") == "own"
            second.set(NEW)
            await second.reach(champion(NEW))
            await until(lambda: not second.keeper._forgone)  # a later epoch may wait for it again
        return second

    stage = asyncio.run(run())
    assert "decisions go on with bundle and policy of the settings" in caplog.text
    assert stage.metric("clickscore_incomplete_epochs_total") == 1


def test_worker_that_has_not_read_the_rollouts_leaves_the_epoch_as_it_is():
    stage = RolloutStage()
    assert stage.keeper.choose(champion(OLD)) == champion(OLD)


def test_epoch_with_a_refused_bundle_gives_way_to_the_bundle_of_the_settings():
    stage = RolloutStage()
    stage.set(BAD)

    async def run() -> None:
        async with stage.running():
            assert stage.keeper.choose(champion(BAD)) is msgspec.UNSET

    asyncio.run(run())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"default", b"{}", "missing required field"),
        (b"\xff", b"{}", "codec can't decode"),
        (b"other", encode_rollout(Rollout(name="default", champion=OLD)), "the key is 'other'"),
    ],
)
def test_record_that_is_no_rollout_is_ignored(key: bytes, value: bytes, reason: str, caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        stage = RolloutStage()
        stage.log.append(ROLLOUTS.name, 0, key, value)
        async with stage.running():
            assert stage.keeper.rollout is None

    asyncio.run(run())
    assert reason in caplog.text


def test_topic_that_cannot_be_read_for_a_while_is_tried_again():
    async def run() -> None:
        stage = RolloutStage()
        async with stage.running():
            stage.log.fetch_errors.append(KafkaError("no leader"))
            await until(lambda: not stage.log.fetch_errors)
            stage.set(OLD)
            await stage.reach(champion(OLD))

    asyncio.run(run())


def test_right_that_is_taken_away_stops_the_worker():
    async def run() -> RolloutStage:
        stage = RolloutStage()
        await stage.engine.prepare()
        stage.log.fetch_errors.append(TopicAuthorizationFailedError(ROLLOUTS.name))
        await until(lambda: stage.group.crashes)
        return stage

    assert isinstance(asyncio.run(run()).engine.failure, BrokerError)


def recompute(log: MemoryLog) -> dict[str, bytes]:
    """Return the decisions that follow from the records of the log alone."""
    stage = RolloutStage()
    bundles = {content_hash: NamedScorer(name) for content_hash, name in NAMES.items()}
    pipeline = Pipeline(
        stage.settings.sessions,
        stage.settings.policy,
        EVENTS.name,
        Catalogue(),
        NamedScorer("own"),  # pyright: ignore[reportArgumentType]
        bundles=bundles,  # pyright: ignore[reportArgumentType]
    )
    pipeline.begin_epoch(0, msgspec.structs.replace(epochs(log)[0], number=0))
    output = pipeline.process(0, log.records(EVENTS.name))
    values = [message.value or b"" for message in output.recommendations]
    return {decode_decision(value).decision_id: value for value in values}


def test_worker_that_dies_after_its_decisions_leaves_the_same_bytes_to_the_next():
    """Each worker switches bundles and dies with decisions published and without their snapshots."""
    rollouts = [(OLD, None), (NEW, OLD), (OLD, NEW), (NEW, None)]

    async def work(stage: RolloutStage, number: int) -> None:
        bundle, challenger = rollouts[number]
        stage.set(bundle, challenger, 0.5 if challenger else 0.0)
        async with stage.running():
            await stage.reach(Rollout(name="default", champion=bundle, challenger=challenger, share=0.5).deciding)
            for user in range(10):
                stage.log.append(EVENTS.name, 0, None, encode_event(view(f"user-{user}", number)))
            stage.group.producer.refusals[SNAPSHOTS.name] = KafkaError("the worker dies here")
            await stage.engine.put(stage.group.fetch(0))
            await until(lambda: stage.group.crashes)

    log = MemoryLog()
    for number in range(len(rollouts)):
        asyncio.run(work(RolloutStage(log), number))
    published = [record.value or b"" for record in log.records(RECOMMENDATIONS.name)]
    expected = recompute(log)
    assert [value for value in published if expected[decode_decision(value).decision_id] != value] == []
    assert len(published) > len(set(published)) == 40
    assert {(decision.bundle, decision.variant) for decision in decisions(log)} == {
        ("old", "model"),
        ("new", "model"),
        ("old", "challenger"),
        ("new", "challenger"),
    }
