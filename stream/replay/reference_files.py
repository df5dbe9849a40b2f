"""Reference files: catalogue and campaigns of a replay from files of JSON lines, each line with its time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, decode_item
from clickscore.schemas.events import time_fault
from clickscore.schemas.json_depth import check_depth
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE
from clickscore.schemas.value_faults import describe_fault
from clickscore.stream.errors import InputFileError
from clickscore.stream.reference.epoch_schedule import EpochTime
from clickscore.stream.replay.reference_log import ReferenceLog, ReferenceRecord


class _Change(msgspec.Struct):
    """The fields of a line beside those of the item or the campaign."""

    item_id: str = ""
    campaign_id: str = ""
    ts: int = 0
    """Time from which on the line holds, ms; 0 for a line that holds from the beginning."""
    removed: bool = False
    """Whether the line removes the item or ends the campaign."""


_decode_change = msgspec.json.Decoder(_Change).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ReferenceFiles(NamedTuple):
    """Files of a catalogue and of campaigns; without both, the events bring their own or there are none."""

    catalogue: Path | None = None
    campaigns: Path | None = None


NO_FILES = ReferenceFiles()


def read_reference_files(catalogue: Path | None, campaigns: Path | None) -> ReferenceLog:
    """Return the records of both files, and from which event time on each holds.

    Args:
        catalogue: File of items; None for no catalogue.
        campaigns: File of campaigns; None for no campaigns.

    Raises:
        InputFileError: A file or a line cannot be read.
    """
    items = _sorted_changes(catalogue, decode_item, "item_id")
    ads = _sorted_changes(campaigns, decode_campaign, "campaign_id")
    records = [ReferenceRecord(CATALOGUE.name, offset, key, value) for offset, (_, key, value) in enumerate(items)]
    records += [ReferenceRecord(CAMPAIGNS.name, offset, key, value) for offset, (_, key, value) in enumerate(ads)]
    counts = {CATALOGUE.name: 0, CAMPAIGNS.name: 0}
    times: dict[int, EpochTime] = {}
    changes = [(ts, CATALOGUE.name) for ts, _, _ in items] + [(ts, CAMPAIGNS.name) for ts, _, _ in ads]
    for ts, topic in sorted(changes):
        counts[topic] += 1
        times[ts] = EpochTime(ts, counts[CATALOGUE.name], counts[CAMPAIGNS.name])
    return ReferenceLog(records=records, catalogue=len(items), campaigns=len(ads), times=list(times.values()))


def _sorted_changes(
    path: Path | None, decode: Callable[[bytes], Item | Campaign], key: str
) -> list[tuple[int, bytes, bytes | None]]:
    """Return time, key and value of each line in order of time; lines of equal times keep their order."""
    return sorted(_changes(path, decode, key), key=lambda change: change[0]) if path else []


def _changes(path: Path, decode: Callable[[bytes], Any], key: str) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yield time, key and value of each line.

    Raises:
        InputFileError: The file or a line cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}"
        raise InputFileError(message) from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            change = _read_change(line, key)
            value = None if change.removed else _without_line_fields(line)
            if value is not None:
                decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            message = f"{path}, line {number}: {exc}"
            raise InputFileError(message) from exc
        yield change.ts, getattr(change, key).encode(), value


def _read_change(line: bytes, key: str) -> _Change:
    """Return the fields of a line beside those of the item or the campaign.

    Args:
        line: The line.
        key: Name of the field with the id.

    Raises:
        msgspec.DecodeError: The line is no JSON, has no id, or a field is wrong.
        UnicodeDecodeError: A text is not UTF-8.
    """
    check_depth(line)
    try:
        change = _decode_change(line)
    except msgspec.ValidationError as exc:
        raise msgspec.ValidationError(describe_fault(exc, msgspec.json.decode(line), _Change)) from exc
    if not getattr(change, key):
        message = f"{key} is missing"
        raise msgspec.ValidationError(message)
    fault = time_fault("ts", change.ts) if change.ts else None
    if fault:
        raise msgspec.ValidationError(fault)
    return change


def _without_line_fields(line: bytes) -> bytes:
    """Return a line as a topic would hold it: without `ts` and `removed`, which campaigns do not have."""
    fields = _decode_fields(line)
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in {"ts", "removed"}})
