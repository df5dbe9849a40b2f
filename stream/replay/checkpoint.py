"""Parts: what a replay has written so far, beside its output, so that a run that was cut off can be gone on with.

`OUTPUT.parts` holds the plan, for each partition a file of what it came to, and for each process a checkpoint. Once
all is done the partitions' files are put together, in order, and the folder goes.

Packed lines go out in blocks of a fixed size, each a gzip member of its own, so that what a file holds does not depend
on where checkpoints fell: a run that was cut off and gone on with writes the same bytes as one that was not.
"""

import shutil
from pathlib import Path
from typing import Literal

import msgspec

from clickscore.stream.errors import InputFileError, OutputFileError
from clickscore.stream.reference.records import Reference
from clickscore.stream.replay.origins import Origin
from clickscore.stream.replay.source import Mark
from clickscore.stream.replay.topic_source import KafkaOrigin

What = Literal["decisions", "sessions", "sessions, open ones too"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does: two runs of equal plans write equal bytes."""

    what: What
    origin: Origin
    bundle: str | None
    """Its version."""
    workers: int
    settings: dict[str, str]
    """Settings on which the output depends, as text (`Settings.identity`)."""

    def differences(self, other: "Plan") -> list[str]:
        """Return in what another plan differs, in words; where `latest` was when either was made does not count."""
        found = [
            f"{name} ({self.settings.get(name)}, now {value})"
            for name, value in other.settings.items()
            if self.settings.get(name) != value
        ]
        found += [
            f"{name} ({getattr(self, name)}, now {getattr(other, name)})"
            for name in ("what", "bundle", "workers")
            if getattr(self, name) != getattr(other, name)
        ]
        if _asked(self.origin) != _asked(other.origin):
            found.append("the source")
        return found


def _asked(origin: Origin) -> Origin:
    return msgspec.structs.replace(origin, ranges={}) if isinstance(origin, KafkaOrigin) else origin


class Tally(msgspec.Struct, kw_only=True):
    """What a process has counted."""

    outcomes: dict[str, int] = {}
    """Records by what became of them."""
    unreadable: int = 0
    """Lines of which no record could be made."""
    warm: int = 0
    """Records that only made the state."""
    written: int = 0
    """Decisions or sessions."""


class PartState(msgspec.Struct, frozen=True):
    """How far a part has been written."""

    length: int = 0
    """Bytes of its file."""
    pending: bytes = b""
    """What waits to fill a block."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """How far a process has come; the states of its partitions follow it in the file."""

    mark: Mark
    tally: Tally
    parts: dict[int, PartState]
    done: bool


class Remembered(msgspec.Struct, frozen=True):
    """The state of a partition, as `session-snapshots` would hold it."""

    partition: int
    contents: dict[bytes, bytes]


_decode_plan = msgspec.json.Decoder(Plan).decode

decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode

decode_remembered = msgspec.msgpack.Decoder(Remembered).decode

_decode_reference = msgspec.msgpack.Decoder(Reference).decode

encode_state = msgspec.msgpack.Encoder().encode


def folder_of(out: Path) -> Path:
    """Return where the parts of an output lie."""
    return out.with_name(f"{out.name}.parts")


def begin(folder: Path, plan: Plan, reference: Reference) -> None:
    """Make the folder of a new run.

    Raises:
        OutputFileError: It cannot be made, or holds a run that was cut off.
    """
    if (folder / "plan.json").exists():
        message = f"{folder} holds a run that was cut off: go on with --resume, or delete it"
        raise OutputFileError(message)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "reference").write_bytes(encode_state(reference))
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    except OSError as exc:
        message = f"{folder} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc


def resumed(folder: Path, plan: Plan) -> Plan:
    """Return the plan of the run that was cut off, which this one is to go on with.

    Raises:
        InputFileError: There is none, or it had another plan.
    """
    try:
        known = _decode_plan((folder / "plan.json").read_bytes())
    except OSError as exc:
        message = f"{folder} holds no run that was cut off: begin without --resume"
        raise InputFileError(message) from exc
    except msgspec.DecodeError as exc:
        message = f"{folder} is of another version of clickscore: delete it and begin without --resume"
        raise InputFileError(message) from exc
    differences = known.differences(plan)
    if differences:
        message = f"the run that was cut off differs from this one in {', '.join(differences)}"
        raise InputFileError(message)
    return known


def read_reference_of(folder: Path) -> Reference:
    """Return the catalogue and campaigns that the run began with."""
    return _decode_reference((folder / "reference").read_bytes())
