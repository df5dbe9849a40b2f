"""File source: the records of a file's partitions."""

from pathlib import Path

import pytest

from clickscore.stream.replay.file_source import FileSource
from clickscore.stream.replay.source import FilePosition
from tests.integration.event_log import event_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"\n".join(record.value or b"" for record in event_log(3_000, seed=5)))
    return path


def test_source_goes_on_from_its_mark(log: Path) -> None:
    begin = FilePosition(offsets=(0, 0, 0, 0))
    with FileSource(log, "clickscore", {1, 3}, begin) as source:
        whole = [(p, record) for batches in source.batches() for p, records in batches for record in records]
    assert {partition for partition, _ in whole} == {1, 3}
    assert [record.offset for p, record in whole if p == 1] == list(range(sum(p == 1 for p, _ in whole)))
