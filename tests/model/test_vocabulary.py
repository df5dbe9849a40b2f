import numpy as np

from clickscore.model.vocabulary import Vocabulary, count_items, fits_on_line, read_vocabulary


def test_rows_begin_at_1():
    assert Vocabulary(["a", "b"]).row("a") == 1


def test_unknown_item_has_row_0():
    assert Vocabulary(["a"]).row("x") == 0


def test_row_leads_back_to_its_item():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.item(vocabulary.row("b")) == "b"


def test_rows_of_many_are_those_of_each():
    assert Vocabulary(["a", "b"]).rows(["b", "x", "a"]).tolist() == [2, 0, 1]


def test_most_seen_item_comes_first_and_equal_ones_by_id():
    assert count_items(["c", "b", "a"], np.array([0, 0, 1, 2]), min_count=1).items == ("c", "a", "b")


def test_item_that_was_seen_too_seldom_is_unknown():
    assert count_items(["a", "b"], np.array([0, 0, 1]), min_count=2).items == ("a",)


def test_id_that_does_not_fit_on_a_line_is_unknown():
    assert count_items(["a\nb", "a\u2028b", "ok"], np.array([0, 1, 2]), min_count=1).items == ("ok",)


def test_empty_id_is_no_line():
    assert not fits_on_line("")


def test_vocabulary_reads_what_it_wrote(tmp_path):
    path = tmp_path / "items.txt"
    path.write_bytes(Vocabulary(["é", " spaced ", "b"]).to_bytes())
    assert read_vocabulary(path).items == ("é", " spaced ", "b")


def test_line_n_from_0_is_the_item_of_row_n_plus_1():
    assert Vocabulary(["a", "b"]).to_bytes() == b"a\nb\n"
