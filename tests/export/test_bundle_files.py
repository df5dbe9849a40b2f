import json

import onnx
import pytest

from clickscore.export.bundle_files import read_export_options, write_bundle
from clickscore.export.bundle_options import ExportOptions
from clickscore.export.errors import ExportError
from clickscore.export.random_bundle import random_weights, write_random_bundle
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import FORMAT_VERSION, Tensor, content_hash, decode_manifest
from clickscore.stream.scoring.bundle import check_bundle

CONFIG = ModelConfig(dim=16, ffn=16, max_length=10)


@pytest.fixture(scope="module")
def graph() -> bytes:
    return to_onnx(random_weights(CONFIG, 3), CONFIG)


def write(folder, graph, **about):
    arguments = {"framework": "test 1", "max_length": 10, "vocabulary": Vocabulary(["a", "b", "c"])}
    return write_bundle(folder, model=graph, **arguments | about)


def test_bundle_is_three_files(tmp_path, graph):
    write(tmp_path / "bundle", graph)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {"items.txt", "manifest.json", "model.onnx"}


def test_manifest_is_what_was_returned(tmp_path, graph):
    manifest = write(tmp_path, graph, metrics={"mrr@20": 0.1234567}, popular=("b", "a"), training_data="some")
    assert decode_manifest((tmp_path / "manifest.json").read_bytes()) == manifest


def test_manifest_says_what_the_graph_is(tmp_path, graph):
    manifest = write(tmp_path, graph)
    assert (manifest.format_version, manifest.items, manifest.candidates) == (FORMAT_VERSION, 3, 3)
    assert manifest.inputs[0] == Tensor("items", "int64", ("batch", "length"))
    assert manifest.outputs[0] == Tensor("rows", "int64", ("batch", 3))


def test_content_hash_is_that_of_the_files(tmp_path, graph):
    manifest = write(tmp_path, graph)
    assert manifest.content_hash == content_hash(
        (tmp_path / "model.onnx").read_bytes(), (tmp_path / "items.txt").read_bytes()
    )


def test_metrics_are_rounded(tmp_path, graph):
    assert write(tmp_path, graph, metrics={"mrr@20": 0.1234567}).metrics == {"mrr@20": 0.123457}


def test_manifest_is_meant_to_be_read(tmp_path, graph):
    write(tmp_path, graph)
    text = (tmp_path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def test_bundle_is_never_written_over_another(tmp_path, graph):
    write(tmp_path, graph)
    with pytest.raises(ExportError, match="not empty"):
        write(tmp_path, graph)


def test_bundle_whose_writing_broke_off_has_no_manifest_and_is_named(tmp_path, graph):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "bundle", graph, checkpoint=tmp_path / "absent")
    assert not (tmp_path / "bundle" / "manifest.json").exists()
    with pytest.raises(ExportError, match="has a part of a bundle, from an export that was interrupted"):
        write(tmp_path / "bundle", graph)


@pytest.mark.parametrize(("items", "top_k", "kept"), [(200, 100, 100), (200, 8, 8), (5, 64, 64), (80, 500, 80)])
def test_next_bundle_keeps_candidates_unless_all_items_were_candidates(tmp_path, items, top_k, kept):
    write_random_bundle(tmp_path / "bundle", items, CONFIG, candidates=top_k)
    assert read_export_options(tmp_path / "bundle") == ExportOptions(kept, "fp32", session_neighbours=False)


def test_next_bundle_keeps_precision_and_a_checkpoint_has_the_defaults(tmp_path):
    write_random_bundle(tmp_path / "bundle", 200, CONFIG, candidates=20, precision="int8")
    assert read_export_options(tmp_path / "bundle").precision == "int8"
    assert read_export_options(tmp_path) == ExportOptions()


def test_bundle_is_never_written_over_a_file(tmp_path, graph):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ExportError, match="not empty"):
        write(path, graph)


def test_random_bundle_is_one_that_workers_accept(tmp_path):
    write_random_bundle(tmp_path, 100, CONFIG)
    assert check_bundle(tmp_path) == []


def test_random_bundle_of_the_same_seed_has_the_same_bytes(tmp_path):
    versions = [
        write_random_bundle(tmp_path / str(number), 50, CONFIG, seed=seed).version
        for number, seed in enumerate((1, 1, 2))
    ]
    assert versions[0] == versions[1] != versions[2]


def test_random_bundle_knows_the_items_that_it_was_given(tmp_path):
    write_random_bundle(tmp_path, ["shoe", "hat"], CONFIG)
    assert (tmp_path / "items.txt").read_text() == "shoe\nhat\n"


def test_random_bundle_has_the_candidates_that_were_asked_for(tmp_path):
    assert write_random_bundle(tmp_path, 100, CONFIG, candidates=7).candidates == 7


@pytest.mark.slow
def test_random_bundle_of_a_large_catalogue_loads(tmp_path):
    write_random_bundle(tmp_path, 50_000)
    assert open_graph(tmp_path / "model.onnx").get_inputs()[0].name == "items"


def test_item_table_is_in_the_file_once(graph):
    table = 4 * 16 * 4  # rows * dim * bytes
    constants = onnx.load_model_from_string(graph).graph.initializer
    assert [tensor.name for tensor in constants if tensor.dims == [4, 16]] == ["table"]
    assert sum(len(tensor.raw_data) == table for tensor in constants) == 1
