"""`clickscore rollout`: what it teaches, and what it refuses before it asks Kafka."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import RolloutError
from clickscore.stream.kafka.rollout_log import write_rollout
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import KafkaSettings
from tests.bundles import small_bundle


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["rollout", *arguments])


@pytest.mark.parametrize("command", ["set", "ramp", "promote", "rollback", "status"])
def test_help_has_an_example(command: str):
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert f"Example:\n    clickscore rollout {command}" in shown.output
    assert "--json" in shown.output


def test_help_of_the_group_shows_the_way():
    assert "clickscore rollout ramp 8d01fe" in run("--help").output


def test_share_needs_a_challenger_and_steps_are_percentages():
    assert "need a --challenger" in str(run("set", "3f9ac2", "--share", "5").exception)
    assert "is no list of percentages" in run("ramp", "3f9ac2", "--steps", "1,many").output


@pytest.mark.parametrize("option", ["--share", "--shadow-share"])
def test_number_that_no_record_can_hold_is_refused(option: str):
    assert "'nan' is no finite number" in run("set", "3f9ac2", "--challenger", "8d01fe", option, "nan").output


@pytest.mark.parametrize("change", [{"share": float("nan")}, {"reason": 1_025 * "x"}, {"step_ms": 2**60}])
def test_rollout_that_no_worker_could_read_is_not_written(change: dict[str, Any]):
    unreadable = Rollout(name="default", champion=64 * "1", **change)
    with pytest.raises(RolloutError, match="no worker could read it"):
        asyncio.run(write_rollout(KafkaSettings(), unreadable))


def test_challenger_is_another_bundle_and_a_name_has_no_slash(tmp_path: Path):
    store = str(tmp_path / "store")
    version = BundleStore(store, check_bundle).push(small_bundle(tmp_path / "small")).version
    same = run("set", version, "--challenger", version, "--bundle-store", store)
    assert "champion and challenger are the same bundle" in str(same.exception)
    named = run("set", version, "--rollout", "a/b", "--bundle-store", store)
    assert "has no slash" in str(named.exception)
    assert isinstance(named.exception, ClickscoreError)


def test_store_must_be_named_and_have_the_bundle(tmp_path: Path):
    assert "no bundle store is set" in str(run("set", "3f9ac2").exception)
    assert "has no bundle" in str(run("ramp", "3f9ac2", "--bundle-store", str(tmp_path)).exception)
