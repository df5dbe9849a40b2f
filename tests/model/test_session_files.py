import gzip
import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from clickscore.model.errors import DataError
from clickscore.model.session_files import (
    BOT_TOO_FAST,
    BOT_TOO_LONG,
    DUPLICATE_SESSION,
    MALFORMED_LINE,
    SESSION_WITHOUT_ITEM,
    UNKNOWN_ACTION,
    read_session_keys,
    read_sessions,
)
from clickscore.schemas.events import ACTIONS
from tests.model.builders import closed, shoppers, write_sessions


def test_compressed_file_holds_what_the_plain_one_does(tmp_path):
    plain = write_sessions(tmp_path / "plain.jsonl", shoppers(5))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    (first, origin), (second, same) = read_sessions([plain]), read_sessions([packed])
    assert np.array_equal(first.items, second.items)
    assert origin.sha256 == same.sha256


def test_several_files_are_read_as_one(tmp_path):
    closed_sessions = shoppers(6)
    paths = [write_sessions(tmp_path / "1", closed_sessions[:2]), write_sessions(tmp_path / "2", closed_sessions[2:])]
    joined = write_sessions(tmp_path / "all", closed_sessions)
    assert np.array_equal(read_sessions(paths)[0].items, read_sessions([joined])[0].items)


def test_sessions_come_in_order_of_closing(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(1, "view:b", closed_at=20), closed(2, "view:a", closed_at=10)])
    sessions, _ = read_sessions([path])
    assert [sessions.item_ids[item] for item in sessions.items] == ["a", "b"]


def test_session_of_another_user_is_no_repeat_although_a_new_topic_gave_it_the_same_id(tmp_path):
    first, second = closed(1, "view:a"), msgspec.structs.replace(closed(1, "view:b"), user_id="somebody else")
    paths = [write_sessions(tmp_path / "1", [first]), write_sessions(tmp_path / "2", [second])]
    sessions, report = read_sessions(paths)
    assert (len(sessions), report.dropped) == (2, {})
    assert set(read_session_keys(paths[0])).isdisjoint(read_session_keys(paths[1]))


def test_repeat_of_a_session_is_left_out_and_counted(tmp_path):
    sessions, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "view:a"), closed(1, "view:a")])])
    assert len(sessions) == 1
    assert report.dropped == {DUPLICATE_SESSION: 1}


def test_malformed_line_is_left_out_counted_and_named(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(1, "view:a")])
    path.write_bytes(path.read_bytes() + b'{"id": 3}\nnonsense\n')
    sessions, report = read_sessions([path])
    assert len(sessions) == 1
    assert report.dropped == {MALFORMED_LINE: 2}
    assert report.problem.startswith(f"{path}:2: ")


@pytest.mark.parametrize("field", ["opened_at", "closed_at"])
@pytest.mark.parametrize("time", [-1, 10**17, 10**30])
def test_time_that_is_none_makes_a_line_malformed(tmp_path, field, time):
    session = msgspec.structs.replace(closed(1, "view:a"), **{field: time})
    path = tmp_path / "s"
    path.write_bytes(json.dumps(msgspec.to_builtins(session)).encode())
    sessions, report = read_sessions([path])
    assert (len(sessions), report.dropped) == (0, {MALFORMED_LINE: 1})
    assert field in report.problem


def test_event_with_a_time_that_is_none_makes_a_line_malformed(tmp_path):
    (path := tmp_path / "s").write_text(
        '{"id":"a","session_id":"a","user_id":"u","opened_at":0,"closed_at":1,"length":1,"purchased":false,'
        f'"events":[{{"ts":{10**30},"action":"view","item_id":"i"}}]}}'
    )
    assert read_sessions([path])[1].dropped == {MALFORMED_LINE: 1}


def test_session_without_an_event_on_an_item_is_left_out_and_counted(tmp_path):
    _, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "search search")])])
    assert report.dropped == {SESSION_WITHOUT_ITEM: 1}


def test_event_of_an_unknown_action_is_left_out_and_counted(tmp_path):
    sessions, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "view:a share:a view:b")])])
    assert len(sessions.items) == 2
    assert report.dropped == {UNKNOWN_ACTION: 1}


def test_session_of_a_robot_is_left_out_and_counted(tmp_path):
    closed_sessions = [closed(1, "view:a " * 501), closed(2, "view:a " * 30), closed(3, "view:a " * 29)]
    sessions, report = read_sessions([write_sessions(tmp_path / "s", closed_sessions)])
    assert report.dropped == {BOT_TOO_LONG: 1, BOT_TOO_FAST: 1}
    assert len(sessions) == 1


@pytest.mark.parametrize("name", ["s.txt", "s.tsv", "s.tsv.gz"])
def test_lines_of_item_ids_are_sessions_of_views_in_their_order(tmp_path, name):
    lines = b"b a\n\nb\nb\n"
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    sessions, report = read_sessions([tmp_path / name])
    assert [sessions.item_ids[item] for item in sessions.items] == ["b", "a", "b", "b"]
    assert sessions.starts.tolist() == [0, 2, 3, 4]
    assert {ACTIONS[action] for action in sessions.actions} == {"view"}
    assert (report.lines, report.dropped) == (3, {})


def test_blank_line_is_no_line(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"\n  \n")
    assert read_sessions([path])[1].lines == 0


def test_report_counts_lines_sessions_and_events(tmp_path):
    _, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "view:a view:b"), closed(2, "search")])])
    assert (report.lines, report.sessions, report.events) == (2, 1, 2)


def test_other_content_has_another_fingerprint(tmp_path):
    prints = {read_sessions([write_sessions(tmp_path / "s", shoppers(5, seed=seed))])[1].sha256 for seed in (1, 2)}
    assert len(prints) == 2


def test_file_that_is_not_compressed_as_its_name_says_is_refused(tmp_path):
    path = write_sessions(tmp_path / "s.gz", [closed(1, "view:a")])
    with pytest.raises(DataError, match=r"s\.gz cannot be read"):
        read_sessions([path])


def test_compressed_file_that_breaks_off_is_refused(tmp_path):
    path = tmp_path / "s.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000)[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        read_sessions([path])


@pytest.mark.slow
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read_plain_and_packed(tmp_path, pack):
    path = write_sessions(tmp_path / "sessions.jsonl", shoppers(20))
    code = (
        "from pathlib import Path; from clickscore.model.session_files import read_sessions; "
        "print(read_sessions([Path('-')])[1].sha256)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=pack(path.read_bytes()), capture_output=True, check=True
    )
    assert result.stdout.decode().strip() == read_sessions([path])[1].sha256
