import dataclasses
import gzip

import numpy as np
import pytest

from clickscore.model.config import TrainConfig
from clickscore.model.dataset import (
    MALFORMED,
    RARE,
    REPEATED,
    TOO_FAST,
    TOO_LONG,
    UNKNOWN_ACTION,
    WITHOUT_ITEM,
    WITHOUT_KNOWN_ITEM,
    load_dataset,
    load_fine_tuning_data,
    read_sessions,
)
from clickscore.model.errors import TrainingError
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.events import ACTIONS
from tests.model.builders import TINY, closed, shoppers, write_sessions

ONCE = dataclasses.replace(TINY, min_count=1)
TENTHS = dataclasses.replace(ONCE, validation_share=0.1, held_out_share=0.1)


def test_compressed_file_holds_what_the_plain_one_does(tmp_path):
    plain = write_sessions(tmp_path / "plain.jsonl", shoppers(5))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    (first, told), (second, same) = read_sessions([plain]), read_sessions([packed])
    assert np.array_equal(first.items, second.items)
    assert told.sha256 == same.sha256


def test_several_files_are_read_as_one(tmp_path):
    told = shoppers(6)
    paths = [write_sessions(tmp_path / "1", told[:2]), write_sessions(tmp_path / "2", told[2:])]
    whole = write_sessions(tmp_path / "all", told)
    assert np.array_equal(read_sessions(paths)[0].items, read_sessions([whole])[0].items)


def test_sessions_come_in_order_of_closing(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(1, "view:b", at=20), closed(2, "view:a", at=10)])
    sessions, _ = read_sessions([path])
    assert [sessions.item_ids[item] for item in sessions.items] == ["a", "b"]


def test_repeat_of_a_session_is_left_out_and_counted(tmp_path):
    sessions, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "view:a"), closed(1, "view:a")])])
    assert len(sessions) == 1
    assert report.dropped == {REPEATED: 1}


def test_malformed_line_is_left_out_counted_and_named(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(1, "view:a")])
    path.write_bytes(path.read_bytes() + b'{"id": 3}\nnonsense\n')
    sessions, report = read_sessions([path])
    assert len(sessions) == 1
    assert report.dropped == {MALFORMED: 2}
    assert report.problem.startswith(f"{path}:2: ")


def test_session_without_an_event_on_an_item_is_left_out_and_counted(tmp_path):
    _, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "search search")])])
    assert report.dropped == {WITHOUT_ITEM: 1}


def test_event_of_an_unknown_action_is_left_out_and_counted(tmp_path):
    sessions, report = read_sessions([write_sessions(tmp_path / "s", [closed(1, "view:a share:a view:b")])])
    assert len(sessions.items) == 2
    assert report.dropped == {UNKNOWN_ACTION: 1}


def test_session_of_a_robot_is_left_out_and_counted(tmp_path):
    told = [closed(1, "view:a " * 501), closed(2, "view:a " * 30), closed(3, "view:a " * 29)]
    sessions, report = read_sessions([write_sessions(tmp_path / "s", told)])
    assert report.dropped == {TOO_LONG: 1, TOO_FAST: 1}
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


def test_summary_of_sessions_without_times_names_none(tmp_path):
    (tmp_path / "s.txt").write_text("a b\n" * 20)
    assert "out of 20, 2 items" in load_dataset([tmp_path / "s.txt"], ONCE).report.summary()


def test_newer_items_come_after_those_that_are_known(tmp_path):
    (tmp_path / "s.txt").write_text("c b\nc z\n")
    newer = load_fine_tuning_data([tmp_path / "s.txt"], ONCE, Vocabulary(["a", "b"]))
    assert newer.vocabulary.items == ("a", "b", "c", "z")
    assert newer.sessions.items.tolist() == [3, 2, 3, 4]
    assert newer.sample.items.tolist() == [2]


def test_newer_sessions_without_a_known_item_are_refused(tmp_path):
    (tmp_path / "s.txt").write_text("a b\n")
    with pytest.raises(TrainingError, match="no session on a known item"):
        load_fine_tuning_data([tmp_path / "s.txt"], dataclasses.replace(ONCE, min_count=2), Vocabulary([]))


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
    with pytest.raises(TrainingError, match=r"s\.gz cannot be read"):
        read_sessions([path])


def test_compressed_file_that_breaks_off_is_refused(tmp_path):
    path = tmp_path / "s.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000)[:-12])
    with pytest.raises(TrainingError, match="cannot be read"):
        read_sessions([path])


def test_newest_sessions_are_held_out_and_those_before_them_validate(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(number, "view:a " * (1 + number // 8)) for number in range(10)])
    data = load_dataset([path], TENTHS)
    assert (len(data.training), len(data.validation), len(data.held_out)) == (8, 1, 1)
    assert data.training.lengths.tolist() == [1] * 8


def test_items_of_the_newest_sessions_are_known_since_they_are_learned_in_the_end(tmp_path):
    told = [closed(number, "view:a view:b") for number in range(9)] + [closed(9, "view:a view:new")]
    data = load_dataset([write_sessions(tmp_path / "s", told)], TENTHS)
    assert data.vocabulary.items == ("a", "b", "new")
    assert [len(part) for part in (data.sessions, data.training, data.validation, data.held_out)] == [10, 8, 1, 1]


def test_what_is_taken_out_of_the_cart_makes_no_item_popular(tmp_path):
    told = [closed(number, "view:b view:b remove_from_cart:a remove_from_cart:a view:a") for number in range(10)]
    assert load_dataset([write_sessions(tmp_path / "s", told)], ONCE).vocabulary.items == ("b", "a")


def test_sessions_without_a_known_item_are_counted(tmp_path):
    told = [closed(number, "view:a view:a" if number else "view:rare") for number in range(11)]
    data = load_dataset([write_sessions(tmp_path / "s", told)], TINY)
    assert data.report.dropped == {WITHOUT_KNOWN_ITEM: 1, RARE.format(2): 1}
    assert data.report.training == 8


def test_at_most_so_many_sessions_are_ranked(tmp_path):
    config = dataclasses.replace(ONCE, ranked_sessions=3, validation_share=0.2, held_out_share=0.2)
    data = load_dataset([write_sessions(tmp_path / "s", shoppers(50))], config)
    assert (len(data.validation), len(data.held_out)) == (3, 3)


def test_too_few_sessions_are_refused_with_what_was_left_out(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"nonsense\n")
    with pytest.raises(
        TrainingError, match=r"0 sessions to learn from, at least 10 .* 1 x not a closed session .*s:1:"
    ):
        load_dataset([path], TINY)


def test_sessions_of_items_that_are_all_too_rare_are_refused(tmp_path):
    told = [closed(number, f"view:item-{number}") for number in range(20)]
    with pytest.raises(TrainingError, match=r"0 items were seen 2 times or more \(min_count\), in 0 sessions"):
        load_dataset([write_sessions(tmp_path / "s", told)], TINY)


def test_summary_says_when_the_sessions_closed(tmp_path):
    day = 86_400_000
    told = [closed(number, "view:a", at=number * day) for number in range(10)]
    summary = load_dataset([write_sessions(tmp_path / "s", told)], TrainConfig()).report.summary()
    assert "8 sessions for training out of 10 that closed from 1970-01-01 to 1970-01-10, 1 items, sha256" in summary
