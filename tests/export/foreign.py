"""Foreign graphs: small next-item graphs of every shape that exporters leave, written node by node.

In each graph item n + 1 follows item n, and item 1 follows the last item.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT


@dataclass(frozen=True)
class ForeignGraph:
    """Properties of a graph; the defaults keep the contract, with `item_scores` in place of candidates."""

    items: int = 20
    table_rows: int = 0
    """Rows of the embedding, 0 for one more than items."""
    extra_columns: int = 0
    """Columns of `item_scores` in front of the first item."""
    input_format: int = INT64
    score_format: int = FLOAT
    head_format: int = FLOAT
    declared_input: tuple[str | int, str | int] = ("batch", "length")
    declares_outputs: bool = True
    purchase_axes: int = 1
    """Axes of `purchase`; 0 for a graph without this output."""
    action_columns: int = 5
    """Columns of `action_probabilities`; 0 for a graph without this output."""
    score_axes: int = 2
    """Axes of `item_scores`: 3 puts an axis of size 1 between."""
    scores_each_event: bool = False
    """Whether `item_scores` holds a row for each event: (batch, length, items)."""
    positions: int = 0
    """Rows of a position table; 0 for a graph without one."""
    fixed_length: int = 0
    """Only length that the graph can add up; 0 for any."""
    fixed_batch: bool = False
    """Whether a Reshape inside the graph assumes one session."""
    action_codes: int = 0
    """Rows of an action table; 0 for a graph that does not read `actions`."""
    lengths_axes: int = 1
    """Axes of the input `lengths`: 2 for a column."""
    returns_rows: bool = False
    """Whether the graph returns `rows` and `scores` of three candidates in place of `item_scores`."""
    row_offset: int = 1
    """Row of column 0, for `returns_rows`."""
    ascending: bool = False
    """Whether the candidates of `returns_rows` come worst first."""
    reads_padding: bool = False
    score_factor: float = 1.0
    purchase_offset: float = 0.0
    opset: int = 17
    reads_text: bool = False
    inner_name: str = "query"
    """Name of a tensor inside the graph, which may collide with a name of the contract."""


def build(graph: ForeignGraph) -> onnx.ModelProto:  # noqa: C901, PLR0912 (a list of nodes, each for one property)
    """Return the graph as a model."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), f"constant_{len(constants)}"))
        return constants[-1].name

    def add(operator: str, *inputs: str, name: str = "", **attributes: int | list[int]) -> str:
        name = name or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    dim = graph.items
    table = np.zeros((graph.table_rows or dim + 1, dim), dtype=np.float32)
    for row in range(1, len(table)):
        table[row, row % dim] = 1  # column c is row c + 1, so the next item of row n is column n
    table += np.linspace(0.3, 0, dim, dtype=np.float32)  # no ties
    table = np.where(table == 1, table * np.float32(graph.score_factor), table)
    columns = np.pad(np.eye(dim, dtype=np.float32), ((0, 0), (graph.extra_columns, 0)), constant_values=0.05)

    items = add("Cast", "items", to=INT64)
    lengths = add("Cast", "lengths", to=INT64)
    lengths = lengths if graph.lengths_axes == 2 else add("Unsqueeze", lengths, constant(np.array([1])))
    width = add("Gather", add("Shape", items), constant(np.array(1)))
    positions = add("Range", constant(np.array(0)), width, constant(np.array(1)))
    is_last = add("Equal", positions, add("Sub", lengths, constant(np.array(1))))
    last = add("ReduceSum", add("Mul", items, add("Cast", is_last, to=INT64)), constant(np.array([1])), keepdims=0)
    vector = add("Gather", constant(table), last, name=graph.inner_name)  # (batch, dim)
    zeros: list[str] = []  # (batch, 1) each: parts that read another table and add nothing
    if graph.positions:
        table_part = add("Gather", constant(np.zeros(graph.positions, dtype=np.float32)), positions)
        zeros.append(add("ReduceSum", table_part, keepdims=1))
    if graph.fixed_length:
        grown = add("Concat", items, items, axis=1)  # twice the length, so that length 1 does not broadcast
        fixed = add("Mul", grown, constant(np.zeros((1, 2 * graph.fixed_length), dtype=np.int64)))
        zeros.append(add("Cast", add("ReduceSum", fixed, constant(np.array([1])), keepdims=1), to=FLOAT))
    if graph.action_codes:
        actions = add("Gather", constant(np.zeros(graph.action_codes, dtype=np.float32)), "actions")
        zeros.append(add("ReduceSum", actions, constant(np.array([1])), keepdims=1))
    if graph.reads_padding:
        zeros.append(add("Unsqueeze", add("Cast", width, to=FLOAT), constant(np.array([0]))))
    for zero in zeros:
        vector = add("Add", vector, zero)
    if graph.fixed_batch:
        vector = add("Reshape", vector, constant(np.array([1, dim])))
    scores = add("MatMul", vector, constant(columns))
    if graph.scores_each_event:
        ones = add(
            "Cast",
            add("Unsqueeze", add("GreaterOrEqual", items, constant(np.array(0))), constant(np.array([2]))),
            to=FLOAT,
        )
        scores = add("Mul", add("Unsqueeze", scores, constant(np.array([1]))), ones)
    elif graph.score_axes == 3:
        scores = add("Unsqueeze", scores, constant(np.array([1])))
    shapes: dict[str, tuple[int, list[str | int]]] = {}
    if graph.returns_rows:
        nodes.append(
            helper.make_node("TopK", [scores, constant(np.array([3]))], ["best", "column"], largest=not graph.ascending)
        )
        add("Cast", "best", name="scores", to=graph.score_format)
        add("Add", "column", constant(np.array(graph.row_offset)), name="rows")
        shapes |= {"rows": (INT64, ["batch", 3]), "scores": (graph.score_format, ["batch", 3])}
    else:
        add("Cast", scores, name="item_scores", to=graph.score_format)
        wide = [dim + graph.extra_columns]
        middle = ["length"] if graph.scores_each_event else [1] * (graph.score_axes - 2)
        shapes["item_scores"] = (graph.score_format, ["batch", *middle, *wide])
    share = add("ReduceMean", add("Sigmoid", vector), axes=[1], keepdims=1)  # (batch, 1)
    if graph.action_columns:
        spread = np.linspace(-1, 1, graph.action_columns, dtype=np.float32)[None]
        softmax = add("Softmax", add("MatMul", share, constant(spread)), axis=1)
        add("Cast", softmax, name="action_probabilities", to=graph.head_format)
        shapes["action_probabilities"] = (graph.head_format, ["batch", graph.action_columns])
    if graph.purchase_axes:
        moved = add("Add", share, constant(np.float32(graph.purchase_offset)))
        shaped = moved if graph.purchase_axes == 2 else add("Squeeze", moved, constant(np.array([1])))
        add("Cast", shaped, name="purchase", to=graph.head_format)
        shapes["purchase"] = (graph.head_format, ["batch", 1][: graph.purchase_axes])

    kind = TensorProto.STRING if graph.reads_text else graph.input_format
    inputs = [
        helper.make_tensor_value_info("items", kind, graph.declared_input),
        helper.make_tensor_value_info("lengths", kind, [graph.declared_input[0], 1][: graph.lengths_axes]),
    ]
    if graph.action_codes:
        inputs.append(helper.make_tensor_value_info("actions", INT64, graph.declared_input))
    outputs = [
        helper.make_tensor_value_info(name, kind, shape if graph.declares_outputs else None)
        for name, (kind, shape) in shapes.items()
    ]
    opsets = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(
        helper.make_graph(nodes, "foreign", inputs, outputs, constants), opset_imports=opsets, ir_version=8
    )


def write(graph: ForeignGraph, path: Path, *, external: bool = False) -> Path:
    """Write a graph as an ONNX file, with its tensors in a second file where `external` is set, and return the path."""
    onnx.save_model(build(graph), str(path), save_as_external_data=external, location="weights.data", size_threshold=0)
    return path
