import numpy as np
import pytest

from clickscore.model.checkpoint import load_texts, save_texts
from clickscore.model.text_vectors import encode_texts

pytestmark = pytest.mark.train


class Letters:
    """An encoder that counts letters, and remembers what it was asked."""

    def __init__(self, fingerprint="letters"):
        self.fingerprint = fingerprint
        self.read = []

    def vectors(self, texts, tell):
        self.read += texts
        tell(len(texts))
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)


def silent(done, total):
    pass


def test_each_text_is_read_once_and_answers_keep_their_order():
    encoder = Letters()
    vectors, _ = encode_texts(["b", "aab", "b", "c"], encoder, None, silent)
    assert vectors.tolist() == [[0, 1, 0], [2, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert sorted(encoder.read) == ["aab", "b", "c"]


def test_what_is_remembered_is_not_read_again(tmp_path):
    _, before = encode_texts(["a", "b"], Letters(), None, silent)
    save_texts(tmp_path, before)
    encoder, told = Letters(), []
    vectors, after = encode_texts(["c", "b", "a", "c"], encoder, load_texts(tmp_path), lambda *of: told.append(of))
    assert encoder.read == ["c"]
    assert vectors.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert (told[0], told[-1]) == ((0, 1), (1, 1))
    nothing = Letters()
    encode_texts(["c", "a"], nothing, after, silent)
    assert nothing.read == []


def test_another_language_model_reads_all_anew():
    _, before = encode_texts(["a", "b"], Letters(), None, silent)
    encoder = Letters("another")
    encode_texts(["a", "b"], encoder, before, silent)
    assert sorted(encoder.read) == ["a", "b"]


def test_folder_without_texts_remembers_nothing(tmp_path):
    assert load_texts(tmp_path) is None
