"""Versions: the previous release and the present code, each as a wheel in a folder that a worker can run from."""

import subprocess
from pathlib import Path

from tests.integration.live import ROOT
from tests.wheels import unpacked, wheel_of_checkout, wheel_of_commit

PREVIOUS = "v0.1.0"
"""Tag of the newest release."""
PREVIOUS_COMMIT = "d8a1c41afac17deae63c66d57e95751441395286"
"""Commit of the tag, for a clone without tags."""


class NoHistoryError(Exception):
    """The checkout does not hold the commit of the previous release."""


def previous_release(folder: Path) -> Path:
    """Build the wheel of the previous release, and return a folder with its packages.

    Args:
        folder: A folder that does not exist.

    Raises:
        NoHistoryError: The checkout does not hold the commit of the release.
    """
    for commit in (PREVIOUS, PREVIOUS_COMMIT):
        question = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
        if subprocess.run(question, cwd=ROOT, capture_output=True, check=False).returncode == 0:
            return unpacked(wheel_of_commit(commit, folder), folder / "site")
    message = f"the checkout has neither the tag {PREVIOUS} nor the commit {PREVIOUS_COMMIT}"
    raise NoHistoryError(message)


def present_code(folder: Path) -> Path:
    """Build the wheel of the checkout, and return a folder with its packages.

    Args:
        folder: A folder that does not exist.
    """
    return unpacked(wheel_of_checkout(folder), folder / "site")
