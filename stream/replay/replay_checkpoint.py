"""Checkpoints: the plan of a replay and the progress of each process, so that an interrupted replay can be resumed.

The folder `OUTPUT.parts` beside the output holds the plan, the catalogue and campaigns, and a checkpoint of each
process. The outputs of the partitions lie there, too (see `stream.replay.output`).
"""

import shutil
from pathlib import Path
from typing import Literal

import msgspec

from clickscore.schemas.errors import OutputFileError
from clickscore.stream.errors import InputFileError
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.replay.source import Position
from clickscore.stream.replay.topic_source import TopicRangeSpec

OutputKind = Literal["decisions", "outcomes", "sessions", "sessions, open ones too"]
"""Content of the output. The last kind adds the sessions that are open at the end of the log."""


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan of a replay: two replays of equal plans write equal bytes, and can go on from the same checkpoints."""

    output: OutputKind = msgspec.field(name="what")
    source: FileSpec | TopicRangeSpec = msgspec.field(name="origin")
    bundle: str | None
    """Version of the bundle; None without a bundle."""
    policy: str = ""
    """Version and content hash of the policy; empty for a replay without decisions."""
    workers: int
    """Number of processes: the checkpoints of a replay are divided among as many."""
    settings: dict[str, str]
    """Settings that the output depends on, as text (`Settings.identity`)."""

    @property
    def decides(self) -> bool:
        """Whether the replay makes decisions."""
        return self.output in ("decisions", "outcomes")

    def differences(self, other: "ReplayPlan") -> list[str]:
        """Return the differences to another plan, for a message. Different offsets of `latest` are no difference."""
        differences = [
            f"{name} ({self.settings.get(name)}, now {value})"
            for name, value in other.settings.items()
            if self.settings.get(name) != value
        ]
        differences += [
            f"{name} ({getattr(self, name)}, now {getattr(other, name)})"
            for name in ("output", "bundle", "policy", "workers")
            if getattr(self, name) != getattr(other, name)
        ]
        if self.source.without_offsets() != other.source.without_offsets():
            differences.append("the source")
        return differences


class ReplayTally(msgspec.Struct, kw_only=True):
    """Counts of a process."""

    outcomes: dict[str, int] = {}
    """Number of records by outcome: decided, late, repeated and so on."""
    unreadable: int = 0
    """Number of lines without a record."""
    warm_up: int = msgspec.field(default=0, name="warm")
    """Number of records that only updated the state."""
    written: int = 0
    """Number of decisions or sessions written."""
    items: dict[str, int] = {}
    """Number of recommended items of the variant `model` by reason: `model`, or `popular` for the fallback."""


class PartitionFileState(msgspec.Struct, frozen=True):
    """Progress of the output file of a partition."""

    length: int = 0
    """Number of bytes on disk."""
    pending: bytes = b""
    """Bytes that do not fill a compressed block yet."""


class ReplayCheckpoint(msgspec.Struct, kw_only=True):
    """Progress of a process. The states of its partitions follow in the same file."""

    position: Position = msgspec.field(name="mark")
    """Position in the source."""
    tally: ReplayTally
    files: dict[int, PartitionFileState] = msgspec.field(name="parts")
    """Progress of the output file of each partition."""
    done: bool
    """Whether the process has finished its partitions."""


class CheckpointState(msgspec.Struct, frozen=True):
    """State of a partition, in the records that `session-snapshots` would hold."""

    partition: int
    contents: dict[bytes, bytes]


_decode_plan = msgspec.json.Decoder(ReplayPlan).decode

decode_checkpoint = msgspec.msgpack.Decoder(ReplayCheckpoint).decode

decode_snapshot = msgspec.msgpack.Decoder(CheckpointState).decode

_decode_reference = msgspec.msgpack.Decoder(ReferenceLog).decode

encode_state = msgspec.msgpack.Encoder().encode


def folder_of_output(out: Path) -> Path:
    """Return the folder of the checkpoints of an output."""
    return out.with_name(f"{out.name}.parts")


def create_folder(folder: Path, plan: ReplayPlan, reference: ReferenceLog) -> None:
    """Create the folder of a new replay.

    Args:
        folder: Path of the folder.
        plan: Plan of the replay.
        reference: Records of catalogue and campaigns, which a resumed replay must see again.

    Raises:
        OutputFileError: The folder cannot be created, or holds an interrupted replay.
    """
    if (folder / "plan.json").exists():
        message = f"{folder} holds an interrupted replay: resume it with --resume, or delete the folder"
        raise OutputFileError(message)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "reference").write_bytes(encode_state(reference))
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    except OSError as exc:
        message = f"{folder} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc


def load_plan(folder: Path, plan: ReplayPlan) -> ReplayPlan:
    """Return the plan of the interrupted replay in a folder, after a comparison with the plan of this replay.

    Raises:
        InputFileError: The folder holds no interrupted replay, or a replay of another plan.
    """
    try:
        stored = _decode_plan((folder / "plan.json").read_bytes())
    except OSError as exc:
        message = f"{folder} holds no interrupted replay: start without --resume"
        raise InputFileError(message) from exc
    except msgspec.DecodeError as exc:
        message = f"{folder} was written by another version of clickscore: delete it and start without --resume"
        raise InputFileError(message) from exc
    differences = stored.differences(plan)
    if differences:
        message = (
            f"the interrupted replay differs from this one in {', '.join(differences)}: repeat its command, "
            f"or delete {folder} and start without --resume"
        )
        raise InputFileError(message)
    return stored


def load_reference(folder: Path) -> ReferenceLog:
    """Return the catalogue and campaigns with which the replay started."""
    return _decode_reference((folder / "reference").read_bytes())
