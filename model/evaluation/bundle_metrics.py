"""Bundle metrics: the offline metrics of an exported graph, over every prefix of sessions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from clickscore.model.dataset import read_sessions
from clickscore.model.features import Examples, iterate_prefixes, make_examples
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.predict import BATCH, compute_metrics, empty_predictions
from clickscore.model.vocabulary import read_vocabulary
from clickscore.schemas.manifest import decode_manifest


def evaluate_graph(graph: ort.InferenceSession, of: Examples) -> dict[str, float]:
    """Return a graph's metrics, every beginning of every session answered for itself, as a worker would ask."""
    answers = empty_predictions(of)
    for at, batch in iterate_prefixes(of, BATCH):
        rows, scores, action_probabilities, purchase = run_graph(graph, batch)
        is_next = rows == of.next_item[at][:, None]  # (batch, candidates)
        own = np.where(is_next, scores, np.inf).min(axis=1, keepdims=True)  # inf where it is no candidate
        answers.ranks[at] = (scores >= own).sum(axis=1)
        answers.action_probabilities[at] = action_probabilities
        answers.purchase[at] = purchase
    return compute_metrics(answers, of)


def evaluate_bundle(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """Return a bundle's metrics on files of closed sessions that it has not seen.

    `popular_...` are of the order of its `items.txt`, which is that of popularity where we have exported it.

    Raises:
        TrainingError: A file cannot be read.
    """
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    sessions, _ = read_sessions(files)
    rows = read_vocabulary(folder / "items.txt").rows(sessions.item_ids)
    return evaluate_graph(open_graph(folder / "model.onnx"), make_examples(sessions, rows, manifest.max_length))
