"""Import ONNX: make a bundle of a graph that another framework exported, to the contract of `schemas.manifest`.

Exporters name tensors and axes as they like, use the number formats of their framework, and return the scores of the
whole catalogue instead of candidates. So the import puts adapters around the graph, in three steps:

1. Every name of the graph gets a prefix, so that no name collides with a name of the contract.
2. Nodes in front cast the inputs, and nodes behind reshape and cast the outputs, and take the top k of `item_scores`.
   A run of the graph tells the real shapes and formats; declarations may be wrong or missing.
3. A trial (`model.graph_trial`) runs what a worker may feed. The outputs must not depend on the other sessions of the
   batch, nor on the padding behind a session, because otherwise no decision could be repeated.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, compose, helper, numpy_helper

from clickscore.export.bundle_files import require_empty, write_bundle
from clickscore.export.errors import ExportError
from clickscore.model.graph_trial import Arrays, ServingLimits, find_problem, run_sessions, shorten
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import HEADS, INPUTS, MAX_LENGTH_LIMIT, NEXT_ACTIONS, OUTPUTS, Manifest

ITEM_SCORES = "item_scores"
"""Output that takes the place of `rows` and `scores`: (batch, items), column c for row c + 1."""
BATCH_TOLERANCE = 1e-4
"""Accepted difference of a session alone and in a batch: kernels add in an order that depends on the shape."""
PROBES = 16
"""Random sessions to run: a graph that reads its padding fails on nearly every one that is shorter than the longest."""
FOREIGN = "imported/"
"""Prefix of the names of the imported graph."""
MIN_OPSET, MIN_IR_VERSION = 13, 8
"""Operator set and file format of the adapters: ONNX 1.8 of 2020, and 1.10 with default values of inputs."""
MAX_BYTES = 2**31
"""Protobuf's limit for one ONNX file."""
INTEGER_LIMITS: Mapping[int, int] = {
    TensorProto.INT8: 2**7 - 1,
    TensorProto.UINT8: 2**8 - 1,
    TensorProto.INT16: 2**15 - 1,
    TensorProto.UINT16: 2**16 - 1,
    TensorProto.INT32: 2**31 - 1,
    TensorProto.UINT32: 2**32 - 1,
    TensorProto.INT64: 2**63 - 1,
    TensorProto.UINT64: 2**63 - 1,
    TensorProto.FLOAT16: 2**11,
    TensorProto.FLOAT: 2**24,
    TensorProto.DOUBLE: 2**53,
}
"""Largest number up to which each input format holds all whole numbers."""


class ConformedGraph(NamedTuple):
    """A graph with the inputs and outputs of the contract."""

    model: bytes
    """ONNX file."""
    absent_heads: tuple[str, ...]
    """Outputs absent in the imported graph; the file returns neutral values for these outputs."""
    unused: tuple[str, ...]
    """Outputs of the imported graph without a name in the contract."""


class ImportedBundle(NamedTuple):
    """A bundle written by the import, with the unused outputs of the graph."""

    manifest: Manifest
    unused: tuple[str, ...]


def import_bundle(
    model: Path,
    items: Path,
    out: Path,
    *,
    names: Mapping[str, str],
    candidates: int,
    max_length: int,
    framework: str,
    padding_column: bool = False,
) -> ImportedBundle:
    """Write the bundle of an exported graph.

    Args:
        model: Path of the ONNX file; data in other files must lie in the same folder.
        items: Path of the list of item ids, one per line.
        out: Path of the bundle; the folder must be absent or empty.
        names: Names of tensors in the graph, and their names in the contract, as in `conform_graph`.
        candidates: Number of candidates to take of `item_scores`.
        max_length: Largest number of events read by the graph.
        framework: Name and version of the framework, for example `keras 3.15`.
        padding_column: Whether column 0 of `item_scores` is the padding row, and is dropped.

    Raises:
        ExportError: The graph cannot be imported (see `conform_graph`), the list of items is not valid, or the folder
            is not empty.
    """
    require_empty(out)
    item_ids = read_item_ids(items)
    conformed = conform_graph(
        read_graph(model), names, len(item_ids), candidates, max_length, padding_column=padding_column
    )
    manifest = write_bundle(
        out,
        model=conformed.model,
        vocabulary=Vocabulary(item_ids),
        framework=framework,
        max_length=max_length,
        absent_heads=conformed.absent_heads,
    )
    return ImportedBundle(manifest, conformed.unused)


def read_item_ids(path: Path) -> list[str]:
    """Return the item ids of a list, one per line; a byte order mark at the start is no part of the first id.

    Raises:
        ExportError: The file is not UTF-8, or does not name each item once.
    """
    try:
        item_ids = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        message = f"{path} is not UTF-8 (byte {exc.start}): save the list as UTF-8"
        raise ExportError(message) from exc
    if not item_ids or "" in item_ids or len(set(item_ids)) != len(item_ids):
        message = f"{path} must name each item once, one per line, and at least one item"
        raise ExportError(message)
    return item_ids


def read_graph(path: Path) -> onnx.ModelProto:
    """Return the graph of an ONNX file, with the data of other files in the same folder taken in.

    Raises:
        ExportError: The file is no ONNX graph, or data are missing.
    """
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's exceptions share no base class
        message = f"{path} is no ONNX graph ({type(exc).__name__}): export the model to ONNX again"
        raise ExportError(message) from exc
    try:
        onnx.load_external_data_for_model(proto, str(path.resolve().parent))
    except Exception as exc:  # onnx passes on errors of files and of its own checks
        message = (
            f"{path} keeps data in another file that cannot be read: put that file into {path.resolve().parent}, under "
            f"its first name ({str(exc).strip().splitlines()[0]})"
        )
        raise ExportError(message) from exc
    return proto


def conform_graph(
    proto: onnx.ModelProto,
    names: Mapping[str, str],
    items: int,
    candidates: int,
    max_length: int,
    *,
    padding_column: bool = False,
) -> ConformedGraph:
    """Return the graph with the contract's inputs and outputs, and with candidates in place of all items' scores.

    Args:
        proto: The graph, without external data.
        names: Names of inputs and outputs in the graph, and the names in the contract; other tensors keep the names.
        items: Number of items of the bundle.
        candidates: Number of candidates to take of `item_scores`.
        max_length: Largest number of events read by the graph.
        padding_column: Whether column 0 of `item_scores` is the padding row, and is dropped.

    Raises:
        ExportError: The graph lacks a part of the contract, cannot score what a worker feeds, or depends on batch or
            padding.
    """
    if max_length > MAX_LENGTH_LIMIT:
        message = f"--max-length is {max_length}, and no worker reads more than {MAX_LENGTH_LIMIT} events"
        raise ExportError(message)
    adapter = _GraphAdapter(proto, names, items)
    values = adapter.measure_outputs(max_length)
    adapter.add_rankings(values, candidates, padding_column=padding_column)
    absent_heads = adapter.add_heads(values)
    model, candidate_count = adapter.serialize()
    session = _open(model)
    limits = ServingLimits(items, max_length, candidate_count)
    if problem := find_problem(session, limits, every_item=True):
        message = f"the graph does not keep the contract: {problem}"
        raise ExportError(message)
    _check_batch_invariance(session, items, max_length)
    return ConformedGraph(model, absent_heads, tuple(sorted(adapter.unused)))


class _GraphAdapter:
    """A foreign graph with added nodes for the inputs and outputs of the contract."""

    def __init__(self, proto: onnx.ModelProto, names: Mapping[str, str], items: int) -> None:
        """Take the graph in, and add the adapters of the inputs.

        Args:
            proto: The graph.
            names: Names in the graph, and their names in the contract.
            items: Number of items of the bundle.
        """
        _check_file(proto)
        constants = {tensor.name for tensor in proto.graph.initializer}
        inputs = {value.name: value for value in proto.graph.input if value.name not in constants}
        outputs = {value.name: value for value in proto.graph.output}
        self._graph_names = _map_names(names, [*inputs, *outputs])
        _check_tensors(self._graph_names, inputs, outputs)
        self._items = items
        self._input_shapes = {
            contract_name: _declared_shape(inputs[graph_name])
            for contract_name, graph_name in self._graph_names.items()
            if graph_name in inputs
        }
        self._formats = {
            contract_name: inputs[graph_name].type.tensor_type.elem_type
            for contract_name, graph_name in self._graph_names.items()
            if graph_name in inputs
        }
        self._output_names = {
            contract_name: FOREIGN + graph_name
            for contract_name, graph_name in self._graph_names.items()
            if graph_name in outputs and contract_name in (*OUTPUTS, ITEM_SCORES)
        }
        self.unused = set(outputs) - {name.removeprefix(FOREIGN) for name in self._output_names.values()}
        try:
            self._proto = compose.add_prefix(proto, FOREIGN)
        except Exception as exc:  # a name may be no UTF-8, for example; onnx does not check what it renames
            message = f"the tensors of this graph cannot be renamed ({shorten(exc)}): export the model to ONNX again"
            raise ExportError(message) from exc
        self._proto.ir_version = max(self._proto.ir_version, MIN_IR_VERSION)
        self._graph = self._proto.graph
        del self._graph.value_info[:]  # shapes that the exporter has seen; they need not hold for other sessions
        self._declared: list[onnx.ValueInfoProto] = []
        self._adapt_inputs()

    def measure_outputs(self, max_length: int) -> Arrays:
        """Return the outputs of the contract for two sessions.

        Raises:
            ExportError: The graph cannot score two sessions of up to two events.
        """
        del self._graph.output[:]
        self._graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._output_names.values())
        length = min(2, max_length)
        sessions = [np.ones(length, dtype=np.int64), np.ones(1, dtype=np.int64)]
        session = _open(_serialize(self._proto))
        try:
            values = run_sessions(session, sessions, length, list(self._output_names.values()))
        except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
            raise ExportError(self._explain_failure(exc)) from exc
        measured = dict(zip(self._output_names, values.values(), strict=True))
        for contract_name, value in measured.items():
            if value.dtype.kind not in "iuf":
                message = f"{contract_name} is {value.dtype}: the graph must return numbers there"
                raise ExportError(message)
        return measured

    def add_rankings(self, values: Arrays, candidates: int, *, padding_column: bool) -> None:
        """Add the outputs `rows` and `scores`.

        Args:
            values: Outputs of `measure_outputs`.
            candidates: Number of candidates to take of `item_scores`.
            padding_column: Whether column 0 of `item_scores` is dropped.

        Raises:
            ExportError: The outputs have other shapes than the contract.
        """
        if ITEM_SCORES not in self._output_names:
            for name, kind in (("rows", TensorProto.INT64), ("scores", TensorProto.FLOAT)):
                shaped = self._as_matrix(name, values[name])
                self._add("Cast", [shaped], name, to=kind)
                self._declare(name, ("batch", values[name].shape[-1]))
            return
        scores, columns = self._as_matrix(ITEM_SCORES, values[ITEM_SCORES]), values[ITEM_SCORES].shape[-1]
        if padding_column:
            bounds = [self._constant([bound]) for bound in (1, columns, 1)]
            scores = self._add("Slice", [scores, *bounds], FOREIGN + "without_padding")
            columns -= 1
        if columns != self._items:
            raise ExportError(_explain_width(columns, self._items, padding_column=padding_column))
        scores = self._add("Cast", [scores], FOREIGN + "float_scores", to=TensorProto.FLOAT)
        count = min(candidates, self._items)
        self._graph.node.append(
            helper.make_node("TopK", [scores, self._constant([count])], ["scores", FOREIGN + "columns"])
        )
        self._add("Add", [FOREIGN + "columns", self._constant([1])], "rows")  # row 0 is padding
        for name in ("rows", "scores"):
            self._declare(name, ("batch", count))

    def add_heads(self, values: Arrays) -> tuple[str, ...]:
        """Add the outputs `action_probabilities` and `purchase`, and return the names of outputs with neutral values.

        Args:
            values: Outputs of `measure_outputs`.

        Raises:
            ExportError: An output has another shape than the contract.
        """
        actions = len(NEXT_ACTIONS)
        if (name := "action_probabilities") in values:
            if values[name].shape[-1] != actions:
                message = (
                    f"action_probabilities have {values[name].shape[-1]} columns, not one for each of "
                    f"{', '.join(NEXT_ACTIONS)}: return these five, or leave the output out"
                )
                raise ExportError(message)
            self._add("Cast", [self._as_matrix(name, values[name])], name, to=TensorProto.FLOAT)
        else:
            self._add_neutral(name, 1 / actions, [actions])
        self._declare(name, ("batch", actions))
        if (name := "purchase") in values:
            if values[name].size != len(values[name]):
                message = f"purchase has the shape {_shape_text(values[name])}: return one probability per session"
                raise ExportError(message)
            flat = self._add("Reshape", [self._output_names[name], self._constant([-1])], FOREIGN + "flat_purchase")
            self._add("Cast", [flat], name, to=TensorProto.FLOAT)
        else:
            self._add_neutral(name, 0.5, [])
        self._declare(name, ("batch",))
        return tuple(name for name in HEADS if name not in values)

    def serialize(self) -> tuple[bytes, int]:
        """Return the model file and the number of candidates."""
        by_name = {value.name: value for value in self._declared}
        del self._graph.output[:]
        self._graph.output.extend(by_name[name] for name in OUTPUTS)
        return _serialize(self._proto), by_name["rows"].type.tensor_type.shape.dim[1].dim_value

    def _adapt_inputs(self) -> None:
        """Replace the inputs by the contract's inputs, and cast to the graph's formats."""
        nodes: list[onnx.NodeProto] = []
        inputs: list[onnx.ValueInfoProto] = []
        for contract_name, kind in self._formats.items():
            rank, graph_name = INPUTS[contract_name][1], FOREIGN + self._graph_names[contract_name]
            if kind not in INTEGER_LIMITS:
                message = f"the graph reads {contract_name} as {_format_name(kind)}: export it with int64 inputs"
                raise ExportError(message)
            if contract_name == "items" and self._items > INTEGER_LIMITS[kind]:
                message = (
                    f"the graph reads items as {_format_name(kind)}, which cannot hold {self._items:,} item rows: "
                    "export it with int64 inputs"
                )
                raise ExportError(message)
            name, shape = contract_name, self._input_shapes[contract_name]
            if shape is not None and len(shape) != rank:
                if rank != 1 or len(shape) != 2:  # lengths as a column
                    message = (
                        f"the graph reads {contract_name} with {len(shape)} axes, not {rank}: export it with {rank}"
                    )
                    raise ExportError(message)
                nodes.append(
                    helper.make_node("Reshape", [name, self._constant([-1, 1])], [f"{FOREIGN}column/{contract_name}"])
                )
                name = f"{FOREIGN}column/{contract_name}"
            if kind not in (TensorProto.INT64, TensorProto.UINT64):  # a longer age becomes the largest of the format
                limit = self._constant(INTEGER_LIMITS[kind])
                nodes.append(helper.make_node("Min", [name, limit], [f"{FOREIGN}bounded/{contract_name}"]))
                name = f"{FOREIGN}bounded/{contract_name}"
            nodes.append(helper.make_node("Cast", [name], [graph_name], to=kind))
            inputs.append(helper.make_tensor_value_info(contract_name, TensorProto.INT64, ("batch", "length")[:rank]))
        foreign_nodes = [*self._graph.node]
        del self._graph.node[:], self._graph.input[:]
        self._graph.node.extend([*nodes, *foreign_nodes])
        self._graph.input.extend(inputs)

    def _as_matrix(self, contract_name: str, value: npt.NDArray[np.generic]) -> str:
        """Return the name of an output as (batch, columns), without an axis of size 1 in between."""
        graph_name, columns = self._output_names[contract_name], value.shape[-1] if value.ndim else 0
        if value.ndim >= 2 and value.size == len(value) * columns and columns:
            if value.ndim == 2:
                return graph_name
            return self._add("Reshape", [graph_name, self._constant([-1, columns])], f"{FOREIGN}matrix/{contract_name}")
        message = (
            f"{contract_name} has the shape {_shape_text(value)} for two sessions, not (batch, columns): return it for "
            "the last event of each session alone"
        )
        raise ExportError(message)

    def _add_neutral(self, name: str, value: float, columns: list[int]) -> None:
        """Add a constant output for all sessions: (batch, *columns)."""
        shape = self._add("Shape", ["items"], f"{FOREIGN}shape/{name}")
        batch = self._add("Gather", [shape, self._constant([0])], f"{FOREIGN}batch/{name}")
        shape = self._add("Concat", [batch, self._constant(columns)], f"{FOREIGN}full/{name}", axis=0)
        self._add("Expand", [self._constant(np.float32(value)), shape], name)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 (ONNX's)
        self._graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _constant(self, value: object) -> str:
        array = np.asarray(value, dtype=None if isinstance(value, np.generic) else np.int64)
        name = f"{FOREIGN}adapter/{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _declare(self, name: str, shape: tuple[str | int, ...]) -> None:
        kind = TensorProto.INT64 if name == "rows" else TensorProto.FLOAT
        self._declared.append(helper.make_tensor_value_info(name, kind, shape))

    def _explain_failure(self, error: Exception) -> str:
        """Return why the graph could not score two sessions: a fixed axis, where one is declared."""
        fixed = {
            contract_name: shape
            for contract_name, shape in self._input_shapes.items()
            if shape and any(isinstance(axis, int) for axis in shape)
        }
        if fixed:
            described = ", ".join(f"{contract_name} is {shape}" for contract_name, shape in fixed.items())
            return (
                f"the graph reads only sessions of one size ({described}), and a worker needs both axes "
                f"dynamic: export it with dynamic axes for batch and length: {shorten(error)}"
            )
        return (
            f"the graph cannot score two sessions of two events and one: export it with dynamic axes for batch and "
            f"length: {shorten(error)}"
        )


def _check_file(proto: onnx.ModelProto) -> None:
    """Refuse a file without a graph, or with an old operator set."""
    if not proto.graph.node:
        message = "the file holds no ONNX graph: export the model to ONNX again"
        raise ExportError(message)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        message = f"the graph uses operator set {opset}: export it with operator set {MIN_OPSET} or a later one"
        raise ExportError(message)


def _map_names(names: Mapping[str, str], declared: Iterable[str]) -> dict[str, str]:
    """Return each name of the contract with the tensor's name in the graph; a mapped name replaces an equal one."""
    declared = list(declared)
    if absent := [name for name in names if name not in declared]:
        message = f"the graph has no {', '.join(absent)}; it has {', '.join(sorted(declared))}"
        raise ExportError(message)
    contract = {*INPUTS, *OUTPUTS, ITEM_SCORES}
    if unknown := [name for name in names.values() if name not in contract]:
        message = f"the contract has no {', '.join(unknown)}; it has {', '.join(sorted(contract))}"
        raise ExportError(message)
    if len(set(names.values())) != len(names):
        message = "--name gives one name of the contract to two tensors of the graph: give each name once"
        raise ExportError(message)
    return {name: name for name in declared if name not in names} | {
        contract_name: graph_name for graph_name, contract_name in names.items()
    }


def _check_tensors(
    graph_names: Mapping[str, str],
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Mapping[str, onnx.ValueInfoProto],
) -> None:
    """Refuse a graph without rankings, or with an input unknown to workers."""
    returned = {contract_name for contract_name, name in graph_names.items() if name in outputs}
    if not (ITEM_SCORES in returned or {"rows", "scores"} <= returned):
        message = (
            f"the graph has no output {ITEM_SCORES}, nor rows with scores; it has {', '.join(sorted(outputs))}. Map "
            "the names with --name OURS=THEIRS"
        )
        raise ExportError(message)
    reads = {contract_name for contract_name, name in graph_names.items() if name in inputs}
    if not reads <= set(INPUTS) or "items" not in reads:
        message = (
            f"the graph reads {', '.join(sorted(inputs)) or 'nothing'}; a worker feeds {', '.join(INPUTS)}, and the "
            "graph must read items. Map the names with --name OURS=THEIRS"
        )
        raise ExportError(message)


def _explain_width(columns: int, items: int, *, padding_column: bool) -> str:
    message = f"the graph scores {columns} items"
    message += " behind the padding column" if padding_column else ""
    message += f", and the list names {items}: name the item of each column, in order"
    if columns == items + 1 and not padding_column:
        message += "; where column 0 is the padding row, drop it with --padding-column"
    return message


def _check_batch_invariance(session: ort.InferenceSession, items: int, max_length: int) -> None:
    """Run random sessions alone and in one padded batch; refuse a graph with differing outputs.

    Args:
        session: The graph.
        items: Number of items.
        max_length: Length of the longest sessions to run.

    Raises:
        ExportError: An output depends on the batch.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, max_length, PROBES, endpoint=True)
    sessions = [rng.integers(1, items, length, endpoint=True) for length in lengths]
    actions = range(1, len(ACTIONS))
    batched = run_sessions(session, sessions, int(lengths.max()), tuple(OUTPUTS), actions=actions)
    for index, rows in enumerate(sessions):
        single = run_sessions(session, [rows], len(rows), tuple(OUTPUTS), actions=actions)
        for name in OUTPUTS:
            if name != "rows" and not np.allclose(
                single[name][0], batched[name][index], atol=BATCH_TOLERANCE, rtol=BATCH_TOLERANCE
            ):
                message = (
                    f"the graph is not batch-invariant: {name} of a session of {len(rows)} events differs in a batch "
                    "with longer sessions. It must not read the padding behind a session's end. Mask by `lengths`, or "
                    "where items are 0"
                )
                raise ExportError(message)


def _open(model: bytes) -> ort.InferenceSession:
    try:
        return open_graph(model)
    except Exception as exc:  # as above
        message = f"ONNX Runtime refuses this graph: export it with standard operators that it knows: {shorten(exc)}"
        raise ExportError(message) from exc


def _serialize(proto: onnx.ModelProto) -> bytes:
    message = "the graph is larger than the 2 GB of an ONNX file: take fewer items, or smaller vectors"
    try:
        model = proto.SerializeToString()
    except Exception as exc:  # protobuf's own exception, of another class in each implementation
        raise ExportError(message) from exc
    if len(model) >= MAX_BYTES:
        raise ExportError(message)
    return model


def _declared_shape(value: onnx.ValueInfoProto) -> tuple[str | int, ...] | None:
    """Return the declared axes of a tensor, names for dynamic axes; None without a declaration."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in tensor.shape.dim)


def _format_name(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)


def _shape_text(value: npt.NDArray[np.generic]) -> str:
    return str(value.shape)
