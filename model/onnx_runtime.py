"""ONNX Runtime: open a bundle's graph and run the graph on a single thread."""

import logging
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from clickscore.model.prefix_features import EventBatch
from clickscore.model.training_batches import PaddedBatch
from clickscore.schemas.manifest import EXPLAINED, REASONS

_log = logging.getLogger(__name__)

ERRORS_ONLY = 3
"""ONNX Runtime's log severity; a lower severity warns of each input with a default, e.g. `explained`."""


def native_library() -> Path | None:
    """Return the library of native operators that the installer built; None where it found no compiler."""
    return next(Path(__file__).parent.glob("_best_items.*"), None)


@cache
def can_load(library: Path) -> bool:
    """Return whether ONNX Runtime can load a library of operators; log a warning, once, where it cannot.

    Without the library a graph runs its own function of standard operators.
    """
    try:
        ort.SessionOptions().register_custom_ops_library(str(library))
    except Exception as exc:  # noqa: BLE001 (ONNX Runtime's exceptions share no base class that it exports)
        _log.warning("the native operators are not used, so calls of int8 bundles take longer: %s", exc)
        return False
    return True


def session_options(*, native: bool = True) -> Any:  # noqa: ANN401 (ONNX Runtime does not type the class)
    """Return options of a graph's session, with the native operators where they are installed.

    Args:
        native: Whether to use the native operators; without them a graph returns the same bits later.
    """
    options = ort.SessionOptions()
    if native and (library := native_library()) and can_load(library):
        options.register_custom_ops_library(str(library))
    return options


def open_graph(model: bytes | Path, *, native: bool = True) -> ort.InferenceSession:
    """Return a graph, from bytes or from a file, ready to run on a single thread.

    Args:
        model: ONNX file.
        native: Whether to use the native operators where they are installed.
    """
    options = session_options(native=native)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def explain_scores(graph: ort.InferenceSession, batch: PaddedBatch | EventBatch, candidates: int) -> np.ndarray:
    """Return the contribution of each event to the scores of the best candidates: (batch, candidates, length).

    Args:
        graph: Graph of a bundle.
        batch: Padded prefixes: (batch, length).
        candidates: Candidates to explain, the best.

    Returns:
        The contributions; (batch, 0, length) if the graph has no output for contributions.
    """
    if REASONS not in {node.name for node in graph.get_outputs()}:
        return np.zeros((len(batch.items), 0, batch.items.shape[1]), dtype=np.float32)
    feeds = {node.name: getattr(batch, node.name) for node in graph.get_inputs()}
    return cast("np.ndarray", graph.run([REASONS], feeds | {EXPLAINED: np.array([candidates])})[0])


def run_graph(
    graph: ort.InferenceSession, batch: PaddedBatch | EventBatch
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the outputs of a graph for padded prefixes.

    Returns:
        Item rows and scores of the candidates (batch, candidates) each, action probabilities (batch, 5), and the
        probability of a purchase (batch,).
    """
    feeds = {node.name: getattr(batch, node.name) for node in graph.get_inputs()}
    outputs = cast("list[np.ndarray]", graph.run(["rows", "scores", "action_probabilities", "purchase"], feeds))
    rows, scores, action_probabilities, purchase = outputs
    return rows, scores, action_probabilities, purchase
