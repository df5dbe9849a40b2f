"""Driver: a replay in this process, resumed where it was interrupted, and refused where it cannot go on."""

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.errors import OutputFileError
from clickscore.schemas.sessions import decode_session
from clickscore.stream.errors import InputFileError, SettingsError
from clickscore.stream.replay.file_source import make_file_spec
from clickscore.stream.replay.replay_checkpoint import OutputKind
from clickscore.stream.replay.run import ReplayOptions, ReplayResult, run_replay
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.settings import PolicySettings, Settings
from tests.integration.event_log import event_log

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[2] / "golden"
PARTITIONS = 4


def replay(
    path: Path,
    out: Path,
    *,
    output: OutputKind = "decisions",
    settings: Settings | None = None,
    resume: bool = False,
    check: str | None = None,
    checkpoint_s: float = 60,
    on_progress: Callable[[list[ReplayProgress]], None] = lambda _: None,
) -> ReplayResult:
    options = ReplayOptions(workers=1, out=out, resume=resume, checkpoint_s=checkpoint_s, check=check)
    source = make_file_spec(path, "clickscore", PARTITIONS)
    return run_replay(settings or Settings(), source, output, options, on_progress)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"\n".join(record.value or b"null" for record in event_log(4_000, seed=3)))
    return path


class InterruptError(Exception):
    pass


def interrupt(folder: Path) -> Callable[[list[ReplayProgress]], None]:
    """Return a progress function that ends the replay once there is a checkpoint."""

    def on_progress(_: list[ReplayProgress]) -> None:
        if list(folder.glob("checkpoint-?")):
            raise InterruptError

    return on_progress


def interrupted(log: Path, out: Path, output: OutputKind = "decisions") -> Path:
    """Interrupt a replay in the middle; return the folder that it left."""
    folder = out.with_name(f"{out.name}.parts")
    with pytest.raises(InterruptError):
        replay(log, out, output=output, checkpoint_s=1e-9, on_progress=interrupt(folder))
    assert not out.exists()
    return folder


def test_decisions_on_the_golden_log_are_written_in_the_order_of_partitions(tmp_path: Path) -> None:
    result = replay(GOLDEN / "events.jsonl", tmp_path / "a.jsonl")
    decisions = (tmp_path / "a.jsonl").read_bytes()
    assert decisions == (GOLDEN / "decisions.jsonl").read_bytes()
    assert result.tally.written == len(decisions.splitlines())
    assert (result.diff, result.source.cold_partitions) == (None, {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_output_may_be_compressed(log: Path, tmp_path: Path) -> None:
    replay(log, tmp_path / "a.jsonl")
    replay(log, tmp_path / "a.jsonl.gz")
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()


def test_output_without_a_line_is_a_gzip_file(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"")
    replay(tmp_path / "none.jsonl", tmp_path / "a.jsonl.gz")
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == b""


@pytest.mark.parametrize("output", ["decisions", "sessions", "sessions, open ones too"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_interrupted_replay_is_resumed_to_the_same_bytes(
    log: Path, output: OutputKind, name: str, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    uninterrupted = replay(log, tmp_path / "b" / name, output=output)
    folder = interrupted(log, tmp_path / name, output)
    resumed = replay(log, tmp_path / name, output=output, resume=True)
    assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert resumed.tally == uninterrupted.tally
    assert not folder.exists()


def session_ids(path: Path) -> list[str]:
    return [decode_session(line).id for line in path.read_bytes().splitlines()]


def test_sessions_of_files_cut_separately_have_distinct_ids_and_the_same_session_has_the_same_id(
    log: Path, tmp_path: Path
) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    parts = {"first": lines[:2000], "second": lines[2000:], "overlap": lines[:2500]}
    ids: dict[str, set[str]] = {}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(b"".join(content))
        replay(tmp_path / name, tmp_path / f"{name}.jsonl", output="sessions")
        listed = session_ids(tmp_path / f"{name}.jsonl")
        assert len(set(listed)) == len(listed) > 0
        ids[name] = set(listed)
    assert not ids["first"] & ids["second"]
    assert ids["first"] < ids["overlap"]


def test_interrupted_replay_is_not_overwritten(log: Path, tmp_path: Path) -> None:
    interrupted(log, tmp_path / "a.jsonl")
    with pytest.raises(OutputFileError, match="holds an interrupted replay: resume it with --resume"):
        replay(log, tmp_path / "a.jsonl")


def test_replay_of_another_plan_is_not_resumed(log: Path, tmp_path: Path) -> None:
    interrupted(log, tmp_path / "a.jsonl")
    settings = msgspec.structs.replace(Settings(), policy=PolicySettings(k=3))
    with pytest.raises(InputFileError, match=r"differs from this one in k \(10, now 3\)"):
        replay(log, tmp_path / "a.jsonl", settings=settings, resume=True)


def test_nothing_to_resume_is_an_error(log: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds no interrupted replay: start without --resume"):
        replay(log, tmp_path / "a.jsonl", resume=True)


def test_file_is_not_compared_with_published_decisions(log: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="only a topic"):
        replay(log, tmp_path / "a.jsonl", check="recommendation-decisions")
    assert list(tmp_path.iterdir()) == []
