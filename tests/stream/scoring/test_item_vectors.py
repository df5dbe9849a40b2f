"""Item vectors: the table of a bundle's graph, and graphs that have none."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.item_vectors import read_directions, unit_vectors
from clickscore.stream.scoring.scorer import Scorer
from tests.bundles import small_bundle


def graph_of(*tensors: TensorProto) -> bytes:
    return helper.make_model(helper.make_graph([], "graph", [], [], list(tensors))).SerializeToString()


def table_of(rows: int, name: str = "table", dtype: type[np.floating] = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.arange(2 * rows, dtype=dtype).reshape(rows, 2), name)


def test_table_of_the_items_gives_their_directions():
    directions = read_directions(graph_of(table_of(9, "bias"), table_of(4)), 3)
    assert directions is not None
    assert directions.tolist() == [[0, 127], [85, 127], [102, 127], [109, 127]]


@pytest.mark.parametrize(
    "tensor",
    [
        table_of(4, "other"),
        table_of(5),
        table_of(4, dtype=np.float64),
        helper.make_tensor("table", 1, [4, 2], [0.0] * 8),
    ],
)
def test_graph_without_a_table_of_the_items_has_no_vectors(tensor: TensorProto):
    assert read_directions(graph_of(tensor), 3) is None


def test_file_without_a_graph_has_no_vectors():
    assert read_directions(b"\x08\x0a", 3) is None
    assert read_directions(b"\x38\x0a", 3) is None  # the field of the graph, but a number


def test_vectors_have_length_one_and_unknown_items_have_none():
    table = np.array([[9, 9], [3, 4], [0, 0]], dtype=np.int8)
    assert unit_vectors(table, [1, 0, 2]).tolist() == [[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]


def test_scorer_knows_the_vectors_of_its_bundle(tmp_path: Path):
    bundle = load_bundle(small_bundle(tmp_path))
    vectors = Scorer(bundle).item_vectors([bundle.items[0], "unknown"])
    assert np.linalg.norm(vectors, axis=1).round(6).tolist() == [1.0, 0.0]
    assert not Scorer(bundle._replace(directions=None)).item_vectors(["unknown"]).any()


def test_shape_may_be_packed():
    shape = b"\x0a\x03\x04\xac\x02"  # field 1, 3 bytes: 4 and 300 as packed numbers
    tensor = shape + b"\x10\x01" + b"\x42\x05table" + b"\x4a\xc0\x25" + np.ones(1200, dtype="<f4").tobytes()
    graph = b"\x2a" + _length(tensor) + tensor
    directions = read_directions(b"\x3a" + _length(graph) + graph, 3)
    assert directions is not None
    assert directions.shape == (4, 300)


def _length(message: bytes) -> bytes:
    """Return the length of a message as a number of protobuf."""
    return bytes((len(message) & 0x7F | 0x80, len(message) >> 7))
