"""Backtest of a topic: the same figures as of the file that was produced to it, and the catalogue's say in it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clickscore.backtest.commands import backtest
from clickscore.schemas.topics import EVENTS
from clickscore.stream.settings import environment_of
from tests.integration.event_log import FAR_FUTURE, catalogue, event_log
from tests.integration.live import ROOT, Installation, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log as a file, without what a file cannot say: null values, and when an event was appended."""
    path = tmp_path_factory.mktemp("file") / "events.jsonl"
    lines = (record.value for record in event_log(5_000, seed=13))
    path.write_bytes(b"".join(line + b"\n" for line in lines if line and str(FAR_FUTURE).encode() not in line))
    return path


@pytest.fixture(scope="module")
def produced(broker: str, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(broker, tmp_path_factory.mktemp("topic")) as topic_installation:
        command = [sys.executable, "-m", "clickscore.stream", "produce", str(file)]
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment_of(topic_installation.settings)},
            check=True,
            timeout=120,
        )
        yield topic_installation


def figures(topic_installation: Installation, source: str, bundle: Path, out: Path, *options: str) -> dict[str, Any]:
    arguments = [source, "--bundle", str(bundle), "--json-file", str(out), *options]
    done = CliRunner(env=environment_of(topic_installation.settings)).invoke(backtest, arguments)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()) | {"source": ""}


def test_topic_gives_the_figures_of_the_file(produced: Installation, file: Path, bundle: Path, tmp_path: Path) -> None:
    of_file = figures(produced, str(file), bundle, tmp_path / "file.json")
    of_topic = figures(produced, f"kafka:{EVENTS.name}", bundle, tmp_path / "topic.json")
    assert of_topic == of_file
    assert of_topic["judged"] > 1_500


def test_range_with_all_before_it_warms_up_and_judges_the_rest(
    produced: Installation, bundle: Path, tmp_path: Path
) -> None:
    complete = figures(produced, f"kafka:{EVENTS.name}", bundle, tmp_path / "whole.json")
    bounds = ["--from", "300", "--warm-up-from", "earliest"]
    later = figures(produced, f"kafka:{EVENTS.name}", bundle, tmp_path / "later.json", *bounds)
    assert later["records"] == complete["records"]
    assert 0 < later["judged"] < complete["judged"]
    assert later["judged"] + sum(later["left_out"].values()) == later["records"]
    assert any(reason.startswith("warm-up") for reason in later["left_out"])


def test_catalogue_of_the_topics_keeps_back_what_is_out_of_stock(
    produced: Installation, bundle: Path, tmp_path: Path
) -> None:
    earlier = figures(produced, f"kafka:{EVENTS.name}", bundle, tmp_path / "before.json")
    produced.fill_catalogue(catalogue(), [])
    newer = figures(produced, f"kafka:{EVENTS.name}", bundle, tmp_path / "after.json")
    assert newer["judged"] == earlier["judged"]
    rates = [result["arms"][-1]["ranking"]["hit_rate@10"]["value"] for result in (earlier, newer)]
    assert rates[1] < rates[0]  # `repeat` may no longer show a sixth of the items
    assert {part["name"] for part in newer["slices"] if part["of"] == "category"} > {"category-1", "category-2"}
