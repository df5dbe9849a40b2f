import numpy as np
import pytest

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from clickscore.model.errors import TrainingError
from clickscore.model.text_encoder import MAX_TOKENS, open_text_encoder
from tests.model.encoders import write_encoder, write_graph

pytestmark = pytest.mark.train

TEXTS = ["oak mug, tea, birch", "a", "a much longer title than the others, of a kettle", "oak mug, tea, birch", "z"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / "weights")


@pytest.fixture(scope="module")
def graph(weights, tmp_path_factory):
    return write_graph(tmp_path_factory.mktemp("encoders") / "graph", weights)


def encode(folder, texts=TEXTS):
    batch_sizes = []
    vectors = open_text_encoder(folder).vectors(texts, batch_sizes.append)
    assert sum(batch_sizes) == len(texts)
    return vectors


def test_vectors_have_length_one_and_the_order_of_the_texts(weights):
    vectors = encode(weights)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-6)
    assert abs(vectors[0] - vectors[1]).max() > 0.01


def test_graph_and_weights_give_the_same_vectors(weights, graph):
    assert encode(graph) == pytest.approx(encode(weights), abs=1e-5)


@pytest.mark.parametrize("kind", ["weights", "graph"])
def test_vector_does_not_depend_on_longer_texts_beside_it(kind, request):
    folder = request.getfixturevalue(kind)
    assert encode(folder, TEXTS[1:2])[0] == pytest.approx(encode(folder)[1], abs=1e-5)


def test_long_text_is_cut(graph):
    long = ["x " * MAX_TOKENS, "x " * 3 * MAX_TOKENS]
    vectors = encode(graph, long)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)


def test_other_weights_have_another_fingerprint(weights, graph, tmp_path):
    second_encoder = write_encoder(tmp_path / "other", seed=1)
    fingerprints = {open_text_encoder(folder).fingerprint for folder in (weights, graph, second_encoder)}
    assert len(fingerprints) == 3
    assert open_text_encoder(weights).fingerprint == open_text_encoder(weights).fingerprint


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors", "config.json"])
def test_folder_without_a_whole_model_is_refused(tmp_path, missing):
    folder = write_encoder(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(TrainingError, match="has no language model"):
        open_text_encoder(folder)


@pytest.mark.parametrize("broken", ["tokenizer.json", "model.safetensors", "config.json"])
def test_broken_file_is_refused_in_a_line(tmp_path, broken):
    folder = write_encoder(tmp_path / "model")
    (folder / broken).write_bytes(b"{}")
    with pytest.raises(TrainingError, match="cannot be read"):
        open_text_encoder(folder)


def test_graph_of_something_else_is_refused(weights, tmp_path):
    write_random_bundle(tmp_path, 100, ModelConfig(dim=16, ffn=16))
    (tmp_path / "tokenizer.json").write_bytes((weights / "tokenizer.json").read_bytes())
    with pytest.raises(TrainingError, match="is not a text encoder"):
        open_text_encoder(tmp_path)
