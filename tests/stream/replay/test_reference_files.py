"""Reference files: stock and campaigns of a replayed file hold from their time on, whatever the batches."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.topics import EVENTS
from clickscore.stream.errors import InputFileError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.epoch_schedule import EpochTime
from clickscore.stream.replay.reference_files import read_reference_files
from clickscore.stream.replay.reference_log import ReferenceLog, start_pipeline
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.events import MINUTE, START, Recorded, records, view


def write_lines(path: Path, *lines: object) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def read_shop(folder: Path) -> ReferenceLog:
    """Return a shop whose kettle sells out in minute 2 and is back in minute 4, with an ad in minute 3."""
    catalogue = write_lines(
        folder / "items.jsonl",
        {"item_id": "kettle", "stock": 0, "ts": START + 2 * MINUTE},
        {"item_id": "kettle", "stock": 1},
        {"item_id": "kettle", "stock": 5, "ts": START + 4 * MINUTE},
    )
    campaigns = write_lines(
        folder / "campaigns.jsonl",
        {"campaign_id": "spring", "item_id": "mug", "bid": 1.0, "ts": START + 3 * MINUTE},
        {"campaign_id": "spring", "removed": True, "ts": START + 4 * MINUTE},
    )
    return read_reference_files(catalogue, campaigns)


def decide(log: ReferenceLog, batches: Sequence[Sequence[Recorded]]) -> list[tuple[bool, bool]]:
    """Return for each event whether the kettle may be shown, and whether there is a decision on an ad."""
    pipeline = Pipeline(SessionSettings(), PolicySettings(), EVENTS.name, Catalogue())
    start_pipeline(pipeline, log, [0], {})
    outputs = [pipeline.process(0, batch) for batch in batches]
    ads = {msgspec.json.decode(message.value or b"")["event_id"] for output in outputs for message in output.ads}
    decisions = [msgspec.json.decode(m.value or b"") for output in outputs for m in output.recommendations]
    return [("out_of_stock" not in each["filtered"], each["event_id"] in ads) for each in decisions]


EVENTS_OF_SHOP = records(*(view("ann", minute) for minute in (0, 1, 6, 6.5, 7, 2.9, 7.5, 8, 9)))


def test_lines_hold_from_their_time_on(tmp_path: Path):
    log = read_shop(tmp_path)
    assert log.times == [
        EpochTime(0, 1, 0),
        EpochTime(START + 2 * MINUTE, 2, 0),
        EpochTime(START + 3 * MINUTE, 2, 1),
        EpochTime(START + 4 * MINUTE, 3, 2),
    ]


def test_every_event_is_decided_with_the_shop_of_its_time(tmp_path: Path):
    events = records(*(view(f"user-{minute}", minute, "mug") for minute in (0, 2, 3, 4)), view("late", 3.5, "mug"))
    pipeline = Pipeline(SessionSettings(), PolicySettings(), EVENTS.name, Catalogue())
    start_pipeline(pipeline, read_shop(tmp_path), [0], {})
    seen: list[tuple[bool, bool]] = []
    for event in events:
        output = pipeline.process(0, [event])
        epoch = pipeline.partitions[0].epoch
        assert epoch is not None
        view_of_epoch = pipeline.history.view(type(pipeline.history.position)(epoch.catalogue, epoch.campaigns))
        seen.append(("kettle" in view_of_epoch.out_of_stock, bool(output.ads)))
    assert seen == [(False, False), (True, False), (True, True), (False, False), (False, False)]


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_limits_of_batches_change_nothing(tmp_path: Path, size: int):
    log = read_shop(tmp_path)
    batches = [EVENTS_OF_SHOP[start : start + size] for start in range(0, len(EVENTS_OF_SHOP), size)]
    assert decide(log, batches) == decide(log, [EVENTS_OF_SHOP])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"rubbish\n", "line 1: JSON"),
        (b'{"item_id": "a", "stock": -1}\n', "line 1: stock must be at least 0, not -1"),
        (b'{"ts": 5, "removed": true}\n', "line 1: item_id is missing"),
        (b'{"item_id": "a", "removed": "yes"}\n', "line 1: removed must be true or false, not 'yes'"),
        (b'{"item_id": "a", "ts": 1767605400}\n', "line 1: ts looks like seconds: it must be milliseconds"),
        (b'{"item_id": "a", "ts": 1767605400000000}\n', "line 1: ts looks like microseconds"),
        (b'{"item_id": "a", "ts": -1, "removed": true}\n', "line 1: ts looks like a time before 1970"),
        (b'{"item_id": "a", "ts": 1e400}\n', "line 1: "),
        (b'{"item_id": "a", "ts": ' + b"[" * 500 + b"\n", "line 1: "),
    ],
)
def test_broken_line_ends_the_replay(tmp_path: Path, line: bytes, fault: str):
    path = tmp_path / "items.jsonl"
    path.write_bytes(line)
    with pytest.raises(InputFileError, match=fault):
        read_reference_files(path, None)


def test_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(InputFileError, match="cannot be read"):
        read_reference_files(tmp_path / "absent", None)
