"""Live is replay: one file through the worker, however it batches, and through `clickscore replay`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from clickscore.schemas.topics import RECOMMENDATIONS
from clickscore.stream.settings import environment_of
from tests.integration.event_log import FAR_FUTURE, event_log
from tests.integration.live import ROOT, Installation, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

BATCHING = {
    "a few at a time": {"max_batch": 7, "fetch_wait_ms": 0, "score_batch": 1},
    "many at a time": {"max_batch": 1024, "fetch_wait_ms": 10, "score_batch": 64},
}


class Both(NamedTuple):
    live: dict[str, bytes]
    """Recommendations by id."""
    replay: dict[str, bytes]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log as a file, without what a file cannot say: null values, and when an event was appended."""
    path = tmp_path_factory.mktemp("file") / "events.jsonl"
    lines = (record.value for record in event_log(5_000, seed=8))
    path.write_bytes(b"".join(line + b"\n" for line in lines if line and str(FAR_FUTURE).encode() not in line))
    return path


def clickscore(live: Installation, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clickscore.stream", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment_of(live.settings)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=BATCHING)
def both(
    request: pytest.FixtureRequest, broker: str, bundle: Path, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Both:
    folder = tmp_path_factory.mktemp("both")
    with installation(broker, folder, bundle=str(bundle), **BATCHING[request.param]) as live:
        clickscore(live, "produce", str(file))
        worker = live.start_worker()
        live.wait_finished()
        worker.stop()
        clickscore(live, "replay", str(file), "--out", str(folder / "decisions.jsonl"))
        written = [record.value for records in live.read(RECOMMENDATIONS).values() for record in records]
    return Both(by_id(written), by_id((folder / "decisions.jsonl").read_bytes().splitlines()))


def by_id(decisions: list[bytes]) -> dict[str, bytes]:
    found = {msgspec.json.decode(decision)["decision_id"]: decision for decision in decisions}
    assert len(found) == len(decisions)
    return found


def test_replay_decides_on_the_same_events(both: Both) -> None:
    assert both.live.keys() == both.replay.keys()


def test_replay_decides_the_same_byte_for_byte(both: Both) -> None:
    assert [identity for identity in both.live if both.live[identity] != both.replay[identity]] == []


def test_model_is_in_the_loop(both: Both) -> None:
    scored = sum(msgspec.json.decode(decision)["bundle"] is not None for decision in both.replay.values())
    assert scored > len(both.replay) / 2
