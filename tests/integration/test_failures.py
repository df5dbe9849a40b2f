"""Failures: what is done to workers and brokers, and what must hold after each, against a replay of the same events."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from clickscore.schemas.topics import SNAPSHOTS
from clickscore.stream.kafka.embedded import EmbeddedBroker
from tests.brokers import embedded_broker
from tests.integration.comparison import (
    Account,
    Evidence,
    differing,
    gather_evidence,
    partition_facts,
    remembered,
    stale_keys,
    written_account,
)
from tests.integration.event_log import Sent, campaigns, catalogue, event_log
from tests.integration.live import Installation, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SCENARIOS = (
    "three_kills",
    "one_killed_one_added",
    "idle_heir",
    "sigterm",
    "zombie",
    "broker_held",
    "broker_lost",
    "broker_restarted",
)
# Bounds that the log reaches, so that what they forget is compared too.
BOUNDS = {"max_events": 20, "max_bought": 5, "user_ttl_ms": 2 * 3_600_000, "control_share": 0.2}
SESSION_MS = 6_000  # the least that a broker allows by default
STOP_MS = 60_000  # a worker on a busy machine may take more than the usual 8 s to finish its batches
BUSY_S = 20  # how much longer something may take on a busy machine
LOST_MS = 4_000  # how long a worker waits for a broker that does not come back, and may take to stop


class Run(NamedTuple):
    evidence: Evidence


class Sigterm(NamedTuple):
    evidence: Evidence
    stopped_in_s: float
    committed: dict[int, int]
    """Offsets, as they were after the stop."""
    account: Account
    """What had been written by then."""


class Zombie(NamedTuple):
    evidence: Evidence
    stale: dict[int, list[bytes]]
    """Keys of each partition whose last snapshot is not their newest."""


class Outage(NamedTuple):
    evidence: Evidence
    exit_code: int | None
    """Of the worker that met the outage, when all was done: none where it has lived through it."""
    output: str
    """By that worker."""


class Restart(NamedTuple):
    evidence: Evidence
    exit_code: int | None
    output: str
    said_late: str
    """By a worker that was started while there was no broker."""


class Loss(NamedTuple):
    evidence: Evidence
    gave_up_in_s: float
    """From the loss of the broker to the end of the worker that nobody stopped."""
    stopped_in_s: float
    """From SIGTERM to the end of the other one."""
    output: list[str]
    """Last lines of both."""


@contextmanager
def stage(broker: str, bundle: Path, folder: Path, **changes: object) -> Iterator[Installation]:
    with installation(broker, folder, bundle=str(bundle), **BOUNDS, **changes) as live:
        live.fill_catalogue(catalogue(), campaigns())
        yield live


@contextmanager
def producing(live: Installation, log: Sequence[Sent], per_second: float) -> Iterator[None]:
    """Produce beside the block, and leave it when all is produced."""
    thread = threading.Thread(target=live.produce, args=(log, per_second))
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture(scope="module")
def three_kills(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    points = random.Random(7)
    folder = tmp_path_factory.mktemp("three-kills")
    # A fixed name in the group: a worker that was killed is back at once.
    with stage(broker, bundle, folder, instance_id="worker-1", max_batch=256) as live:
        live.produce(event_log(20_000, seed=1, privacy=0.015))
        for begin in (1_000, 6_500, 12_000):
            worker = live.start_worker()
            live.wait_decisions(begin + points.randrange(5_000))
            worker.kill()
        last = live.start_worker()
        live.wait_finished()
        last.stop()
        return Run(gather_evidence(live))


@pytest.fixture(scope="module")
def one_killed_one_added(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    log = event_log(20_000, seed=2, privacy=0.015)
    folder = tmp_path_factory.mktemp("one-killed-one-added")
    with stage(broker, bundle, folder, session_timeout_ms=SESSION_MS, max_batch=256) as live:
        first, second = live.start_worker(), live.start_worker()
        for worker in (first, second):
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        live.produce(log[:12_000])
        live.wait_decisions(4_000)
        first.kill()
        second.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 4)
        with producing(live, log[12_000:], per_second=2_000):
            third = live.start_worker()
            third.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        live.wait_finished()
        live.stop_workers()
        return Run(gather_evidence(live))


@pytest.fixture(scope="module")
def idle_heir(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A worker that waits for events inherits partitions of which nobody has ever committed an offset."""
    with stage(broker, bundle, tmp_path_factory.mktemp("idle-heir"), session_timeout_ms=SESSION_MS) as live:
        first, heir = live.start_worker(), live.start_worker()
        for worker in (first, heir):
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        first.kill()
        live.produce(event_log(12_000, seed=9, privacy=0.015))
        live.wait_finished()
        heir.stop()
        return Run(gather_evidence(live))


@pytest.fixture(scope="module")
def sigterm(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Sigterm:
    with stage(broker, bundle, tmp_path_factory.mktemp("sigterm"), max_batch=256, stop_ms=STOP_MS) as live:
        live.produce(event_log(20_000, seed=3, privacy=0.015))
        worker = live.start_worker()
        live.wait_decisions(5_000)
        stopped_in_s = worker.stop(BUSY_S + STOP_MS / 1000)
        committed, account = live.committed(), written_account(live)
        last = live.start_worker()
        live.wait_finished()
        last.stop()
        return Sigterm(gather_evidence(live), stopped_in_s, committed, account)


@pytest.fixture(scope="module")
def zombie(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Zombie:
    log = event_log(20_000, seed=4, privacy=0.015)
    with stage(broker, bundle, tmp_path_factory.mktemp("zombie"), session_timeout_ms=SESSION_MS, max_batch=64) as live:
        live.produce(log[:14_000])
        sleeper = live.start_worker()
        live.wait_decisions(4_000)
        sleeper.signal(signal.SIGSTOP)
        heir = live.start_worker()
        live.wait_finished()
        sleeper.signal(signal.SIGCONT)
        for worker in (sleeper, heir):
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        live.produce(log[14_000:])
        live.wait_finished()
        live.stop_workers()
        last = live.start_worker()
        last.wait_restored()
        last.stop()
        stale = {partition: stale_keys(records) for partition, records in live.read(SNAPSHOTS).items()}
        return Zombie(gather_evidence(live), stale)


@pytest.fixture(scope="module")
def frail_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker of this module alone, to hold and stop; `EmbeddedBroker.find` has the one that runs now."""
    with embedded_broker(tmp_path_factory.mktemp("frail") / "kafka") as started:
        yield started
        running = EmbeddedBroker.find(started.data)
        if running:
            running.stop()


@pytest.fixture(scope="module")
def broker_held(frail_broker: EmbeddedBroker, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    with stage(frail_broker.bootstrap_servers, bundle, tmp_path_factory.mktemp("held")) as live:
        worker = live.start_worker()
        worker.wait_restored()
        with producing(live, event_log(9_000, seed=5, privacy=0.015), per_second=1_500):
            live.wait_decisions(3_000)
            os.kill(frail_broker.pid, signal.SIGSTOP)
            time.sleep(15)
            os.kill(frail_broker.pid, signal.SIGCONT)
        live.wait_finished()
        exit_code = worker.exit_code
        worker.stop()
        return Outage(gather_evidence(live), exit_code, worker.output)


@pytest.fixture(scope="module")
def broker_lost(frail_broker: EmbeddedBroker, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Loss:
    folder = tmp_path_factory.mktemp("lost")
    with stage(frail_broker.bootstrap_servers, bundle, folder, broker_wait_ms=LOST_MS, stop_ms=LOST_MS) as live:
        workers = [live.start_worker(), live.start_worker()]
        for worker in workers:
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        with producing(live, event_log(9_000, seed=7, privacy=0.015), per_second=3_000):
            live.wait_decisions(2_000)
            os.kill(frail_broker.pid, signal.SIGSTOP)
            lost_at = time.monotonic()
            stopped_in_s = workers[1].stop(exit_code=1)
            workers[0].wait(60)
            gave_up_in_s = time.monotonic() - lost_at
            os.kill(frail_broker.pid, signal.SIGCONT)
        last = live.start_worker()
        live.wait_finished()
        last.stop()
        output = [worker.output.splitlines()[-1] for worker in workers]
        return Loss(gather_evidence(live), gave_up_in_s, stopped_in_s, output)


@pytest.fixture(scope="module")
def broker_restarted(
    broker_held: Outage,
    broker_lost: Loss,
    frail_broker: EmbeddedBroker,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Restart:
    del broker_held, broker_lost  # come first: after this the broker is another process
    with stage(frail_broker.bootstrap_servers, bundle, tmp_path_factory.mktemp("restarted")) as live:
        worker = live.start_worker()
        worker.wait_restored()
        with producing(live, event_log(9_000, seed=6, privacy=0.015), per_second=1_500):
            live.wait_decisions(3_000)
            frail_broker.stop()
            late = live.start_worker()
            time.sleep(3)
            EmbeddedBroker.start(frail_broker.data, frail_broker.port)
            late.wait_restored()
        live.wait_finished()
        exit_code = worker.exit_code
        live.stop_workers()
        return Restart(gather_evidence(live), exit_code, worker.output, late.output)


@pytest.fixture(scope="module", params=SCENARIOS)
def evidence(request: pytest.FixtureRequest) -> Evidence:
    return request.getfixturevalue(request.param).evidence


def test_every_event_that_is_due_one_has_its_recommendation(evidence: Evidence) -> None:
    assert evidence.live.recommendations.keys() == evidence.replay.recommendations.keys()


def test_recommendations_are_those_of_a_replay_byte_for_byte_repeats_included(evidence: Evidence) -> None:
    assert differing(evidence.live.recommendations, evidence.replay.recommendations) == []


def test_ads_are_those_of_a_replay_byte_for_byte_repeats_included(evidence: Evidence) -> None:
    assert evidence.live.ads.keys() == evidence.replay.ads.keys()
    assert differing(evidence.live.ads, evidence.replay.ads) == []


def test_closed_sessions_are_those_of_a_replay_byte_for_byte_repeats_included(evidence: Evidence) -> None:
    assert evidence.live.closed_sessions.keys() == evidence.replay.closed_sessions.keys()
    assert differing(evidence.live.closed_sessions, evidence.replay.closed_sessions) == []


def test_erasure_receipts_are_those_of_a_replay_byte_for_byte_repeats_included(evidence: Evidence) -> None:
    assert evidence.live.receipts.keys() == evidence.replay.receipts.keys()
    assert differing(evidence.live.receipts, evidence.replay.receipts) == []


def test_dead_letters_are_complete_with_their_raw_bytes_and_reasons(evidence: Evidence) -> None:
    assert evidence.live.dead_letters.keys() == evidence.replay.dead_letters.keys()
    assert differing(evidence.live.dead_letters, evidence.replay.dead_letters) == []


def test_state_of_every_user_is_that_of_a_replay_byte_for_byte(evidence: Evidence) -> None:
    live, replay = evidence.live.states, evidence.replay.states
    assert {number: remembered(live[number]) for number in live} == {
        number: remembered(replay[number]) for number in replay
    }


def test_state_of_every_partition_is_that_of_a_replay(evidence: Evidence) -> None:
    live, replay = evidence.live.states, evidence.replay.states
    assert {number: partition_facts(live[number]) for number in live} == {
        number: partition_facts(replay[number]) for number in replay
    }


def test_log_holds_all_that_may_come(evidence: Evidence) -> None:
    kinds = {"decided", "late", "repeated", "dead", "tick", "consent", "erase", "epoch"}
    assert evidence.replay.outcomes.keys() == kinds
    assert len(evidence.replay.closed_sessions) > 500


def test_sigterm_under_load_ends_a_worker_before_its_time_is_up(sigterm: Sigterm) -> None:
    assert sigterm.stopped_in_s < STOP_MS / 1000


def test_sigterm_leaves_nothing_half_finished(sigterm: Sigterm) -> None:
    committed = {number: sigterm.committed.get(number, 0) for number in sigterm.account.states}
    newest = dict.fromkeys(committed, -1)
    for identity in (*sigterm.account.recommendations, *sigterm.account.dead_letters):
        partition, offset = map(int, identity.rsplit("-", 2)[1:])
        newest[partition] = max(newest[partition], offset)
    assert all(newest[number] < offset for number, offset in committed.items())
    assert {number: state.offset + 1 for number, state in sigterm.account.states.items()} == committed


def test_sigterm_comes_while_much_is_left_to_do(sigterm: Sigterm) -> None:
    assert len(sigterm.account.recommendations) < 0.9 * len(sigterm.evidence.replay.recommendations)


def test_nothing_is_decided_twice_after_sigterm(sigterm: Sigterm) -> None:
    assert sigterm.evidence.repeats == 0


def test_last_snapshot_of_every_user_is_the_newest_once_a_worker_has_restored_after_a_zombie(zombie: Zombie) -> None:
    assert not any(zombie.stale.values())


@pytest.mark.parametrize("outage", ["broker_held", "broker_restarted"])
def test_worker_lives_through_a_broker_that_is_gone_for_a_while(outage: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(outage).exit_code is None


def test_worker_says_that_it_waits_for_the_broker_and_for_how_long(broker_held: Outage) -> None:
    assert "waiting for Kafka to acknowledge what was published, for at most 30 s" in broker_held.output


def test_worker_that_starts_without_a_broker_says_so_and_goes_on_once_it_is_back(broker_restarted: Restart) -> None:
    assert "Waiting for Kafka at 127.0.0.1:" in broker_restarted.said_late
    assert "partitions [" in broker_restarted.said_late


def test_worker_gives_up_a_broker_that_does_not_come_back_within_bounds(broker_lost: Loss) -> None:
    assert broker_lost.gave_up_in_s < 2 * LOST_MS / 1000 + BUSY_S


def test_worker_says_why_it_gave_up_in_its_last_line(broker_lost: Loss) -> None:
    assert broker_lost.output[0] == (
        "clickscore: Kafka has not acknowledged for 4 s (broker_wait_ms) what was published. Nothing of it is "
        "committed; start the worker again once a broker answers"
    )


def test_sigterm_ends_a_worker_within_its_time_though_the_broker_is_gone(broker_lost: Loss) -> None:
    assert broker_lost.stopped_in_s < LOST_MS / 1000 + BUSY_S
