"""Bundle metrics: the offline metrics of an exported graph, over every prefix of sessions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from clickscore.model.examples import Examples, make_examples
from clickscore.model.onnx_runtime import run_graph
from clickscore.model.open_bundle import open_bundle
from clickscore.model.predict import BATCH_SESSIONS, compute_metrics, empty_predictions
from clickscore.model.session_files import read_sessions
from clickscore.model.training_batches import iterate_prefixes


def evaluate_graph(graph: ort.InferenceSession, labelled: Examples) -> dict[str, float]:
    """Return the metrics of a graph that scores each prefix of each session by itself, as a worker does."""
    predictions = empty_predictions(labelled)
    for events, batch in iterate_prefixes(labelled, BATCH_SESSIONS):
        rows, scores, action_probabilities, purchase = run_graph(graph, batch)
        is_next = rows == labelled.next_item[events][:, None]  # (batch, candidates)
        next_score = np.where(is_next, scores, np.inf).min(axis=1, keepdims=True)  # inf if it is no candidate
        predictions.ranks[events] = (scores >= next_score).sum(axis=1)
        predictions.action_probabilities[events] = action_probabilities
        predictions.purchase[events] = purchase
    return compute_metrics(predictions, labelled)


def evaluate_bundle(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """Return the metrics of a bundle on files of closed sessions that the model was not trained on.

    The `popular_...` metrics rank items in the order of `items.txt`; bundles of `clickscore export` list the most
    popular item first.

    Raises:
        DataError: A file cannot be read.
        TrainingError: The bundle is broken.
    """
    manifest, vocabulary, graph = open_bundle(folder)
    sessions, _ = read_sessions(files)
    rows = vocabulary.rows(sessions.item_ids)
    return evaluate_graph(graph, make_examples(sessions, rows, manifest.max_length))
