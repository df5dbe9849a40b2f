"""Rollouts on a real broker: a worker changes over to another bundle under load, and nothing is lost."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clickscore.export.random_bundle import write_random_bundle
from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import encode_event
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.__main__ import cli
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import environment_of
from tests.events import view
from tests.integration.conftest import SMALL
from tests.integration.event_log import ITEMS, Sent
from tests.integration.live import Installation, installation

pytestmark = pytest.mark.kafka

PER_SECOND = 400
AFTERWARDS = 200
"""Events after the switch."""


class Load:
    """Views of many users, until some more than the switch."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.is_switched = threading.Event()

    def __iter__(self) -> Iterator[Sent]:
        remaining = AFTERWARDS
        while remaining:
            remaining -= self.is_switched.is_set()
            number = len(self.sent)
            event = view(f"user-{number % 97}", number / 6_000, ITEMS[number % len(ITEMS)])
            self.sent.append(Sent(encode_event(event), None, number % 2))
            yield self.sent[-1]


def clickscore(live: Installation, *arguments: str) -> Any:
    """Run a command with the settings of an installation, and return its JSON."""
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=environment_of(live.settings), catch_exceptions=False)
    return json.loads(done.stdout)


def test_worker_changes_bundles_under_load_and_its_log_replays_to_the_same_bytes(broker: str, tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path / "store"), check_bundle)
    for seed in (1, 2):
        write_random_bundle(tmp_path / f"bundle-{seed}", ITEMS, SMALL, candidates=40, seed=seed)
    first, second = (store.push(tmp_path / f"bundle-{seed}").version for seed in (1, 2))
    with installation(broker, tmp_path, bundle_store=str(tmp_path / "store"), partitions=2) as live:
        clickscore(live, "rollout", "set", first)
        worker = live.start_worker()
        worker.wait_restored()
        load = Load()
        producer = threading.Thread(target=live.produce, args=(load, PER_SECOND))
        producer.start()
        live.wait_decisions(AFTERWARDS)
        status = clickscore(live, "rollout", "set", second, "--policy-file", "strict", "--reason", "better")
        assert status["reason"] == "set: better"
        worker.wait_health(lambda health: health["bundles"] == [second])
        load.is_switched.set()
        producer.join()
        live.produce(load.sent[-2:])  # repeats: they get no decision
        live.wait_finished()
        written = live.read(RECOMMENDATIONS)
        status = clickscore(live, "rollout", "status")
        assert (status["champion"][:12], status["former"][:12]) == (second, first)
        checked = CliRunner().invoke(
            cli,
            ["replay", f"kafka:{EVENTS.name}", "--check", f"kafka:{RECOMMENDATIONS.name}"],
            env=environment_of(live.settings),
        )
        assert checked.exit_code == 0, checked.output
        worker.stop()
    decisions = [decode_decision(record.value) for records in written.values() for record in records]
    assert len(decisions) == len({decision.decision_id for decision in decisions}) == len(load.sent)
    for records in written.values():
        bundles = [
            made.bundle for record in records if isinstance(made := decode_decision(record.value), Recommendation)
        ]
        assert set(bundles) == {first, second}
        assert bundles == sorted(bundles, key=[first, second].index)
    policies = {(decision.bundle, decision.policy.partition("@")[0]) for decision in decisions}
    assert policies == {(first, load_policy("default").version), (second, load_policy("strict").version)}
