"""Exactly once: a reader of committed records sees each decision once, whatever happens to the workers."""

import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from clickscore.schemas.topics import SNAPSHOTS
from tests.integration.comparison import Account, Evidence, differing, gather_evidence, remembered, stale_keys
from tests.integration.event_log import campaigns, catalogue, event_log
from tests.integration.live import installation

pytestmark = pytest.mark.kafka

KILLS = 2
STEP = 500
"""Number of decisions between two faults."""


class Storm(NamedTuple):
    evidence: Evidence
    stale: list[bytes]
    """Keys whose last snapshot is not their newest."""
    sleeper_output: str
    """Log of the worker that stalled."""


@pytest.fixture(scope="module")
def storm(broker: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    """Kill workers in the middle of transactions; let one stall, and its successor take over."""
    folder = tmp_path_factory.mktemp("exactly-once")
    log = event_log(6_000, seed=11)
    with installation(
        broker, folder, bundle=str(bundle), delivery="exactly_once", session_timeout_ms=6_000, max_batch=64
    ) as live:
        live.fill_catalogue(catalogue(), campaigns())
        live.produce(log[:4_000])
        for kill in range(KILLS):
            worker = live.start_worker(instance_id="worker-1")
            live.wait_decisions((kill + 1) * STEP)
            worker.kill()
        sleeper = live.start_worker(instance_id="worker-1")
        live.wait_decisions((KILLS + 1) * STEP)
        sleeper.signal(signal.SIGSTOP)
        successor = live.start_worker(instance_id="worker-2")
        live.produce(log[4_000:])
        live.wait_finished()
        sleeper.signal(signal.SIGCONT)
        for worker in (sleeper, successor):
            worker.wait_health(lambda health: health.get("restored") and len(health["partitions"]) == 2)
        live.stop_workers()
        stale = [key for records in live.read(SNAPSHOTS).values() for key in stale_keys(records)]
        return Storm(gather_evidence(live), stale, sleeper.output)


def test_each_record_is_there_once_and_is_the_record_of_a_replay(storm: Storm) -> None:
    def outputs(account: Account) -> tuple[dict, ...]:
        return account.recommendations, account.ads, account.closed_sessions, account.dead_letters

    for live, replay in zip(outputs(storm.evidence.live), outputs(storm.evidence.replay), strict=True):
        assert live.keys() == replay.keys()
        assert [identity for identity, written in live.items() if len(written) != 1] == []
        assert differing(live, replay) == []


def test_states_are_those_of_a_replay_and_no_key_is_stale(storm: Storm) -> None:
    assert storm.stale == []
    for partition, state in storm.evidence.live.states.items():
        assert remembered(state) == remembered(storm.evidence.replay.states[partition])


def test_the_stalled_worker_tried_to_write_and_was_fenced(storm: Storm) -> None:
    """Without the attempt the other tests would not show that fencing works."""
    assert "another worker has taken over" in storm.sleeper_output
    assert "Traceback" not in storm.sleeper_output
