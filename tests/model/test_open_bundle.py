import msgspec
import pytest

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.errors import TrainingError
from clickscore.model.open_bundle import open_bundle
from clickscore.schemas.manifest import content_hash, decode_manifest, encode_manifest
from tests.model.builders import TINY

pytestmark = pytest.mark.train


@pytest.fixture
def bundle(tmp_path):
    write_random_bundle(tmp_path / "bundle", ["a", "b", "c"], TINY.model)
    return tmp_path / "bundle"


def test_parts_of_a_bundle_belong_together(bundle):
    manifest, vocabulary, graph = open_bundle(bundle)
    assert (manifest.items, vocabulary.items) == (3, ("a", "b", "c"))
    assert "items" in {node.name for node in graph.get_inputs()}


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "items.txt"])
def test_folder_without_a_file_of_a_bundle_is_none(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(TrainingError, match=f"is no bundle: it lacks {name}"):
        open_bundle(bundle)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100, b'{"format_version": "x"}'])
def test_manifest_that_cannot_be_read_is_named(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"manifest\.json cannot be read"):
        open_bundle(bundle)


def test_items_of_another_bundle_are_refused(bundle):
    (bundle / "items.txt").write_text("c\nb\na\n")
    with pytest.raises(TrainingError, match="is damaged: the content hash of its files"):
        open_bundle(bundle)


@pytest.mark.parametrize(("model", "items"), [(b"no graph", b"a\nb\nc\n"), (None, b"\xff\n")])
def test_broken_file_with_a_right_hash_is_refused(bundle, model, items):
    model = (bundle / "model.onnx").read_bytes() if model is None else model
    (bundle / "model.onnx").write_bytes(model)
    (bundle / "items.txt").write_bytes(items)
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    forged = msgspec.structs.replace(manifest, content_hash=content_hash(model, items))
    (bundle / "manifest.json").write_bytes(encode_manifest(forged))
    with pytest.raises(TrainingError, match=r"cannot be opened: .+\. `clickscore bundle check`"):
        open_bundle(bundle)
