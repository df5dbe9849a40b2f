"""Foreign graphs: the import refuses a graph in one sentence, or a worker serves the bundle."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto

from clickscore.export.commands import import_onnx
from clickscore.export.errors import ExportError
from clickscore.export.import_onnx import import_bundle
from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.request import Request
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.scorer import Scorer
from tests.events import view
from tests.export.foreign import ForeignGraph, write

pytestmark = pytest.mark.train

MAX_LENGTH = 12
ITEMS = [f"item-{number}" for number in range(1, ForeignGraph.items + 1)]

GOOD = {
    "plain": ForeignGraph(),
    "int32 inputs": ForeignGraph(input_format=TensorProto.INT32),
    "float inputs": ForeignGraph(input_format=TensorProto.FLOAT),
    "double inputs": ForeignGraph(input_format=TensorProto.DOUBLE),
    "int8 inputs": ForeignGraph(input_format=TensorProto.INT8),
    "float16 scores": ForeignGraph(score_format=TensorProto.FLOAT16),
    "double scores": ForeignGraph(score_format=TensorProto.DOUBLE),
    "float16 heads": ForeignGraph(head_format=TensorProto.FLOAT16),
    "double heads": ForeignGraph(head_format=TensorProto.DOUBLE),
    "purchase as a column": ForeignGraph(purchase_axes=2),
    "lengths as a column": ForeignGraph(lengths_axes=2),
    "scores with a middle axis": ForeignGraph(score_axes=3),
    "no purchase": ForeignGraph(purchase_axes=0),
    "no actions": ForeignGraph(action_columns=0),
    "next item only": ForeignGraph(purchase_axes=0, action_columns=0),
    "axes declared fixed": ForeignGraph(declared_input=(1, 50)),
    "outputs without shapes": ForeignGraph(declares_outputs=False),
    "one item": ForeignGraph(items=1),
    "position table": ForeignGraph(positions=MAX_LENGTH),
    "actions": ForeignGraph(action_codes=8),
    "rows": ForeignGraph(returns_rows=True),
    "a name of the contract inside": ForeignGraph(inner_name="scores"),
    "operator set 13": ForeignGraph(opset=13),
}
REFUSED = {
    "padding column": (ForeignGraph(extra_columns=1), "scores 21 items, and the list names 20.*--padding-column"),
    "two more columns": (ForeignGraph(extra_columns=2), "scores 22 items, and the list names 20"),
    "short embedding": (ForeignGraph(table_rows=20), "cannot read row 20, the last item of the list"),
    "short position table": (ForeignGraph(positions=5), "cannot read a session of 12 events"),
    "few actions": (ForeignGraph(action_codes=3), "with action codes up to 7"),
    "fixed length": (ForeignGraph(fixed_length=50, declared_input=("b", 50)), r"items is \('b', 50\).*dynamic axes"),
    "fixed length, undeclared": (ForeignGraph(fixed_length=50), "export it with dynamic axes"),
    "fixed batch": (ForeignGraph(fixed_batch=True, declared_input=(1, "t")), "dynamic axes"),
    "each event": (ForeignGraph(scores_each_event=True), "return it for the last event"),
    "six actions": (ForeignGraph(action_columns=6), "6 columns, not one for each of view, cart"),
    "reads padding": (ForeignGraph(reads_padding=True), "not batch-invariant"),
    "not finite": (ForeignGraph(score_factor=np.inf), "scores is not finite"),
    "purchase above 1": (ForeignGraph(purchase_offset=1.0), "purchase is no probability"),
    "rows from 0": (ForeignGraph(returns_rows=True, row_offset=0), "rows run from 0 to"),
    "rows beyond the list": (ForeignGraph(returns_rows=True, row_offset=2), "rows run from . to 21, not from 1 to 20"),
    "worst first": (ForeignGraph(returns_rows=True, ascending=True), "not in order, the best first"),
    "text": (ForeignGraph(reads_text=True), "reads items as string: export it with int64"),
    "int8 for many items": (ForeignGraph(items=200, input_format=TensorProto.INT8), "int8, which cannot hold 200"),
    "old operator set": (ForeignGraph(opset=12), "operator set 12: export it with operator set 13"),
}


def adopt(graph: ForeignGraph, folder: Path, *, external: bool = False, padding_column: bool = False) -> Path:
    """Import a graph with its list of items, and return the folder of the bundle."""
    (folder / "items.txt").write_text("".join(f"item-{number}\n" for number in range(1, graph.items + 1)))
    import_bundle(
        write(graph, folder / "model.onnx", external=external),
        folder / "items.txt",
        folder / "bundle",
        names={},
        candidates=5,
        max_length=MAX_LENGTH,
        framework="made",
        padding_column=padding_column,
    )
    return folder / "bundle"


def request(*items: str, action: int = 1) -> Request:
    actions = bytes([action] * len(items))
    return Request("e-0-0", view("ann", 0), "s", len(items), list(items), actions, frozenset(), MODEL, False, [])


def assert_served(folder: Path, graph: ForeignGraph) -> None:
    """Score every item, an unknown item, no item and the longest session, as a worker does."""
    assert check_bundle(folder) == []
    scorer = Scorer(load_bundle(folder))
    names = [f"item-{number}" for number in range(1, graph.items + 1)]
    for name, scores in zip(names, scorer.score([request(name) for name in names]), strict=True):
        assert scores is not None
        following = names[(names.index(name) + 1) % len(names)]
        assert next(scores.candidates())[0] == following
        assert (scores.purchase is None) == (graph.purchase_axes == 0)
        assert (scores.actions is None) == (graph.action_columns == 0)
    assert scorer.score([request("nobody"), request()]) == [None, None]
    for action in range(1, 8):
        (longest,) = scorer.score([request(*(names * (MAX_LENGTH + 10)), action=action)])
        assert longest is not None
        assert next(longest.candidates())[0] == names[0]


@pytest.mark.parametrize("graph", GOOD.values(), ids=GOOD)
def test_imported_graph_is_served(tmp_path: Path, graph: ForeignGraph) -> None:
    assert_served(adopt(graph, tmp_path), graph)


@pytest.mark.parametrize(("graph", "reason"), REFUSED.values(), ids=REFUSED)
def test_graph_that_no_worker_can_serve_is_refused(tmp_path: Path, graph: ForeignGraph, reason: str) -> None:
    with pytest.raises(ExportError, match=reason) as refusal:
        adopt(graph, tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "bundle").exists()


def test_padding_column_is_dropped_on_request(tmp_path: Path) -> None:
    graph = ForeignGraph(extra_columns=1)
    assert_served(adopt(graph, tmp_path, padding_column=True), graph)


def test_weights_of_a_second_file_are_taken_into_the_bundle(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph = ForeignGraph()
    bundle = adopt(graph, tmp_path, external=True)
    (tmp_path / "weights.data").unlink()
    previous_folder = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        assert_served(bundle, graph)
    finally:
        os.chdir(previous_folder)


def test_missing_second_file_is_named(tmp_path: Path) -> None:
    write(ForeignGraph(), tmp_path / "model.onnx", external=True)
    (tmp_path / "weights.data").unlink()
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in ITEMS))
    arguments = [
        str(tmp_path / "model.onnx"),
        "--items",
        str(tmp_path / "items.txt"),
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(import_onnx, arguments)
    assert isinstance(result.exception, ClickscoreError)
    assert "keeps data in another file that cannot be read" in str(result.exception)
    assert "weights.data" in str(result.exception)


def test_byte_order_mark_is_no_part_of_the_first_item(tmp_path: Path) -> None:
    write(ForeignGraph(), tmp_path / "model.onnx")
    (tmp_path / "items.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(ITEMS).encode())
    arguments = [
        str(tmp_path / "model.onnx"),
        "--items",
        str(tmp_path / "items.txt"),
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(import_onnx, arguments)
    assert result.exit_code == 0, result.output
    assert load_bundle(tmp_path / "bundle").items == tuple(ITEMS)


def test_list_in_another_encoding_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(ForeignGraph(), tmp_path / "model.onnx")
    (tmp_path / "items.txt").write_bytes("\n".join(ITEMS).encode("utf-16"))
    arguments = [
        str(tmp_path / "model.onnx"),
        "--items",
        str(tmp_path / "items.txt"),
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(import_onnx, arguments)
    assert "save the list as UTF-8" in str(result.exception)


def test_command_names_absent_heads_and_unused_outputs(tmp_path: Path) -> None:
    proto = onnx.load(write(ForeignGraph(action_columns=0), tmp_path / "model.onnx"))
    for node in proto.graph.node:
        node.output[:] = ["buys" if name == "purchase" else name for name in node.output]
    next(value for value in proto.graph.output if value.name == "purchase").name = "buys"
    onnx.save(proto, tmp_path / "model.onnx")
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in ITEMS))
    arguments = [
        str(tmp_path / "model.onnx"),
        "--items",
        str(tmp_path / "items.txt"),
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(import_onnx, arguments)
    assert result.exit_code == 0, result.output
    assert "no action_probabilities and no purchase, so decisions state null there" in result.output
    assert "also returns buys, which --name can map" in result.output
