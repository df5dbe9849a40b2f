"""Import ONNX: models of Keras and of Hugging Face, trained where item n + 1 follows item n; and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from clickscore.export.commands import import_onnx as command
from clickscore.export.errors import ExportError
from clickscore.export.import_onnx import conform_graph, import_bundle, read_graph
from clickscore.model.onnx_runtime import open_graph
from clickscore.schemas.manifest import decode_manifest
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.request import Request
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.scorer import Scorer
from tests.events import view
from tests.export.foreign import ForeignGraph, build
from tests.export.other_frameworks import ITEMS, LENGTH, Foreign, keras_graph, tensorflow_graph, transformers_graph

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]  # other frameworks' exporters warn a lot


@pytest.fixture(scope="module", params=[keras_graph, transformers_graph, tensorflow_graph])
def foreign(request: pytest.FixtureRequest) -> Foreign:
    make: Callable[[], Foreign] = request.param
    return make()


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("foreign") / "items.txt"
    file.write_text("".join(f"{item}\n" for item in ITEMS))
    return file


@pytest.fixture
def bundle(foreign: Foreign, listed: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(foreign.model)
    name_options = [word for theirs, ours in foreign.names.items() for word in ("--name", f"{ours}={theirs}")]
    options = ["--framework", foreign.framework, "--max-length", str(LENGTH), "--top-k", "10"]
    paths = [str(tmp_path / "model.onnx"), "--items", str(listed), "--out", str(tmp_path / "bundle")]
    result = CliRunner().invoke(command, [*paths, *name_options, *options])
    assert result.exit_code == 0, result.output
    return tmp_path / "bundle"


def request_of(*items: str) -> Request:
    return Request(
        "e-0-0", view("ann", 0), "s", len(items), list(items), b"\1" * len(items), frozenset(), MODEL, False, []
    )


def test_bundle_keeps_the_contract(bundle: Path, foreign: Foreign) -> None:
    assert check_bundle(bundle) == []
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    assert (manifest.framework, manifest.items, manifest.candidates) == (foreign.framework, len(ITEMS), 10)


def test_what_it_learned_is_what_a_worker_scores(bundle: Path) -> None:
    scorer = Scorer(load_bundle(bundle))
    for position in range(5, 35):
        (session_scores,) = scorer.score([request_of(*ITEMS[position - 3 : position])])
        assert session_scores is not None
        assert next(session_scores.candidates())[0] == ITEMS[position]
        assert len(session_scores.actions) == 5
        assert 0 <= session_scores.purchase <= 1


# What is refused


def graph_of(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("item_scores", "action_probabilities", "purchase")):
    """Return a graph of items (batch, length) float scores over three items; each node says what it makes."""
    axes = {"purchase": ("b",)}
    inputs = [helper.make_tensor_value_info("items", TensorProto.INT64, ("b", "t"))]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes.get(name, ("b", "c"))) for name in outputs]
    graph = helper.make_graph(list(nodes), "made", inputs, made, [constant("axis", np.array([1]))])
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def heads(reduce: str) -> list[onnx.NodeProto]:
    """Return nodes whose answers are made of one number a session: the reduced item rows."""
    table = numpy_helper.from_array(np.array([[0.1, 0.3, 0.2]], dtype=np.float32))
    five = numpy_helper.from_array(np.array([[0.1, 0.3, 0.2, 0.5, 0.4]], dtype=np.float32))
    return [
        helper.make_node("Cast", ["items"], ["real"], to=TensorProto.FLOAT),
        helper.make_node(reduce, ["real", "axis"], ["one"], keepdims=1),
        helper.make_node("Constant", [], ["table"], value=table),
        helper.make_node("Constant", [], ["five"], value=five),
        helper.make_node("MatMul", ["one", "table"], ["item_scores"]),
        helper.make_node("MatMul", ["one", "five"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["action_probabilities"], axis=1),
        helper.make_node("Sigmoid", ["one"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["purchase"]),
    ]


def test_the_best_of_all_scores_are_the_candidates() -> None:
    session = open_graph(conform_graph(graph_of(*heads("ReduceSum")), {}, items=3, candidates=2, max_length=4).model)
    rows, scores = session.run(["rows", "scores"], {"items": np.array([[2, 0]])})
    assert rows.tolist() == [[2, 3]]
    np.testing.assert_allclose(scores, [[0.6, 0.4]], rtol=1e-6)


def test_a_graph_that_reads_padding_is_refused() -> None:
    with pytest.raises(ExportError, match="not batch-invariant"):  # a mean counts the padding
        conform_graph(graph_of(*heads("ReduceMean")), {}, items=3, candidates=2, max_length=4)


def test_a_missing_output_is_named() -> None:
    without = graph_of(*heads("ReduceSum"), outputs=("purchase", "action_probabilities"))
    with pytest.raises(ExportError, match="no output item_scores, nor rows with scores; it has action_prob"):
        conform_graph(without, {}, items=3, candidates=2, max_length=4)


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ExportError, match=r"the graph has no logits; it has .*item_scores"):
        conform_graph(graph_of(*heads("ReduceSum")), {"logits": "item_scores"}, items=3, candidates=2, max_length=4)


def test_too_few_items_are_noticed() -> None:
    with pytest.raises(ExportError, match=r"the graph scores 3 items, and the list names 2"):
        conform_graph(graph_of(*heads("ReduceSum")), {}, items=2, candidates=2, max_length=4)


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="no ONNX graph"):
        conform_graph(read_graph(tmp_path / "model.onnx"), {}, items=3, candidates=2, max_length=4)


@pytest.mark.parametrize("text", ["", "a\na\n", "a\n\nb\n"], ids=["none", "twice", "empty line"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.onnx").write_bytes(graph_of(*heads("ReduceSum")).SerializeToString())
    (tmp_path / "items.txt").write_text(text)
    with pytest.raises(ExportError, match="must name each item once"):
        import_bundle(
            tmp_path / "model.onnx",
            tmp_path / "items.txt",
            tmp_path / "bundle",
            names={},
            candidates=2,
            max_length=4,
            framework="made",
        )
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["rows", "=x", "rows="])
def test_a_name_takes_two(listed: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    paths = [str(tmp_path / "model.onnx"), "--items", str(listed), "--out", str(tmp_path / "bundle")]
    result = CliRunner().invoke(command, [*paths, "--name", name])
    assert result.exit_code == 2
    assert "OURS=THEIRS" in result.output


def test_graph_with_a_name_that_is_no_utf_8_is_refused_in_words(tmp_path: Path) -> None:
    content = build(ForeignGraph(inner_name="query")).SerializeToString().replace(b"query", b"que\xffy")
    (tmp_path / "model.onnx").write_bytes(content)
    (tmp_path / "items.txt").write_text("".join(f"item-{number}\n" for number in range(1, 21)))
    with pytest.raises(ExportError):
        import_bundle(
            tmp_path / "model.onnx",
            tmp_path / "items.txt",
            tmp_path / "bundle",
            names={},
            candidates=5,
            max_length=6,
            framework="made",
            padding_column=False,
        )
