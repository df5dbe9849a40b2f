"""External data: tensors in another file are found wherever a graph may hold them, and such a bundle is refused."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clickscore.schemas.manifest import content_hash
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.external_data import find_external_tensors
from tests.bundles import small_bundle
from tests.stream.scoring.test_bundle import restate


def external(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, dtype=np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location="weights.data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "graph", [], [], list(initializers))


def branch(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("If", ["condition"], ["chosen"], then_branch=graph(initializers=(tensor,)))


def test_all_places_of_tensors_are_searched():
    constants = helper.make_node("Constant", [], ["value"], value=external("attribute"))
    model = helper.make_model(graph(branch(external("branch")), constants, initializers=(external("initializer"),)))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external("sparse"))
    inside = helper.make_node("Constant", [], ["value"], value=external("function"))
    model.functions.append(helper.make_function("own", "F", [], ["value"], [inside], []))
    expected = {"attribute", "branch", "initializer", "sparse", "function"}
    assert set(find_external_tensors(model.SerializeToString())) == expected


def test_a_file_of_its_own_has_none():
    tensor = numpy_helper.from_array(np.ones(4, dtype=np.float32), "location")
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [2], [1.0, 2.0])
    doubles = helper.make_node("Node", [], ["out"], numbers=[1, 2], reals=[0.5, 1.5], real=0.5)
    model = helper.make_model(graph(doubles, initializers=(tensor, floats)))
    assert find_external_tensors(model.SerializeToString()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"location\xff\xff\xff",
        b"\x3a\x7flocation",
        b"\x3a\x0clocation\xff\xff\xff\xff",
        b"\x3b location",
        b"\xff" * 12 + b"location",
        b"\x09" + b"\0" * 8 + b"\x3a",
        b"\x0d" + b"\0" * 4 + b"\x38\x01\x3a\x08location",
    ],
)
def test_broken_bytes_have_none_and_end(content: bytes):
    assert find_external_tensors(content + b"location") == []


def test_nesting_has_no_limit():
    deep = graph(initializers=(external("deep"),)).SerializeToString()
    for _ in range(3_000):  # graph in attribute in node in graph
        for field in (6, 5, 1):
            deep = bytes([field << 3 | 2]) + varint(len(deep)) + deep
    assert find_external_tensors(bytes([7 << 3 | 2]) + varint(len(deep)) + deep) == ["deep"]


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


@pytest.mark.parametrize("beside", ["bundle", "working directory"])
def test_bundle_with_external_data_is_refused(tmp_path: Path, beside: str):
    folder = small_bundle(tmp_path / "bundle")
    model = onnx.load(folder / "model.onnx")
    place = folder if beside == "bundle" else tmp_path
    onnx.save_model(
        model, str(place / "graph.onnx"), save_as_external_data=True, location="weights.data", size_threshold=64
    )
    content = (place / "graph.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content)
    restate(folder, content_hash=content_hash(content, (folder / "items.txt").read_bytes()))
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        (problem,) = check_bundle(folder)
    finally:
        os.chdir(before)
    assert "in another file" in problem
    assert "`clickscore import-onnx` takes them into the bundle" in problem
