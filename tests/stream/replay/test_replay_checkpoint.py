"""Checkpoints: files of the version before can be read."""

from pathlib import Path

import msgspec
import pytest

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.event_reader import LinePosition
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.replay_checkpoint import (
    PartitionFileState,
    ReplayPlan,
    create_folder,
    decode_checkpoint,
    load_plan,
)
from clickscore.stream.replay.source import FilePosition, OffsetPosition, OffsetRange
from clickscore.stream.replay.topic_source import TopicRangeSpec

SETTINGS = {"k": "10"}
FILE = FileSpec(path="events.jsonl", format="clickscore", partitions=4, fingerprint="9-ab")
TOPIC = TopicRangeSpec(
    topic="clickstream-events",
    begin="5",
    end="latest",
    warm_up="earliest",
    ranges={0: OffsetRange(begin=5, end=9, warm_up=0, log_begin=0)},
)


def plan(source: FileSpec | TopicRangeSpec = FILE) -> ReplayPlan:
    return ReplayPlan(output="decisions", source=source, bundle=None, workers=1, settings=SETTINGS)


@pytest.mark.parametrize(
    ("stored", "source"),
    [
        (
            {"type": "file", "path": "events.jsonl", "format": "clickscore", "partitions": 4, "fingerprint": "9-ab"},
            FILE,
        ),
        (
            {
                "type": "kafka",
                "topic": "clickstream-events",
                "begin": "5",
                "end": "latest",
                "warm": "earliest",
                "ranges": {"0": {"begin": 5, "end": 9, "warm": 0, "log_begin": 0}},
            },
            TOPIC,
        ),
    ],
    ids=["file", "topic"],
)
def test_plan_of_the_version_before_is_read(stored: object, source: FileSpec | TopicRangeSpec, tmp_path: Path) -> None:
    document = {"what": "decisions", "origin": stored, "bundle": None, "workers": 1, "settings": SETTINGS}
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(document))
    assert load_plan(tmp_path, plan(source)) == plan(source)


@pytest.mark.parametrize(
    ("mark", "position"),
    [
        ({"type": "file", "place": [7, 99], "offsets": [3, 4]}, FilePosition(LinePosition(7, 99), (3, 4))),
        ({"type": "kafka", "offsets": {0: 7}}, OffsetPosition({0: 7})),
    ],
    ids=["file", "topic"],
)
def test_checkpoint_of_the_version_before_is_read(mark: object, position: object) -> None:
    tally = {"outcomes": {"decided": 5}, "unreadable": 1, "warm": 2, "written": 5}
    parts = {0: {"length": 12, "pending": b"abc"}}
    checkpoint = decode_checkpoint(
        msgspec.msgpack.encode({"mark": mark, "tally": tally, "parts": parts, "done": False})
    )
    assert checkpoint.position == position
    assert (checkpoint.tally.outcomes, checkpoint.tally.warm_up, checkpoint.tally.written) == ({"decided": 5}, 2, 5)
    assert checkpoint.files == {0: PartitionFileState(12, b"abc")}
    assert not checkpoint.done


def test_plan_of_a_later_offset_of_latest_is_the_same_plan(tmp_path: Path) -> None:
    grown = msgspec.structs.replace(TOPIC, ranges={0: OffsetRange(begin=5, end=99, warm_up=0, log_begin=0)})
    create_folder(tmp_path / "parts", plan(TOPIC), [])
    assert load_plan(tmp_path / "parts", plan(grown)) == plan(TOPIC)


def test_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"{}")
    with pytest.raises(InputFileError, match="written by another version of clickscore: delete it"):
        load_plan(tmp_path, plan())
