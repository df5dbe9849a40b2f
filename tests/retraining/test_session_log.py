import gzip

import pytest

from clickscore.model.session_files import read_lines
from clickscore.retraining.session_log import divide_sessions, is_erased
from clickscore.schemas.sessions import ClosedSession, decode_session, encode_session

ERASED = {"anna": {0: 50, 1: 7}}


def session(record_id: str, opened_at: int = 0, closed_at: int = 0, user: str = "anna") -> ClosedSession:
    return ClosedSession(
        id=record_id,
        session_id="s",
        user_id=user,
        opened_at=opened_at,
        closed_at=closed_at,
        length=0,
        purchased=False,
        events=(),
    )


@pytest.mark.parametrize(
    ("record_id", "erased"),
    [
        ("clickstream-events-0-49", True),
        ("clickstream-events-0-50", False),
        ("clickstream-events-1-7", False),
        ("clickstream-events-1-6", True),
        ("clickstream-events-2-999", True),
        ("file-1a2b", True),
        ("", True),
    ],
)
def test_session_from_before_the_erasure_is_left_out(record_id, erased):
    assert is_erased(session(record_id), ERASED) is erased
    assert not is_erased(session(record_id, user="bob"), ERASED)


def test_training_ends_before_the_held_out_sessions_begin(tmp_path):
    sessions = [
        session("learned", 0, 10),
        session("old", 5, 20),
        session("newer", 5, 21),
        session("at the border", 40, 60),
        session("ends at the border", 40, 50),
        session("new", 50, 70),
    ]
    with gzip.open(tmp_path / "all.jsonl.gz", "wb") as file:
        file.writelines(encode_session(closed) + b"\n" for closed in sessions)
    counts = divide_sessions(
        tmp_path / "all.jsonl.gz",
        tmp_path / "training.jsonl.gz",
        tmp_path / "held-out.jsonl.gz",
        trained_until=10,
        known_until=20,
        held_out_from=50,
    )
    parts = [
        [decode_session(line).id for line in read_lines(tmp_path / f"{name}.jsonl.gz")]
        for name in ("training", "held-out")
    ]
    assert parts == [["old", "newer"], ["new"]]
    assert counts == (2, 1, 1)
