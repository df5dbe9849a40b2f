"""Wheels: build the wheel of the checkout, or of a commit, without a trace in the repository."""

import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

from docs.generate import PACKAGES, ROOT

FILES = ("pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built from, beside the packages."""
TIMEOUT_S = 420.0
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def wheel_of_checkout(folder: Path) -> Path:
    """Build a wheel of the files in the checkout, as they are, and return its path.

    Args:
        folder: Folder for the wheel.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    for name in FILES:
        copy(ROOT / name, source)
    for name in PACKAGES:
        copytree(ROOT / name, source / name, ignore=ignore_patterns("__pycache__"))
    return _wheel(source, folder)


def wheel_of_commit(commit: str, folder: Path) -> Path:
    """Build a wheel of a commit, and return its path.

    Args:
        commit: Tag or hash.
        folder: Folder for the wheel.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    listed = subprocess.run(("git", "ls-tree", "--name-only", commit), cwd=ROOT, capture_output=True, check=True)
    packages = sorted({*PACKAGES}.intersection(listed.stdout.decode().split()))  # a commit may lack newer folders
    _run("git", "archive", "--output", archive, commit, *FILES, *packages, cwd=ROOT)
    _run("tar", "-xf", archive, "-C", source, cwd=folder)
    return _wheel(source, folder)


def unpacked(wheel: Path, folder: Path) -> Path:
    """Return a folder from which the packages of a wheel can be imported, without what they depend on.

    Args:
        wheel: The wheel.
        folder: A folder that does not exist.
    """
    _run(*PIP, "install", "--no-deps", "--no-compile", "--target", folder, wheel, cwd=wheel.parent)
    return folder


def _wheel(source: Path, folder: Path) -> Path:
    _run(*PIP, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("clickscore-*.whl")
    return built


def _run(*command: object, cwd: Path) -> None:
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, f"{words}:\n{result.stdout}\n{result.stderr}"
