"""Graph: a bundle's ONNX graph, opened and run on one thread."""

from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort

from clickscore.model.features import PaddedBatch
from clickscore.model.prefix_features import EventBatch
from clickscore.schemas.manifest import EXPLAINED, REASONS


def open_graph(model: bytes | Path) -> ort.InferenceSession:
    """Return a graph ready to run on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: it warns of each input with a default, such as `explained`
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def explain_scores(graph: ort.InferenceSession, batch: PaddedBatch | EventBatch, candidates: int) -> np.ndarray:
    """Return what each event brought to the scores of so many candidates: (batch, candidates, length).

    None are explained by a graph that cannot say why: (batch, 0, length).
    """
    if REASONS not in {node.name for node in graph.get_outputs()}:
        return np.zeros((len(batch.items), 0, batch.items.shape[1]), dtype=np.float32)
    feeds = {node.name: getattr(batch, node.name) for node in graph.get_inputs()}
    return cast("np.ndarray", graph.run([REASONS], feeds | {EXPLAINED: np.array([candidates])})[0])


def run_graph(
    graph: ort.InferenceSession, batch: PaddedBatch | EventBatch
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, scores (batch, candidates each), action probabilities (batch, 5) and purchase (batch,)."""
    feeds = {node.name: getattr(batch, node.name) for node in graph.get_inputs()}
    outputs = cast("list[np.ndarray]", graph.run(["rows", "scores", "action_probabilities", "purchase"], feeds))
    rows, scores, action_probabilities, purchase = outputs
    return rows, scores, action_probabilities, purchase
