"""Run folder: the files of the retrainings of a rollout, so that a killed run goes on where it was.

The folder has

    FOLDER/holder                   random name of this folder, as the leases state it
    FOLDER/forecasts.json           what was forecast for each new bundle, and what came
    FOLDER/run-0007/plan.json       written after the sessions were read: the run goes on from here
    FOLDER/run-0007/training.jsonl.gz, held-out.jsonl.gz     deleted at the end
    FOLDER/run-0007/checkpoint/, bundle/, report.md
    FOLDER/run-0007/outcome.json    written last

A run without an outcome has not ended.
"""

import fcntl
import re
import secrets
import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from clickscore.model.evaluation.bundle_comparison import BundleComparison
from clickscore.retraining.errors import RetrainingBusyError, RetrainingError
from clickscore.schemas.manifest import version_of

Method = Literal["train", "top up", "neighbours"]
"""Train anew; go on with the champion's checkpoint; or count its neighbours again without training."""
Publication = Literal["none", "store", "ramp", "set"]
"""Where a new bundle went: nowhere, into the bundle store, into a ramp, or straight to all users."""

SESSION_FILES = ("collected.jsonl.gz", "training.jsonl.gz", "held-out.jsonl.gz")
"""Files of a run with sessions of users."""
FETCHED = "fetched"
"""Folder of bundles that come from elsewhere."""
KEPT_RUNS = 3
"""Newest runs whose checkpoints stay, besides those of the rollout: checkpoints are large."""
_RUN_NAME = re.compile(r"run-[0-9]+")


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run trains on."""

    number: int
    started_at: int
    """Wall-clock time, ms."""
    method: Method
    champion: str | None
    """Content hash of the bundle that decided when the run began; None without a rollout."""
    trained_until: int
    """Event time up to which the champion has learned, ms; 0 for a training anew."""
    held_out_from: int
    """Sessions that opened from this event time on are held out, ms."""
    newest_closed_at: int
    """Event time of the newest event of all sessions, ms."""
    training: int
    """Number of training sessions."""
    held_out: int
    """Number of held-out sessions."""


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    plan: RunPlan
    content_hash: str
    """Content hash of the new bundle."""
    newest_learned: int
    """Event time of the newest event that the new bundle has learned from, ms."""
    comparison: BundleComparison | None
    """The new bundle and the champion on the held-out sessions; None without a champion."""
    publication: Publication
    reason: str
    """Why the bundle was published in this way, in words."""

    @property
    def version(self) -> str:
        """Short name of the new bundle."""
        return version_of(self.content_hash)


class RunFolder:
    """Folder of all runs of a rollout."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; it is made if it is missing."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder, so that no other process of this machine uses it.

        Raises:
            RetrainingBusyError: Another process holds it.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                message = f"another retraining uses {self.folder}: wait for its end, or name another --folder"
                raise RetrainingBusyError(message) from exc
            yield

    def holder(self) -> str:
        """Return the folder's name in leases: after a kill the same folder takes its own lease again."""
        path = self.folder / "holder"
        if not path.is_file():
            write_file(path, secrets.token_hex(8).encode())
        return path.read_text()

    def runs(self) -> list[Path]:
        """Return the folders of the runs, the oldest first. A copy of a run under a second name is no run."""
        return sorted(
            (path for path in self.folder.iterdir() if path.is_dir() and _RUN_NAME.fullmatch(path.name)), key=_number
        )

    def begin_run(self) -> tuple[int, Path]:
        """Return number and folder of the unfinished run, or of a new one."""
        runs = self.runs()
        if runs and not (runs[-1] / "outcome.json").is_file():
            return _number(runs[-1]), runs[-1]
        number = _number(runs[-1]) + 1 if runs else 1
        run = self.folder / f"run-{number:04}"
        run.mkdir()
        return number, run

    def outcomes(self) -> list[RunOutcome]:
        """Return the outcomes of the finished runs, the oldest first."""
        return [outcome for run in self.runs() if (outcome := read_outcome(run)) is not None]

    def find_run(self, content_hash: str) -> Path | None:
        """Return the folder of the newest run that has made a bundle; None for a bundle from elsewhere."""
        for run in reversed(self.runs()):
            outcome = read_outcome(run)
            if outcome is not None and outcome.content_hash == content_hash:
                return run
        return None

    def find_part(self, content_hash: str, name: str) -> Path | None:
        """Return the folder `checkpoint` or `bundle` of a bundle; None where it is gone, or comes from elsewhere.

        Args:
            content_hash: Content hash of the bundle.
            name: Name of the folder.
        """
        run = self.find_run(content_hash)
        return run / name if run is not None and (run / name).is_dir() else None

    def find_trained(self, content_hash: str) -> str:
        """Return the content hash of the trained bundle behind a bundle: itself, or the bundle before its refreshes.

        A run that counts neighbours trains nothing: its bundle has the weights of an earlier bundle.
        """
        run = self.find_run(content_hash)
        outcome = read_outcome(run) if run is not None else None
        if outcome is None or outcome.plan.method != "neighbours" or outcome.plan.champion is None:
            return content_hash
        return self.find_trained(outcome.plan.champion)

    def prune(self, kept: Collection[str]) -> None:
        """Delete the sessions of all finished runs, and the checkpoints and bundles of older runs.

        Args:
            kept: Content hashes of the bundles whose files stay, such as the champion's.
        """
        needed = {*kept, *map(self.find_trained, kept)}
        runs = self.runs()
        for run in runs:
            outcome = read_outcome(run)
            if outcome is None:
                continue
            for name in SESSION_FILES:
                (run / name).unlink(missing_ok=True)
            if run not in runs[-KEPT_RUNS:] and outcome.content_hash not in needed:
                for name in ("checkpoint", "bundle"):
                    shutil.rmtree(run / name, ignore_errors=True)
        for copy in (self.folder / FETCHED).glob("*"):
            if copy.name not in needed:
                shutil.rmtree(copy, ignore_errors=True)


def read_plan(run: Path) -> RunPlan | None:
    """Return the plan of a run; None for a run whose sessions were not read completely."""
    path = run / "plan.json"
    return read_json(path, RunPlan) if path.is_file() else None


def read_outcome(run: Path) -> RunOutcome | None:
    """Return the outcome of a run; None for an unfinished run."""
    path = run / "outcome.json"
    return read_json(path, RunOutcome) if path.is_file() else None


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, atomically."""
    write_file(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: after a kill either the old or the new content is there."""
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)


_Value = TypeVar("_Value")


def read_json(path: Path, kind: type[_Value], remedy: str = "Delete its folder to begin this run anew") -> _Value:
    """Return the value of a file of `write_json`.

    Args:
        path: The file.
        kind: Type of the value.
        remedy: What to do about a file that cannot be read, as a sentence.

    Raises:
        RetrainingError: The file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"{path} cannot be read: {exc}. {remedy}"
        raise RetrainingError(message) from exc


def _number(run: Path) -> int:
    return int(run.name.removeprefix("run-"))
