"""The wheel, installed in a clean environment, runs the demo in a folder whose files have the names of our folders."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

from clickscore.schemas.events import encode_event
from docs.generate import PACKAGES, ROOT
from tests.events import view

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CONSTRAINTS = ROOT / "constraints.txt"
DEMO_SECONDS = 10
INSTALL_TIMEOUT_S = 420
DEMO_TIMEOUT_S = 120
TRAPS = (*PACKAGES, "clickscore", "errors", "settings")
"""Files of the user's folder; each fails when it is imported."""


def run(*command: object, cwd: Path, timeout: float, variables: Mapping[str, str] | None = None) -> str:
    """Run a program without this repository on its path, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what the image copies, built beside the repository, so that nothing is written into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        copy(ROOT / name, source)
    for name in PACKAGES:
        copytree(ROOT / name, source / name, ignore=ignore_patterns("__pycache__"))
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    (built,) = folder.glob("clickscore-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel and what serving needs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    options = ("--quiet", "--disable-pip-version-check", "--constraint", CONSTRAINTS)
    run(folder / "bin" / "python", "-m", "pip", "install", *options, wheel, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    return folder


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder with a `schemas.py` and others that must never be imported."""
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name}.py of the user was imported')\n")
    return tmp_path


def test_site_packages_has_one_name_of_ours(environment: Path) -> None:
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    (record,) = site_packages.glob("clickscore-*.dist-info/RECORD")
    names = {line.split("/")[0] for line in record.read_text().splitlines()}
    assert names <= {"clickscore", record.parent.name, ".."}  # `..` is the command in bin
    assert not [name for name in (*PACKAGES, "tests", "bench", "docs") if (site_packages / name).exists()]


def test_files_that_are_no_modules_are_installed(environment: Path) -> None:
    (package,) = environment.glob("lib/python3*/site-packages/clickscore")
    wanted = {path.relative_to(ROOT) for path in (ROOT / "stream" / "bundles").rglob("*") if path.is_file()}
    wanted |= {path.relative_to(ROOT) for path in (ROOT / "backtest").glob("*.jinja")}
    assert len(wanted) > 1
    for path in wanted:
        assert (package / path).read_bytes() == (ROOT / path).read_bytes()


def test_demo_ignores_the_files_of_the_users_folder(environment: Path, user_folder: Path) -> None:
    clickscore = environment / "bin" / "clickscore"
    said = run(clickscore, "demo", "--seconds", DEMO_SECONDS, cwd=user_folder, timeout=DEMO_TIMEOUT_S)
    assert "decisions" in said
    assert "model:" in said


def test_replay_processes_ignore_the_files_of_the_users_folder(environment: Path, user_folder: Path) -> None:
    events = [view(f"user-{number}", minute=number) for number in range(20)]
    (user_folder / "events.jsonl").write_bytes(b"\n".join(map(encode_event, events)))
    clickscore = environment / "bin" / "clickscore"
    options = ("--workers", 2, "--bundle", ROOT / "stream" / "bundles" / "demo", "--out", "decisions.jsonl")
    run(clickscore, "replay", "events.jsonl", *options, cwd=user_folder, timeout=DEMO_TIMEOUT_S)
    assert len((user_folder / "decisions.jsonl").read_text().splitlines()) == len(events)
