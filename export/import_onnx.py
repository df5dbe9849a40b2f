"""Import ONNX: make a bundle of a graph that another framework exported, to the contract of `schemas.manifest`.

Exporters name tensors and axes as they like, and return the scores of the whole catalogue instead of candidates. So the
import renames inputs and outputs, and takes the top k of `item_scores` inside the graph. Then it runs the graph: the
outputs must not depend on the other sessions of the batch, nor on the padding behind a session, because otherwise no
decision could be repeated.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from clickscore.export.bundle_files import require_empty, write_bundle
from clickscore.export.errors import ExportError
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import INPUTS, NEXT_ACTIONS, OUTPUTS, Manifest

ITEM_SCORES = "item_scores"
"""Output that takes the place of `rows` and `scores`: float32 (batch, items), column c for row c + 1."""
BATCH_TOLERANCE = 1e-4
"""Accepted difference of a session alone and in a batch: kernels add in an order that depends on the shape."""
PROBES = 16
"""Random sessions to run: a graph that reads its padding fails on nearly every one that is shorter than the longest."""


def import_bundle(
    model: Path, items: Path, out: Path, *, names: Mapping[str, str], candidates: int, max_length: int, framework: str
) -> Manifest:
    """Write the bundle of an exported graph and return its manifest.

    Args:
        model: Path of the ONNX file.
        items: Path of the list of item ids, one per line.
        out: Path of the bundle; the folder must be absent or empty.
        names: Names of tensors in the graph, and their names in the contract, as in `conform_graph`.
        candidates: Number of candidates to take of `item_scores`.
        max_length: Largest number of events that the graph reads.
        framework: Name and version of the framework, such as `keras 3.15`.

    Raises:
        ExportError: The graph cannot be imported (see `conform_graph`), the list of items is not valid, or the folder
            is not empty.
    """
    require_empty(out)
    try:
        item_ids = items.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as exc:
        message = f"{items} is not UTF-8: {exc}"
        raise ExportError(message) from exc
    if not item_ids or "" in item_ids or len(set(item_ids)) != len(item_ids):
        message = f"{items} must name each item once, one per line, and at least one item"
        raise ExportError(message)
    conformed = conform_graph(model.read_bytes(), names, len(item_ids), candidates, max_length)
    return write_bundle(
        out, model=conformed, vocabulary=Vocabulary(item_ids), framework=framework, max_length=max_length
    )


def conform_graph(model: bytes, names: Mapping[str, str], items: int, candidates: int, max_length: int) -> bytes:
    """Return the graph with the contract's names, and with candidates in place of the scores of all items.

    Args:
        model: ONNX file.
        names: Names of inputs and outputs in the graph, and their names in the contract; other tensors keep theirs.
        items: Number of items of the bundle.
        candidates: Number of candidates to take of `item_scores`.
        max_length: Largest number of events that the graph reads.

    Raises:
        ExportError: The file is no ONNX graph, lacks a part of the contract, or depends on batch or padding.
    """
    try:
        proto = onnx.load_model_from_string(model)
        _rename_tensors(proto.graph, names)
        if ITEM_SCORES in _tensor_names(proto.graph.output):
            _add_top_k(proto.graph, min(candidates, items))
        _check_tensors(proto.graph)
        _declare_contract(proto.graph)
        conformed = proto.SerializeToString()
        session = open_graph(conformed)
    except ExportError:
        raise
    except Exception as exc:  # onnx and ONNX Runtime pass on every exception of protobuf and C++
        message = f"this graph cannot be imported: {type(exc).__name__}: {exc}"
        raise ExportError(message) from exc
    _check_batch_invariance(session, items, max_length)
    return conformed


def _rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs of the graph, in every node that uses them."""
    declared = _tensor_names((*graph.input, *graph.output))
    if absent := [name for name in names if name not in declared]:
        message = f"the graph has no {', '.join(absent)}; it has {', '.join(sorted(declared))}"
        raise ExportError(message)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _add_top_k(graph: onnx.GraphProto, candidates: int) -> None:
    """Replace the scores of all items by the top k; row 0 is padding, so column c is row c + 1."""
    count, offset = (
        onnx.numpy_helper.from_array(np.array([value]), f"adopted_{name}")
        for name, value in (("count", candidates), ("one", 1))
    )
    graph.initializer.extend([count, offset])
    graph.node.extend(
        [
            helper.make_node("TopK", [ITEM_SCORES, count.name], ["scores", "adopted_columns"]),
            helper.make_node("Add", ["adopted_columns", offset.name], ["rows"]),
        ]
    )
    others = [value for value in graph.output if value.name != ITEM_SCORES]
    del graph.output[:]
    top_k = [
        helper.make_tensor_value_info(name, kind, ("batch", candidates))
        for name, kind in (("rows", onnx.TensorProto.INT64), ("scores", onnx.TensorProto.FLOAT))
    ]
    graph.output.extend([*top_k, *others])


def _check_tensors(graph: onnx.GraphProto) -> None:
    """Refuse a graph that lacks an output of the contract, or needs an input that no worker feeds."""
    absent = [name for name in OUTPUTS if name not in _tensor_names(graph.output)]
    if absent:
        message = (
            f"the graph has no output {', '.join(absent)}; it has {', '.join(sorted(_tensor_names(graph.output)))}. "
            f"Map the names with --name OURS=THEIRS; {ITEM_SCORES} may take the place of rows and scores"
        )
        raise ExportError(message)
    unknown = [name for name in _tensor_names(graph.input) if name not in INPUTS]
    if unknown or "items" not in _tensor_names(graph.input):
        message = (
            f"the graph reads {', '.join(sorted(_tensor_names(graph.input)))}; a worker feeds {', '.join(INPUTS)}, and "
            "the graph must read items. Map the names with --name OURS=THEIRS"
        )
        raise ExportError(message)


def _declare_contract(graph: onnx.GraphProto) -> None:
    """Name the axes as the contract does, and drop outputs that the contract does not have."""
    declared = {value.name: value for value in graph.output}
    outputs = [declared[name] for name in OUTPUTS]
    del graph.output[:]
    graph.output.extend(outputs)
    for value in graph.input:
        _name_axes(value, ("batch", "length"))
    for value in graph.output:
        _name_axes(value, ("batch",))


def _name_axes(value: onnx.ValueInfoProto, axes: Iterable[str]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
        axis.dim_param = name


def _check_batch_invariance(session: ort.InferenceSession, items: int, max_length: int) -> None:
    """Run random sessions alone and in one padded batch; refuse a graph whose outputs differ.

    Args:
        session: The graph.
        items: Number of items.
        max_length: Length of the longest sessions to run.

    Raises:
        ExportError: An output depends on the batch, or is not what the contract says.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, max_length, PROBES, endpoint=True)
    sessions = [rng.integers(1, items, length, endpoint=True) for length in lengths]
    batched = _run(session, sessions)
    for index, rows in enumerate(sessions):
        single = _run(session, [rows])
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
    _check_outputs(batched, items)


def _check_outputs(outputs: Mapping[str, npt.NDArray[np.generic]], items: int) -> None:
    rows, actions, purchase = (outputs[name] for name in ("rows", "action_probabilities", "purchase"))
    checks = (
        (rows.min() < 1 or rows.max() > items, f"rows run from {rows.min()} to {rows.max()}, not from 1 to {items}"),
        (actions.shape[1:] != (len(NEXT_ACTIONS),), f"action_probabilities are not of {', '.join(NEXT_ACTIONS)}"),
        (not np.allclose(actions.sum(axis=1), 1, atol=1e-3), "action_probabilities do not sum to 1"),  # half precision
        (purchase.min() < 0 or purchase.max() > 1, "purchase is no probability"),
    )
    if problems := [problem for failed, problem in checks if failed]:
        message = f"the graph does not keep the contract: {'; '.join(problems)}"
        raise ExportError(message)


def _run(session: ort.InferenceSession, sessions: list[npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the outputs for sessions of item views with one second between them."""
    length = max(map(len, sessions))
    items = np.array([np.pad(rows, (0, length - len(rows))) for rows in sessions])
    feeds = {
        "items": items,
        "actions": (items > 0).astype(np.int64),
        "ages": np.where(items > 0, np.arange(length) * 1000, 0),
        "lengths": np.array([len(rows) for rows in sessions]),
    }
    inputs = {node.name for node in session.get_inputs()}
    values = session.run(list(OUTPUTS), {name: value for name, value in feeds.items() if name in inputs})
    return {name: np.asarray(value) for name, value in zip(OUTPUTS, values, strict=True)}


def _tensor_names(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    return {value.name for value in values}
