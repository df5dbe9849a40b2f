"""Probes: sampled session prefixes to run a graph on, and the test that a graph is batch-invariant.

A graph is batch-invariant when a session's outputs have the same bits whatever other sessions share the batch.
Shapes: B prefixes, L padded length, K candidates.
"""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort

from clickscore.model.examples import Examples
from clickscore.model.onnx_runtime import explain_scores, run_graph
from clickscore.model.prefix_features import EventBatch
from clickscore.model.session_arrays import Longs
from clickscore.model.training_batches import PaddedBatch, pad_prefixes
from clickscore.schemas.events import ACTIONS

PROBE_BATCH = 64
"""Prefixes per batch, as in the setting `score_batch` of a worker."""
INVARIANCE_STEP = 8
"""Every eighth prefix is run again alone: single runs cost more than the batch itself."""

Outputs = tuple[np.ndarray, ...]
"""Outputs of a graph: `rows`, `scores`, `action_probabilities`, `purchase` and `reasons`."""


def stratified_sample(examples: Examples, limit: int) -> Iterator[Longs]:
    """Yield batches of event indices, sampled evenly over all events and sorted by prefix length.

    Args:
        examples: Sessions end to end.
        limit: Largest number of events to sample.
    """
    events = np.unique(np.linspace(0, len(examples.items) - 1, limit).astype(np.int64))
    events = events[np.argsort(pad_prefixes(examples, events).lengths, kind="stable")]
    for start in range(0, len(events), PROBE_BATCH):
        yield events[start : start + PROBE_BATCH]


def with_unknown_events(batch: PaddedBatch) -> EventBatch:
    """Return prefixes with a search and a view of an unknown item inserted at random positions, and with ages."""
    rng = np.random.default_rng(0)
    sessions, width = batch.items.shape
    is_event = np.arange(width) < batch.lengths[:, None]  # (B, L)
    # An event's key is its position, padding comes last, and a new event gets a key half-way between two positions.
    new_keys = rng.random((sessions, 2)) * batch.lengths[:, None] - 0.5
    keys = np.concatenate((np.where(is_event, np.arange(width), width), new_keys), axis=1)  # (B, L + 2)
    order = np.argsort(keys, axis=1, kind="stable")
    items, actions = (
        np.take_along_axis(np.concatenate((values, np.tile(new, (sessions, 1))), axis=1), order, axis=1)
        for values, new in ((batch.items, (-1, 0)), (batch.actions, (ACTIONS.index("view"), ACTIONS.index("search"))))
    )
    # 0 to 90 s between two events: gaps fall into most buckets of the prefix features
    ages = np.where(actions > 0, rng.integers(0, 90_000, actions.shape).cumsum(axis=1), 0)
    return EventBatch(items, actions, ages, batch.lengths + 2)


def run_with_reasons(graph: ort.InferenceSession, batch: PaddedBatch | EventBatch) -> Outputs:
    """Return the outputs of a graph, the reasons for all candidates included."""
    outputs = run_graph(graph, batch)
    return *outputs, explain_scores(graph, batch, outputs[0].shape[1])


def batch_invariant(graph: ort.InferenceSession, batch: PaddedBatch | EventBatch, outputs: Outputs, index: int) -> bool:
    """Return whether one session, run alone with the same padding, gets the same bits as in the batch.

    Args:
        graph: Graph under test.
        batch: Sessions of one run.
        outputs: Outputs of `run_with_reasons` for the batch.
        index: Position of the session in the batch.
    """
    row = slice(index, index + 1)
    single = run_with_reasons(graph, type(batch)(*(part[row] for part in batch)))
    return all(
        output[row].tobytes() == single_output.tobytes() for output, single_output in zip(outputs, single, strict=True)
    )
