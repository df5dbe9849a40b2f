import pytest
from click.testing import CliRunner

from clickscore.model.commands import split
from clickscore.model.errors import DataError
from clickscore.model.split import split_sessions
from clickscore.schemas.errors import OutputFileError
from clickscore.schemas.sessions import decode_session
from tests.model.builders import closed, write_sessions


@pytest.fixture
def source(tmp_path):
    return write_sessions(tmp_path / "sessions.jsonl", [closed(number, "view:a view:b") for number in range(100)])


def parts(source, by="time", share=0.3):
    """Return the sessions of both parts, and what was counted."""
    files = source.with_name("training.jsonl"), source.with_name("test.jsonl.gz")
    counts = split_sessions(source, *files, by, share)
    return [list(map(decode_session, lines(path))) for path in files], counts


def lines(path):
    from clickscore.model.session_files import read_lines  # noqa: PLC0415

    return list(read_lines(path))


def opening(number, opened_at, closed_at):
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(closed(number, "view:a", closed_at=closed_at), opened_at=opened_at)


def test_what_is_learned_has_ended_before_what_is_judged_begins(tmp_path):
    closed_sessions = [opening(0, 0, 5), opening(1, 10, 90), opening(2, 20, 25), opening(3, 80, 85), opening(4, 82, 99)]
    (training, test), counts = parts(write_sessions(tmp_path / "sessions.jsonl", closed_sessions), share=0.4)
    assert [session.session_id for session in training] == ["0", "2"]
    assert [session.session_id for session in test] == ["3", "4"]
    assert counts == (2, 2, 1)


def test_no_user_is_in_both_parts(source):
    (training, test), counts = parts(source, by="user")
    assert counts[0] + counts[1] == 100
    assert 15 < counts[1] < 45
    assert not {session.user_id for session in training} & {session.user_id for session in test}


def test_same_user_is_always_in_the_same_part(source):
    first, second = parts(source, by="user")[0], parts(source, by="user")[0]
    assert first == second


def test_line_that_is_no_session_is_refused(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text('{"id": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"sessions\.jsonl:1 is no closed session"):
        split_sessions(path, tmp_path / "a", tmp_path / "b", "time", 0.3)


def test_blank_line_is_no_session(source):
    source.write_bytes(source.read_bytes() + b"\n\n")
    assert sum(parts(source, by="user")[1]) == 100


@pytest.mark.parametrize("count", [0, 1, 100])
def test_split_that_would_leave_a_part_empty_is_refused(tmp_path, count):
    """All sessions open at the same time, as in a file without times: none has ended before the test begins."""
    source = write_sessions(tmp_path / "sessions.jsonl", [closed(number, "view:a") for number in range(count)])
    with pytest.raises(DataError, match=f"cannot be split by time: 0 of {count} sessions would be for training"):
        parts(source)
    assert not (tmp_path / "training.jsonl").exists()


@pytest.mark.parametrize("line", [b'{"id": 1}', b'{"user_id": "\xff", "opened_at": 1, "closed_at": 1}'])
def test_no_file_is_written_for_a_line_that_is_no_session(tmp_path, line):
    (source := tmp_path / "sessions.jsonl").write_bytes(line)
    with pytest.raises(DataError, match="is no closed session"):
        parts(source)
    assert not (tmp_path / "training.jsonl").exists()


@pytest.mark.parametrize(("training", "test"), [("sessions.jsonl", "b"), ("a", "./sessions.jsonl"), ("a", "a")])
def test_file_is_not_split_into_itself_and_keeps_its_sessions(source, training, test):
    folder = source.parent
    before = source.read_bytes()
    with pytest.raises(DataError, match="name three different files"):
        split_sessions(source, folder / training, folder / test, "user", 0.3)
    assert source.read_bytes() == before


def test_file_that_cannot_be_written_is_refused(source, tmp_path):
    with pytest.raises(OutputFileError, match="absent/a cannot be written: No such file or directory"):
        split_sessions(source, tmp_path / "absent" / "a", tmp_path / "b", "user", 0.3)


def test_command_says_how_many_went_where(source, tmp_path):
    arguments = [str(source), "--by", "user", "--training", str(tmp_path / "a"), "--test", str(tmp_path / "b")]
    assert "test sessions, 0 open at the border" in CliRunner().invoke(split, arguments).output
