"""Bundle heads: run a bundle's graph on prefixes of sessions, fed as a worker feeds the graph."""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort

from clickscore.model.array_types import Ints, Longs
from clickscore.model.calibration import Probabilities
from clickscore.model.onnx_runtime import run_graph
from clickscore.model.prefix_features import EventBatch, FullSessions
from clickscore.schemas.manifest import NEXT_ACTIONS, Manifest

BATCH_ROWS = 64
"""Rows in a call of the graph."""


def run_heads(
    graph: ort.InferenceSession, manifest: Manifest, sessions: FullSessions, ends: Longs
) -> tuple[Ints, Probabilities]:
    """Return the rows that a graph answers, ascending, and its probabilities there.

    A graph that reads known items alone does not answer a prefix without a known item.

    Args:
        graph: Graph of the bundle.
        manifest: Manifest of the bundle.
        sessions: Sessions with all events, in the rows of the bundle.
        ends: Index of the last event of each prefix: (n,).
    """
    is_answered = np.zeros(len(ends), dtype=bool)
    next_action, purchase = np.zeros((len(ends), len(NEXT_ACTIONS))), np.zeros(len(ends))
    for rows, batch in batch_prefixes(manifest, sessions, ends):
        is_answered[rows] = True
        _, _, next_action[rows], purchase[rows] = run_graph(graph, batch)
    answered = np.flatnonzero(is_answered)
    return answered, Probabilities(next_action[answered], purchase[answered])


def batch_prefixes(manifest: Manifest, sessions: FullSessions, ends: Longs) -> Iterator[tuple[Ints, EventBatch]]:
    """Yield row numbers and their prefixes, batched by length to avoid padding; rows without an event are left out.

    Args:
        manifest: Manifest of the bundle.
        sessions: Sessions with all events, in the rows of the bundle.
        ends: Index of the last event of each prefix: (n,).
    """
    first = sessions.starts[np.searchsorted(sessions.starts, ends, side="right") - 1]
    is_read = sessions.items > 0 if not manifest.every_event else np.ones(len(sessions.items), dtype=bool)
    prefixes = [
        begin + np.flatnonzero(is_read[begin : end + 1])[-manifest.max_length :]
        for begin, end in zip(first.tolist(), ends.tolist(), strict=True)
    ]
    lengths = np.array([len(prefix) for prefix in prefixes])
    for length in np.unique(lengths[lengths > 0]).tolist():
        same_length = np.flatnonzero(lengths == length)
        for start in range(0, len(same_length), BATCH_ROWS):
            rows = same_length[start : start + BATCH_ROWS]
            events = np.stack([prefixes[row] for row in rows])  # (rows, length)
            actions, full_lengths = sessions.actions[events].astype(np.int64), np.full(len(rows), length)
            yield rows, EventBatch(sessions.items[events], actions, sessions.ages[events], full_lengths)
