"""Replay in processes: equal bytes for any number of processes, any interrupt and any compression of the file."""

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from clickscore.model.session_files import read_sessions
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.sessions import decode_session
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSource
from clickscore.stream.replay.source import FilePosition
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.bundles import small_bundle
from tests.integration.event_log import event_log

pytestmark = pytest.mark.slow  # each test starts processes

ROOT = Path(__file__).parents[3]
PARTITIONS = 4


def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CLICKSCORE_", "KAFKA_"))}
    return ours | {"ORT_DISABLE_TELEMETRY": "1"}


def clickscore(*arguments: object, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "clickscore.stream", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), input=stdin, capture_output=True, check=False, timeout=300
    )


def replayed(*arguments: object, out: Path) -> bytes:
    done = clickscore("replay", *arguments, "--out", out)
    assert done.returncode == 0, done.stderr.decode()
    return out.read_bytes()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of events out of order, late, repeated and broken."""
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"\n".join(record.value or b"null" for record in event_log(12_000, seed=3)))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture(scope="module")
def decisions(log: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process makes of the log, uncut."""
    return replayed(log, "--bundle", bundle, out=tmp_path_factory.mktemp("decisions") / "all.jsonl.gz")


def outputs(log: Path, pipeline: Pipeline) -> list[Output]:
    with FileSource(log, "clickscore", range(PARTITIONS), FilePosition(offsets=(0,) * PARTITIONS)) as source:
        return [output for batches in source.batches() for output in pipeline.process_all(batches)]


def lines(content: bytes) -> list[bytes]:
    return gzip.decompress(content).splitlines()


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_any_number_of_processes_writes_the_same_bytes(
    log: Path, bundle: Path, decisions: bytes, workers: int, tmp_path: Path
) -> None:
    again = replayed(log, "--bundle", bundle, "--workers", workers, out=tmp_path / "again.jsonl.gz")
    assert again == decisions


def test_decisions_stand_partition_by_partition_in_the_order_of_the_log(decisions: bytes) -> None:
    places = [decode_decision(line).decision_id.split("-")[-2:] for line in lines(decisions)]
    numbers = [(int(partition), int(offset)) for partition, offset in places]
    assert numbers == sorted(numbers)
    assert {partition for partition, _ in numbers} == set(range(PARTITIONS))


def test_output_without_gz_is_plain(log: Path, bundle: Path, decisions: bytes, tmp_path: Path) -> None:
    assert replayed(log, "--bundle", bundle, out=tmp_path / "a.jsonl") == gzip.decompress(decisions)


def test_nothing_is_left_beside_the_output(log: Path, tmp_path: Path) -> None:
    replayed(log, out=tmp_path / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_file_gives_the_same(log: Path, bundle: Path, decisions: bytes, packed: str, tmp_path: Path) -> None:
    compress = gzip.compress if packed == "gz" else pytest.importorskip("zstandard").compress
    path = tmp_path / "packed"
    path.write_bytes(compress(log.read_bytes()))
    assert replayed(path, "--bundle", bundle, out=tmp_path / "a.jsonl.gz") == decisions


def cut_off(arguments: Sequence[object], folder: Path, checkpoints: int) -> None:
    """Run until so many checkpoints have been written, then end it as a power failure would."""
    command = [sys.executable, "-m", "clickscore.stream", *map(str, arguments)]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    written: set[tuple[str, int]] = set()
    deadline = time.monotonic() + 120
    while len(written) < checkpoints:
        assert run.poll() is None, "it ended before it could be cut off"
        assert time.monotonic() < deadline
        for path in folder.glob("checkpoint-?"):
            written.add((path.name, path.stat().st_mtime_ns))
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_run_that_was_killed_twice_goes_on_to_the_same_bytes(
    log: Path, bundle: Path, decisions: bytes, workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl.gz"
    folder = tmp_path / "a.jsonl.gz.parts"
    arguments = ["replay", log, "--bundle", bundle, "--workers", workers, "--checkpoint-s", "0.01", "--out", out]
    cut_off(arguments, folder, 1)
    time.sleep(0.5)  # its processes see that nobody waits for them
    assert not out.exists()
    cut_off([*arguments, "--resume"], folder, 2)
    time.sleep(0.5)
    assert replayed(*arguments[1:-2], "--resume", out=out) == decisions
    assert not folder.exists()


def test_run_that_was_cut_off_is_not_overwritten(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    cut_off(["replay", log, "--checkpoint-s", "0.01", "--out", out], tmp_path / "a.jsonl.parts", 1)
    done = clickscore("replay", log, "--out", out)
    assert done.returncode == 1
    assert b"holds an interrupted replay: resume it with --resume, or delete the folder" in done.stderr


def test_other_run_is_not_gone_on_with(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    cut_off(["replay", log, "--checkpoint-s", "0.01", "--out", out], tmp_path / "a.jsonl.parts", 1)
    done = clickscore("replay", log, "--out", out, "--resume", "--k", "3", "--workers", "2")
    assert done.returncode == 1
    assert b"the interrupted replay differs from this one in k (10, now 3), workers (1, now 2): repeat" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_file_that_changed_is_not_gone_on_with(log: Path, tmp_path: Path) -> None:
    out, changing = tmp_path / "a.jsonl", tmp_path / "events.jsonl"
    changing.write_bytes(log.read_bytes())
    cut_off(["replay", changing, "--checkpoint-s", "0.01", "--out", out], tmp_path / "a.jsonl.parts", 1)
    changing.write_bytes(log.read_bytes() + b"\n")
    done = clickscore("replay", changing, "--out", out, "--resume")
    assert b"differs from this one in the source: repeat its command" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jsonl", "--out", "a"], b"clickscore: nowhere.jsonl cannot be read: No such file or directory\n"),
        (["kafka:a", "--from", "noon", "--out", "a"], b"clickscore: 'noon' is not an offset, not a time like"),
        (
            ["tests/golden/events.jsonl", "--bundle", "nowhere", "--out", "a"],
            b"clickscore: the bundle nowhere cannot be served",
        ),
        (["tests/golden/events.jsonl", "--out", "/nowhere/a"], b"clickscore: /nowhere/a.parts cannot be written"),
        (["tests/golden/events.jsonl", "--out", "a", "--resume"], b"clickscore: a.parts holds no interrupted replay"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], words: bytes) -> None:
    done = clickscore("replay", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert done.stderr.count(b"\n") == 1


def test_error_in_one_of_many_processes_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "events.jsonl.gz"
    broken.write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
    done = clickscore("replay", broken, "--workers", 2, "--out", tmp_path / "a")
    assert done.returncode == 1
    assert done.stderr.endswith(b"events.jsonl.gz cannot be read: its gzip data ends early\n")
    assert done.stderr.count(b"\n") == 1


def test_unreadable_lines_count_once_whatever_the_processes(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(b"1,2,3,pv,1511658000\n1,2,3,hug,1511658000\n1,2,3\n")
    for workers in (1, 2):
        done = clickscore("replay", path, "--format", "taobao", "--workers", workers, "--out", tmp_path / "a")
        assert b"1 events" in done.stderr
        assert b"2 unreadable lines" in done.stderr


def test_stdin_is_replayed(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    assert clickscore("replay", "-", "--out", out, stdin=log.read_bytes()).returncode == 0
    assert out.read_bytes() == replayed(log, "--order", "file", out=tmp_path / "b.jsonl")


# Sessions


def without_id(session: bytes) -> bytes:
    """Return a closed session without its id: a file's sessions have ids of their own."""
    return re.sub(rb'^\{"id":"[^"]+",', b"{", session)


def test_sessions_are_those_that_the_live_code_closes(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "sessions.jsonl.gz"
    assert clickscore("sessions", log, "--workers", 2, "--order", "file", "--out", out).returncode == 0
    found = outputs(log, Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", Catalogue()))
    closed = sorted(message.value or b"" for output in found for message in output.closed_sessions)
    assert len(closed) > 500
    assert sorted(map(without_id, lines(out.read_bytes()))) == sorted(map(without_id, closed))


def test_sessions_that_are_open_at_the_end_are_written_where_they_are_wanted(log: Path, tmp_path: Path) -> None:
    closed, everything = tmp_path / "closed.jsonl", tmp_path / "all.jsonl"
    assert clickscore("sessions", log, "--out", closed).returncode == 0
    assert clickscore("sessions", log, "--out", everything, "--close-open").returncode == 0
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", Catalogue())
    outputs(log, pipeline)
    added = set(everything.read_bytes().splitlines()) - set(closed.read_bytes().splitlines())
    assert len(added) == sum(state.open_sessions for state in pipeline.partitions.values()) > 0
    assert all(msgspec.json.decode(line)["ended"] is False for line in added)
    assert all(decode_session(line).length for line in added)


def test_training_reads_all_sessions(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "sessions.jsonl.gz"
    assert clickscore("sessions", log, "--out", out, "--close-open").returncode == 0
    _, report = read_sessions([out])
    assert (report.lines, report.problem) == (len(lines(out.read_bytes())), "")
    assert not {"not a closed session", "repeat of a session", "event of an unknown action"} & set(report.dropped)


def test_sessions_that_were_cut_off_go_on_to_the_same_bytes(log: Path, tmp_path: Path) -> None:
    uncut, out = tmp_path / "uncut.jsonl.gz", tmp_path / "a.jsonl.gz"
    assert clickscore("sessions", log, "--out", uncut, "--close-open").returncode == 0
    arguments = ["sessions", log, "--close-open", "--checkpoint-s", "0.01", "--out", out]
    cut_off(arguments, tmp_path / "a.jsonl.gz.parts", 1)
    done = clickscore(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == uncut.read_bytes()
