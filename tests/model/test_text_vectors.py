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


def ignore_progress(done, total):
    pass


def test_each_text_is_encoded_once_and_vectors_keep_the_order():
    encoder = Letters()
    vectors, _ = encode_texts(["b", "aab", "b", "c"], encoder, None, ignore_progress)
    assert vectors.tolist() == [[0, 1, 0], [2, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert sorted(encoder.read) == ["aab", "b", "c"]


def test_cached_text_is_not_encoded_again(tmp_path):
    _, cache = encode_texts(["a", "b"], Letters(), None, ignore_progress)
    save_texts(tmp_path, cache)
    encoder, progress = Letters(), []
    vectors, new_cache = encode_texts(
        ["c", "b", "a", "c"], encoder, load_texts(tmp_path), lambda *counts: progress.append(counts)
    )
    assert encoder.read == ["c"]
    assert vectors.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert (progress[0], progress[-1]) == ((0, 1), (1, 1))
    idle = Letters()
    encode_texts(["c", "a"], idle, new_cache, ignore_progress)
    assert idle.read == []


def test_cache_of_another_language_model_is_ignored():
    _, cache = encode_texts(["a", "b"], Letters(), None, ignore_progress)
    encoder = Letters("another")
    encode_texts(["a", "b"], encoder, cache, ignore_progress)
    assert sorted(encoder.read) == ["a", "b"]


def test_folder_without_texts_has_no_cache(tmp_path):
    assert load_texts(tmp_path) is None
