"""Isolated check: a graph that ends its process is a problem in words, and the caller lives on."""

import sys
from pathlib import Path

import pytest

from clickscore.model.packaged_bundle import DEMO_FOLDER
from clickscore.stream.scoring.isolated_check import check_bundle_isolated


@pytest.mark.slow
def test_problems_are_those_of_the_check(tmp_path: Path) -> None:
    assert check_bundle_isolated(tmp_path) == ["it lacks manifest.json, model.onnx, items.txt"]


@pytest.mark.slow
def test_good_bundle_has_no_problem() -> None:
    assert check_bundle_isolated(DEMO_FOLDER) == []


def test_crash_of_the_graph_is_a_problem(tmp_path: Path) -> None:
    crash = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert check_bundle_isolated(tmp_path, crash) == ["the graph ends the process that runs it (SIGSEGV)"]


def test_failure_of_the_check_names_its_reason(tmp_path: Path) -> None:
    (problem,) = check_bundle_isolated(tmp_path, (sys.executable, "-c", "raise MemoryError('no memory left')"))
    assert "no memory left" in problem


def test_problems_that_the_process_prints_are_returned(tmp_path: Path) -> None:
    assert check_bundle_isolated(tmp_path, (sys.executable, "-c", """print('["too large"]')""")) == ["too large"]


def test_graph_that_never_ends_is_a_problem(tmp_path: Path) -> None:
    sleep = (sys.executable, "-c", "import time; time.sleep(60)")
    assert check_bundle_isolated(tmp_path, sleep, limit_seconds=0.1) == [
        "the check has not ended within 0.1 s: the graph does not end"
    ]
