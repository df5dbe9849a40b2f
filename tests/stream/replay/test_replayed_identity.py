"""Replay of a file with identify events: sessions move between partitions, as in a topic."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import encode_event, read_identify
from clickscore.schemas.sessions import decode_session
from clickscore.schemas.topics import EVENTS
from clickscore.stream.event_files.time_order import plan_reading
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSource, make_file_spec
from clickscore.stream.replay.replay_checkpoint import OutputKind
from clickscore.stream.replay.run import ReplayOptions, run_replay
from clickscore.stream.replay.source import FilePosition, HandoverSlot, OffsetRange, handover_batches
from clickscore.stream.replay.source_options import SourceOptions
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.settings import Settings
from tests.chaos.privacy_records import with_identities, with_privacy_records
from tests.events import Recorded, identify, view
from tests.integration.event_log import event_log

PARTITIONS = 4
OnProgress = Callable[[list[ReplayProgress]], None]


def replay(
    path: Path,
    out: Path,
    *,
    output: OutputKind = "decisions",
    workers: int = 1,
    resume: bool = False,
    checkpoint_s: float = 60,
    on_progress: OnProgress = lambda _: None,
) -> list[bytes]:
    settings = Settings()
    file_format, reading = plan_reading(path, "clickscore", settings.sessions.lateness_ms)
    source = make_file_spec(path, file_format, PARTITIONS, reading)
    options = ReplayOptions(workers=workers, out=out, resume=resume, checkpoint_s=checkpoint_s)
    run_replay(settings, source, output, options, on_progress)
    return out.read_bytes().splitlines()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    log = with_identities(with_privacy_records(event_log(2_500, seed=4, users=60), seed=4), seed=4)
    path.write_bytes(b"\n".join(record.value or b"null" for record in log))
    return path


@pytest.fixture
def visit(tmp_path: Path) -> Path:
    """A visit that begins under an anonymous id."""
    path = tmp_path / "visit.jsonl"
    events = [view("cookie", 0, "a"), view("cookie", 1, "b"), identify("cookie", 2, "ann"), view("ann", 3, "c")]
    path.write_bytes(b"\n".join([*map(encode_event, events), encode_event(view("ann", 90, "d"))]))
    return path


def test_first_decision_after_the_identification_knows_both_halves(visit: Path, tmp_path: Path) -> None:
    decisions = [decode_decision(line) for line in replay(visit, tmp_path / "out.jsonl")]
    lengths = [each.session_length for each in decisions if isinstance(each, Recommendation) and each.user_id == "ann"]
    assert lengths == [3, 1]


def test_session_for_training_has_both_halves(visit: Path, tmp_path: Path) -> None:
    (line,) = replay(visit, tmp_path / "out.jsonl", output="sessions")
    session = decode_session(line)
    assert (session.user_id, [event.item_id for event in session.events]) == ("ann", ["a", "b", "c"])


def test_handover_takes_the_next_offset_of_the_partition_of_the_user(visit: Path) -> None:
    with FileSource(visit, "clickscore", range(PARTITIONS), FilePosition(offsets=(0,) * PARTITIONS)) as source:
        steps = [(source.slot, source.is_resumable, batches) for batches in source.batches()]
    partition = partition_of(b"ann", PARTITIONS)
    assert steps[0][:2] == (HandoverSlot(partition, 0), False)
    assert [
        record.offset for _, _, batches in steps[1:] for p, records in batches if p == partition for record in records
    ] == [1, 2]
    assert steps[-1][:2] == (None, True)


def test_log_of_a_topic_has_its_handovers_already() -> None:
    assert handover_batches(None, []) == []
    ranges = {0: OffsetRange(0, 9, 0, 0), 1: OffsetRange(0, 9, 0, 0)}
    spec = TopicRangeSpec(topic="t", begin="0", end="9", warm_up="0", ranges=ranges)
    assert spec.max_workers == 2
    source = spec.open(Settings(), [0, 1], None)
    assert (source.slot, source.is_resumable) == (None, True)


@pytest.mark.parametrize("order", ["time", "file"])
def test_file_with_identities_is_replayed_in_one_process(log: Path, visit: Path, order: str) -> None:
    for path in (log, visit):
        options = SourceOptions(
            source=str(path), file_format="clickscore", order=order, begin=None, end=None, warm_up_from=None
        )
        assert options.resolve(Settings()).max_workers == 1
    assert make_file_spec(visit, "clickscore", PARTITIONS).max_workers == PARTITIONS


def test_more_processes_write_the_same(visit: Path, tmp_path: Path) -> None:
    assert replay(visit, tmp_path / "a.jsonl") == replay(visit, tmp_path / "b.jsonl", workers=4)


def test_replay_decides_as_the_log_of_a_topic_in_which_handovers_come_at_once(log: Path, tmp_path: Path) -> None:
    settings = Settings()
    live = Pipeline(settings.sessions, settings.policy, EVENTS.name, Catalogue())
    topic: dict[int, list[Recorded]] = {partition: [] for partition in range(PARTITIONS)}

    def append(partition: int, key: bytes | None, value: bytes | None) -> list[Recorded]:
        topic[partition].append(Recorded(len(topic[partition]), -1, key, value))
        return topic[partition][-1:]

    _, reading = plan_reading(log, "clickscore", settings.sessions.lateness_ms)
    start = FilePosition(offsets=(0,) * PARTITIONS)
    with FileSource(log, "clickscore", range(PARTITIONS), start, reading) as source:
        lines = [line for chunk in source._file.chunks() for line in chunk if line.error is None]  # pyright: ignore[reportPrivateUsage]
    for line in lines:
        partition = partition_of(line.routing, PARTITIONS)
        output = live.process(partition, append(partition, line.key, line.value))
        event = read_identify(line.value)
        if event is not None:  # a worker that has nothing to hand over writes no record; a replay keeps its place free
            target = partition_of(event.identified_as.encode(), PARTITIONS)
            message = output.handovers[0] if output.handovers else None
            record = append(target, event.identified_as.encode(), message.value if message else b"no hand-over")
            if message:
                live.process(target, record)
    again = Pipeline(settings.sessions, settings.policy, EVENTS.name, Catalogue())
    outputs = [again.process(partition, records) for partition, records in topic.items()]
    assert sum(output.outcomes["handover"] for output in outputs) > 5
    decisions = [message.value for output in outputs for message in output.recommendations]
    assert replay(log, tmp_path / "out.jsonl") == decisions


class InterruptError(Exception):
    pass


def test_interrupted_replay_goes_on_with_the_same_bytes(log: Path, tmp_path: Path) -> None:
    def interrupt(_: list[ReplayProgress]) -> None:
        if (tmp_path / "part.jsonl.parts" / "checkpoint-0").exists():
            raise InterruptError

    expected = replay(log, tmp_path / "whole.jsonl")
    with pytest.raises(InterruptError):
        replay(log, tmp_path / "part.jsonl", checkpoint_s=1e-9, on_progress=interrupt)
    assert replay(log, tmp_path / "part.jsonl", resume=True, checkpoint_s=1e-9) == expected
