"""Supply chain: every package of the image has a hash, every image a digest, and the audit does not claim too much."""

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import audit, digests
from docs.generate import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
TRAINING_REQUIREMENTS = ROOT / "deploy" / "requirements-training.txt"
BUILD_REQUIREMENTS = ROOT / "deploy" / "requirements-build.txt"
IMAGE_PLATFORM = {
    "extra": "",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "platform_system": "Linux",
    "python_full_version": "3.11.15",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""The image, for the conditions in requirements."""

DIGEST = "sha256:" + "0" * 64


def pinned_versions(file: Path) -> dict[str, str]:
    """Return the version of each package of a file with pins."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def hashes(file: Path) -> dict[str, list[str]]:
    """Return the hashes of each package of a file of requirements."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        canonicalize_name(block.split("==")[0]): re.findall(r"--hash=sha256:([0-9a-f]{64})", block) for block in blocks
    }


def needed_packages(requirements: list[str]) -> set[str]:
    """Return the names of all packages that requirements bring into the image, by the metadata of this environment."""
    pending = [(requirement, "") for requirement in map(Requirement, requirements)]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate(IMAGE_PLATFORM | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                try:
                    needed = distribution(name).requires or []
                except PackageNotFoundError:
                    pytest.fail(f"{name} is not installed")
                pending += [(Requirement(text), wanted) for text in needed]
    return {name for name, _ in seen}


@pytest.mark.parametrize("file", [REQUIREMENTS, TRAINING_REQUIREMENTS, BUILD_REQUIREMENTS], ids=lambda file: file.name)
def test_every_package_has_the_version_of_the_constraints_and_a_hash(file: Path) -> None:
    constraints = pinned_versions(ROOT / "constraints.txt")
    pins = pinned_versions(file)
    assert pins
    assert pins == {name: constraints.get(name) for name in pins}
    assert pins.keys() == hashes(file).keys()
    assert [name for name, values in hashes(file).items() if not values] == []


def test_packages_of_the_image_are_those_that_serving_needs() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    needed = [name for extra in ("gateway", "otel", "redis", "registry") for name in extras[extra]]
    assert pinned_versions(REQUIREMENTS).keys() == needed_packages([*PROJECT["project"]["dependencies"], *needed])
    (build,) = PROJECT["build-system"]["requires"]
    assert list(pinned_versions(BUILD_REQUIREMENTS)) == [Requirement(build).name]


def test_packages_of_the_training_image_are_those_of_the_image_and_those_of_training() -> None:
    serving, training = pinned_versions(REQUIREMENTS), pinned_versions(TRAINING_REQUIREMENTS)
    assert serving.items() <= training.items()  # so the image of training changes no package of the image below it
    extra = needed_packages(PROJECT["project"]["optional-dependencies"]["train"])
    assert training.keys() == serving.keys() | extra


def test_committed_files_name_no_registry() -> None:
    for file in (REQUIREMENTS, TRAINING_REQUIREMENTS, BUILD_REQUIREMENTS, ROOT / "constraints.txt"):
        assert "://" not in file.read_text(encoding="utf-8")


def test_image_installs_nothing_without_a_hash() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel) .*?(?= && |\n)", text)
    assert len(installs) == 5
    for install in installs:
        assert "--require-hashes --only-binary :all:" in install or "--no-deps" in install
    assert "--no-build-isolation" in text  # an isolated build fetches setuptools without a hash


def test_every_image_has_a_tag_of_one_version_and_a_digest() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    images = [service["image"] for service in compose["services"].values() if "build" not in service]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE))
    images += [name for name in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) if name not in stages]
    assert len(images) == 5
    for image in images:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}", image), image


def test_pinning_changes_digests_and_nothing_else() -> None:
    for file in digests.FILES:
        text = file.read_text(encoding="utf-8")
        asked: list[str] = []
        pinned = digests.pin(text, lambda image, asked=asked: asked.append(image) or DIGEST)
        assert set(asked) == {line.split("@")[0].split()[-1] for line in text.splitlines() if "@sha256:" in line}
        assert pinned.count(DIGEST) == len(asked)
        assert digests.IMAGE.sub("", pinned) == digests.IMAGE.sub("", text)


def report(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


GOOD = {"name": "click", "version": "8.3.3", "vulns": []}
BAD = {"name": "numpy", "version": "2.4.6", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.4.7"]}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("output", "exit_code", "words"),
    [
        (report(GOOD), 0, "1 packages, no known vulnerability."),
        (report(GOOD, BAD, UNKNOWN), 1, "numpy 2.4.6: PYSEC-1, fixed in 2.4.7"),
        (report(GOOD, UNKNOWN), 2, "answered for 1 of 2 packages; no answer for rich."),
        (report(), 2, "answered for 0 of 0 packages"),
        ("", 2, "The advisory service does not answer: connection refused"),
    ],
)
def test_audit_without_an_answer_is_no_good_news(output: str, exit_code: int, words: str) -> None:
    result = audit.judge(output, "trace\nconnection refused\n")
    assert result.exit_code == exit_code
    assert words in result.sentences[0]
    assert ("Nothing is proven" in result.sentences[-1]) == (exit_code == 2)
