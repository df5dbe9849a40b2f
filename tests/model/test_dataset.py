import dataclasses

import pytest

from clickscore.model.config import TrainConfig
from clickscore.model.dataset import RARE_ITEM, SESSION_WITHOUT_KNOWN_ITEM, load_dataset, load_fine_tuning_data
from clickscore.model.errors import DataError
from clickscore.model.vocabulary import Vocabulary
from tests.model.builders import TINY, closed, shoppers, write_sessions

ONCE = dataclasses.replace(TINY, min_count=1)
TENTHS = dataclasses.replace(ONCE, validation_share=0.1, held_out_share=0.1)


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
    with pytest.raises(DataError, match="no session on a known item: nothing to train on; left out: 2 x event"):
        load_fine_tuning_data([tmp_path / "s.txt"], dataclasses.replace(ONCE, min_count=2), Vocabulary([]))


def test_newer_sessions_of_which_the_model_knows_no_item_are_refused(tmp_path):
    (tmp_path / "s.txt").write_text("c d\n")
    with pytest.raises(DataError, match="no session of the files has an item that the model knows"):
        load_fine_tuning_data([tmp_path / "s.txt"], ONCE, Vocabulary(["a", "b"]))


def test_newest_sessions_are_held_out_and_those_before_them_validate(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(number, "view:a " * (1 + number // 8)) for number in range(10)])
    data = load_dataset([path], TENTHS)
    assert (len(data.training), len(data.validation), len(data.held_out)) == (8, 1, 1)
    assert data.training.lengths.tolist() == [1] * 8


def test_items_of_the_newest_sessions_are_known_since_they_are_learned_in_the_end(tmp_path):
    closed_sessions = [closed(number, "view:a view:b") for number in range(9)] + [closed(9, "view:a view:new")]
    data = load_dataset([write_sessions(tmp_path / "s", closed_sessions)], TENTHS)
    assert data.vocabulary.items == ("a", "b", "new")
    assert [len(part) for part in (data.sessions, data.training, data.validation, data.held_out)] == [10, 8, 1, 1]


def test_what_is_taken_out_of_the_cart_makes_no_item_popular(tmp_path):
    closed_sessions = [
        closed(number, "view:b view:b remove_from_cart:a remove_from_cart:a view:a") for number in range(10)
    ]
    assert load_dataset([write_sessions(tmp_path / "s", closed_sessions)], ONCE).vocabulary.items == ("b", "a")


def test_sessions_without_a_known_item_are_counted(tmp_path):
    closed_sessions = [closed(number, "view:a view:a" if number else "view:rare") for number in range(11)]
    data = load_dataset([write_sessions(tmp_path / "s", closed_sessions)], TINY)
    assert data.report.dropped == {SESSION_WITHOUT_KNOWN_ITEM: 1, RARE_ITEM.format(2): 1}
    assert data.report.training == 8


def test_item_whose_id_fits_on_no_line_is_not_called_rare(tmp_path):
    path = write_sessions(tmp_path / "s", [closed(number, "view:a view:b") for number in range(11)])
    path.write_text(path.read_text().replace('"b"', '"b\\u2028"'))
    dropped = load_dataset([path], ONCE).report.dropped
    assert dropped == {"event on an item whose id has a line end": 11}


def test_at_most_so_many_sessions_are_ranked(tmp_path):
    config = dataclasses.replace(ONCE, ranked_sessions=3, validation_share=0.2, held_out_share=0.2)
    data = load_dataset([write_sessions(tmp_path / "s", shoppers(50))], config)
    assert (len(data.validation), len(data.held_out)) == (3, 3)


def test_sessions_that_judge_a_training_do_not_depend_on_its_seed(tmp_path):
    config = dataclasses.replace(TENTHS, ranked_sessions=5)
    path = write_sessions(tmp_path / "s", [closed(number, f"view:{number} view:a") for number in range(200)])
    first, second = (load_dataset([path], dataclasses.replace(config, seed=seed)) for seed in (0, 1))
    assert first.validation.items.tolist() == second.validation.items.tolist()
    assert first.held_out.items.tolist() == second.held_out.items.tolist()


def test_too_few_sessions_are_refused_with_what_was_left_out(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"nonsense\n")
    with pytest.raises(DataError, match=r"0 sessions to learn from, at least 10 .* 1 x not a closed session.*s:1:"):
        load_dataset([path], TINY)


def test_sessions_of_items_that_are_all_too_rare_are_refused(tmp_path):
    closed_sessions = [closed(number, f"view:item-{number}") for number in range(20)]
    with pytest.raises(DataError, match=r"0 items were seen 2 times or more \(min_count\), in 0 sessions"):
        load_dataset([write_sessions(tmp_path / "s", closed_sessions)], TINY)


def test_summary_says_when_the_sessions_closed(tmp_path):
    day = 86_400_000
    closed_sessions = [closed(number, "view:a", closed_at=number * day) for number in range(10)]
    summary = load_dataset([write_sessions(tmp_path / "s", closed_sessions)], TrainConfig()).report.summary()
    assert "8 sessions for training out of 10 that closed from 1970-01-01 to 1970-01-10, 1 items, sha256" in summary
