"""Adopt: a graph that another framework exported, made to keep the bundle contract of `schemas.manifest`.

Exporters name tensors and axes as they like, and return scores of the whole catalogue rather than candidates. What
they return is renamed; of `item_scores` the best are taken inside the graph. Then the graph is asked: what it answers
must not depend on who shares its batch, nor on the padding behind a session, or no decision could be repeated.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from clickscore.export.bundle_files import require_empty, write_bundle
from clickscore.model.errors import TrainingError
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.vocabulary import Vocabulary
from clickscore.schemas.manifest import INPUTS, NEXT_ACTIONS, OUTPUTS, Manifest

ITEM_SCORES = "item_scores"
"""Output that stands for `rows` and `scores`: float32 (batch, items), column c for row c + 1."""
TOLERANCE = 1e-4
"""That an answer may move by in company or under padding: kernels for other shapes add in another order."""
TRIALS = 16


def import_bundle(
    model: Path, items: Path, out: Path, *, names: Mapping[str, str], candidates: int, max_length: int, framework: str
) -> Manifest:
    """Write the bundle of an exported graph and return its manifest.

    Args:
        model: The ONNX file.
        items: Item ids, one a line.
        out: Where the bundle goes; there must be nothing yet.
        names: As `conform_graph` takes them.
        candidates: Items that the graph is to return a session.
        max_length: Events that it reads at most.
        framework: What made it, such as `keras 3.15`.

    Raises:
        TrainingError: As `conform_graph`; or the list of items is not one, or something is in the way.
    """
    require_empty(out)
    try:
        listed = items.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as exc:
        message = f"{items} is not UTF-8: {exc}"
        raise TrainingError(message) from exc
    if not listed or "" in listed or len(set(listed)) != len(listed):
        message = f"{items} must name each item once, one a line, and at least one"
        raise TrainingError(message)
    adopted = conform_graph(model.read_bytes(), names, len(listed), candidates, max_length)
    return write_bundle(out, model=adopted, vocabulary=Vocabulary(listed), framework=framework, max_length=max_length)


def conform_graph(model: bytes, names: Mapping[str, str], items: int, candidates: int, max_length: int) -> bytes:
    """Return the graph under the contract's names, with candidates where it gave the scores of all items.

    Args:
        model: The ONNX file.
        names: What its inputs and outputs are called there, and what in the contract; those not named keep theirs.
        items: How many items the bundle lists.
        candidates: Items that the graph is to return of `item_scores`.
        max_length: Events that it reads at most.

    Raises:
        TrainingError: It is no ONNX file, lacks a part of the contract, or answers a session otherwise in company.
    """
    try:
        proto = onnx.load_model_from_string(model)
        _rename(proto.graph, names)
        if ITEM_SCORES in _names(proto.graph.output):
            _choose(proto.graph, min(candidates, items))
        _require(proto.graph)
        _declare(proto.graph)
        adopted = proto.SerializeToString()
        session = open_graph(adopted)
    except TrainingError:
        raise
    except Exception as exc:  # onnx and ONNX Runtime raise whatever protobuf and C++ do
        message = f"this graph cannot be adopted: {type(exc).__name__}: {exc}"
        raise TrainingError(message) from exc
    _try_in_company(session, items, max_length)
    return adopted


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs of the graph, wherever its nodes name them."""
    ends = _names((*graph.input, *graph.output))
    if absent := [name for name in names if name not in ends]:
        message = f"the graph has no {', '.join(absent)}; it has {', '.join(sorted(ends))}"
        raise TrainingError(message)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _choose(graph: onnx.GraphProto, candidates: int) -> None:
    """Put the best of the items in the place of all their scores; row 0 is padding, so column c is row c + 1."""
    count, one = (
        onnx.numpy_helper.from_array(np.array([value]), f"adopted_{name}")
        for name, value in (("count", candidates), ("one", 1))
    )
    graph.initializer.extend([count, one])
    graph.node.extend(
        [
            helper.make_node("TopK", [ITEM_SCORES, count.name], ["scores", "adopted_columns"]),
            helper.make_node("Add", ["adopted_columns", one.name], ["rows"]),
        ]
    )
    kept = [value for value in graph.output if value.name != ITEM_SCORES]
    del graph.output[:]
    chosen = [
        helper.make_tensor_value_info(name, kind, ("batch", candidates))
        for name, kind in (("rows", onnx.TensorProto.INT64), ("scores", onnx.TensorProto.FLOAT))
    ]
    graph.output.extend([*chosen, *kept])


def _require(graph: onnx.GraphProto) -> None:
    """Refuse a graph that lacks an output of the contract, or wants what no worker gives."""
    absent = [name for name in OUTPUTS if name not in _names(graph.output)]
    if absent:
        message = (
            f"the graph has no output {', '.join(absent)}; it has {', '.join(sorted(_names(graph.output)))}. "
            f"Say which is which with --name OURS=THEIRS; {ITEM_SCORES} may stand for rows and scores"
        )
        raise TrainingError(message)
    unknown = [name for name in _names(graph.input) if name not in INPUTS]
    if unknown or "items" not in _names(graph.input):
        message = (
            f"the graph reads {', '.join(sorted(_names(graph.input)))}; a worker gives {', '.join(INPUTS)}, and items "
            "must be read. Say which is which with --name OURS=THEIRS"
        )
        raise TrainingError(message)


def _declare(graph: onnx.GraphProto) -> None:
    """Call the axes as the contract does, and leave out outputs that it does not know."""
    given = {value.name: value for value in graph.output}
    kept = [given[name] for name in OUTPUTS]
    del graph.output[:]
    graph.output.extend(kept)
    for value in graph.input:
        _name_axes(value, ("batch", "length"))
    for value in graph.output:
        _name_axes(value, ("batch",))


def _name_axes(value: onnx.ValueInfoProto, axes: Iterable[str]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
        axis.dim_param = name


def _try_in_company(session: ort.InferenceSession, items: int, max_length: int) -> None:
    """Ask about sessions alone, and about all of them at once under padding; refuse a graph that answers otherwise."""
    drawn = np.random.default_rng(0)
    lengths = drawn.integers(1, max_length, TRIALS, endpoint=True)
    rows = [drawn.integers(1, items, length, endpoint=True) for length in lengths]
    together = _ask(session, rows)
    for at, row in enumerate(rows):
        alone = _ask(session, [row])
        for name in OUTPUTS:
            if name != "rows" and not np.allclose(alone[name][0], together[name][at], atol=TOLERANCE, rtol=TOLERANCE):
                message = (
                    f"the graph answers a session of {len(row)} events otherwise beside longer ones ({name} differs): "
                    "what lies behind its end must not be read. Mask by `lengths`, or by items being 0"
                )
                raise TrainingError(message)
    _check_answers(together, items)


def _check_answers(answers: Mapping[str, npt.NDArray[np.generic]], items: int) -> None:
    rows, actions, purchase = (answers[name] for name in ("rows", "action_probabilities", "purchase"))
    checks = (
        (rows.min() < 1 or rows.max() > items, f"rows run from {rows.min()} to {rows.max()}, not from 1 to {items}"),
        (actions.shape[1:] != (len(NEXT_ACTIONS),), f"action_probabilities are not of {', '.join(NEXT_ACTIONS)}"),
        (not np.allclose(actions.sum(axis=1), 1, atol=1e-3), "action_probabilities do not sum to 1"),
        (purchase.min() < 0 or purchase.max() > 1, "purchase is no probability"),
    )
    if problems := [words for failed, words in checks if failed]:
        message = f"the graph does not keep the contract: {'; '.join(problems)}"
        raise TrainingError(message)


def _ask(session: ort.InferenceSession, sessions: list[npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the answers to sessions of views a second apart."""
    length = max(map(len, sessions))
    items = np.array([np.pad(rows, (0, length - len(rows))) for rows in sessions])
    given = {
        "items": items,
        "actions": (items > 0).astype(np.int64),
        "ages": np.where(items > 0, np.arange(length) * 1000, 0),
        "lengths": np.array([len(rows) for rows in sessions]),
    }
    wanted = {node.name for node in session.get_inputs()}
    found = session.run(list(OUTPUTS), {name: value for name, value in given.items() if name in wanted})
    return {name: np.asarray(answer) for name, answer in zip(OUTPUTS, found, strict=True)}


def _names(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    return {value.name for value in values}
