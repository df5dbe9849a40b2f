"""Isolated check: a graph that ends its process is a problem in words, and the caller lives on."""

import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from clickscore.model.packaged_bundle import DEMO_FOLDER
from clickscore.schemas.manifest import content_hash
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


@pytest.mark.slow
def test_output_of_the_runtime_is_not_taken_for_the_answer(tmp_path: Path) -> None:
    """ONNX Runtime prints to the standard output when an operator has a name that is not UTF-8."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEMO_FOLDER, folder)
    graph = (folder / "model.onnx").read_bytes().replace(b"Gather", b"Gath\xfar")
    (folder / "model.onnx").write_bytes(graph)
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    manifest["content_hash"] = content_hash(graph, (folder / "items.txt").read_bytes())
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    (problem,) = check_bundle_isolated(folder)
    # Which of the two the runtime says depends on the version of Python
    assert problem.endswith("InvalidGraph") or "utf-8" in problem


def test_output_that_is_not_utf_8_is_shown(tmp_path: Path) -> None:
    noise = (sys.executable, "-c", r"import os; os.write(2, b'odd \xfa'); raise SystemExit(3)")
    assert check_bundle_isolated(tmp_path, noise) == ["the graph ends the process that runs it (odd \ufffd)"]


def test_graph_that_never_ends_is_a_problem(tmp_path: Path) -> None:
    sleep = (sys.executable, "-c", "import time; time.sleep(60)")
    assert check_bundle_isolated(tmp_path, sleep, limit_seconds=0.1) == [
        "the check has not ended within 0.1 s: the graph does not end"
    ]
