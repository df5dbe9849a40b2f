"""Bundle: a bundle that contradicts its manifest is refused, with the reason."""

from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.manifest import Fidelity, Manifest, content_hash, decode_manifest, encode_manifest
from clickscore.stream.errors import BundleError
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from tests.bundles import small_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def restate(folder: Path, **changed: object) -> None:
    """Change fields of the manifest."""
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    restated: Manifest = msgspec.structs.replace(manifest, **changed)
    (folder / "manifest.json").write_bytes(encode_manifest(restated))


def test_good_bundle_has_no_problems(folder: Path):
    assert check_bundle(folder) == []


def test_missing_folder_is_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(BundleError, match=r"it lacks .*model\.onnx, items\.txt.*--bundle"):
        load_bundle(tmp_path / "nowhere")


def test_changed_model_is_refused(folder: Path):
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    assert "content hash" in check_bundle(folder)[0]


def test_other_format_version_is_refused(folder: Path):
    restate(folder, format_version=2)
    assert check_bundle(folder) == ["the format version is 2, this worker serves 1"]


def test_graph_that_loses_more_than_is_allowed_is_refused(folder: Path):
    restate(folder, precision="int8", fidelity=Fidelity(beginnings=1_000, overlap=0.95, hr=-0.01, mrr=0.0))
    assert load_bundle(folder, min_overlap=0.95).manifest.precision == "int8"
    with pytest.raises(
        BundleError, match=r"recall@20 of the int8 graph is 95\.00%, below min_overlap, which is 99\.00%"
    ):
        load_bundle(folder, min_overlap=0.99)


def test_graph_that_does_not_say_what_it_loses_is_refused(folder: Path):
    restate(folder, precision="int8")
    assert check_bundle(folder) == ["the precision is int8, but the manifest states no fidelity"]
    with pytest.raises(BundleError, match="the manifest states no fidelity"):
        load_bundle(folder)


def test_wrong_number_of_items_is_refused(folder: Path):
    items = b"only-one\n"
    (folder / "items.txt").write_bytes(items)
    restate(folder, content_hash=content_hash((folder / "model.onnx").read_bytes(), items))
    assert check_bundle(folder) == ["items.txt has 1 lines, the manifest says 300"]


def test_items_that_are_not_utf_8_are_refused(folder: Path):
    items = b"\xff\n" * 300
    (folder / "items.txt").write_bytes(items)
    restate(folder, content_hash=content_hash((folder / "model.onnx").read_bytes(), items))
    assert "items.txt is not UTF-8" in check_bundle(folder)[0]


def test_broken_manifest_is_refused(folder: Path):
    (folder / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in check_bundle(folder)[0]


def test_graph_that_is_none_is_refused(folder: Path):
    (folder / "model.onnx").write_bytes(b"no graph")
    restate(folder, content_hash=content_hash(b"no graph", (folder / "items.txt").read_bytes()))
    assert "ONNX Runtime refuses model.onnx" in check_bundle(folder)[0]


def test_manifest_that_names_other_tensors_is_refused(folder: Path):
    restate(folder, outputs=())
    assert check_bundle(folder) == ["the graph's inputs and outputs are not the inputs and outputs of the manifest"]


def test_graph_of_another_shape_is_refused(folder: Path):
    import onnx  # noqa: PLC0415 (of the train extra)

    model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
    for node in model.graph.node:
        node.output[:] = ["probability" if name == "purchase" else name for name in node.output]
    purchase = next(output for output in model.graph.output if output.name == "purchase")
    model.graph.node.append(onnx.helper.make_node("Cast", ["probability"], ["purchase"], to=onnx.TensorProto.DOUBLE))
    purchase.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    changed = model.SerializeToString()
    (folder / "model.onnx").write_bytes(changed)
    restate(folder, content_hash=content_hash(changed, (folder / "items.txt").read_bytes()))
    assert check_bundle(folder) == ["'purchase' is tensor(double) of 1 axes, not float32 of 1 axes"]


def test_reasons_without_a_number_to_ask_for_are_refused(folder: Path):
    import onnx  # noqa: PLC0415 (as above)

    model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
    (explained,) = (value for value in model.graph.input if value.name == "explained")
    model.graph.input.remove(explained)
    changed = model.SerializeToString()
    (folder / "model.onnx").write_bytes(changed)
    inputs = decode_manifest((folder / "manifest.json").read_bytes()).inputs
    restate(
        folder,
        content_hash=content_hash(changed, (folder / "items.txt").read_bytes()),
        inputs=tuple(tensor for tensor in inputs if tensor.name != "explained"),
    )
    assert check_bundle(folder) == ["the graph has only one of 'explained' and 'reasons'; reasons need both"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"max_length": 2**62}, "max_length is 4611686018427387904, not from 1 to 4096"),
        ({"max_length": 0}, "max_length is 0, not from 1 to 4096"),
        ({"candidates": 2**62}, "candidates is 4611686018427387904, not from 1 to 300, the number of items"),
        ({"trained_until": 2**62}, "trained_until is 4611686018427387904, which is no time in ms up to the year 9999"),
        ({"absent_heads": ("rows",)}, "absent_heads names rows; it may name action_probabilities and purchase"),
    ],
)
def test_absurd_manifest_is_refused(folder: Path, changed: dict[str, object], problem: str):
    restate(folder, **changed)
    assert check_bundle(folder) == [problem]
    with pytest.raises(BundleError, match="cannot be served"):
        load_bundle(folder)


def test_wrong_number_of_candidates_is_found_by_a_run(folder: Path):
    restate(folder, candidates=63)
    (problem,) = check_bundle(folder)
    assert problem == "the graph cannot score a session of one event: rows has the shape (1, 64), not (1, 63)"
    with pytest.raises(BundleError, match="not \\(1, 63\\)"):
        load_bundle(folder)


@pytest.mark.parametrize("field", ["metrics", "unknown"])
def test_deep_manifest_is_refused_in_words(folder: Path, field: str):
    deep = f'{{"{field}":' + "[" * 100_000 + "]" * 100_000 + "}"
    (folder / "manifest.json").write_text(deep)
    (problem,) = check_bundle(folder)
    assert "manifest.json cannot be read" in problem


def test_byte_order_mark_in_the_item_list_is_refused(folder: Path):
    items = b"\xef\xbb\xbf" + (folder / "items.txt").read_bytes()
    (folder / "items.txt").write_bytes(items)
    restate(folder, content_hash=content_hash((folder / "model.onnx").read_bytes(), items))
    assert check_bundle(folder) == ["items.txt starts with a byte order mark: remove the mark"]


def test_list_longer_than_the_table_is_refused(folder: Path):
    items = b"".join(b"item-%d\n" % number for number in range(1, 1_001))
    (folder / "items.txt").write_bytes(items)
    restate(folder, items=1_000, content_hash=content_hash((folder / "model.onnx").read_bytes(), items))
    (problem,) = check_bundle(folder)
    assert "the graph cannot read row 1000, the last item of the list" in problem
