"""Trial: beginnings of sessions that graphs are asked about, and whether company changes an answer."""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort

from clickscore.model.features import Examples, Longs, PaddedBatch, pad_prefixes
from clickscore.model.onnx_runtime import explain_scores, run_graph
from clickscore.model.prefix_features import EventBatch
from clickscore.schemas.events import ACTIONS

BATCH = 64


def stratified_sample(of: Examples, most: int, size: int) -> Iterator[Longs]:
    """Yield events spread over all, those of beginnings of like length together, `size` a batch."""
    at = np.unique(np.linspace(0, len(of.items) - 1, most).astype(np.int64))
    at = at[np.argsort(pad_prefixes(of, at).lengths, kind="stable")]
    for start in range(0, len(at), size):
        yield at[start : start + size]


def with_unknown_events(batch: PaddedBatch) -> EventBatch:
    """Return beginnings with a search and an event on an unknown item put in somewhere, and with times."""
    rng = np.random.default_rng(0)
    sessions, width = batch.items.shape
    real = np.arange(width) < batch.lengths[:, None]
    places = np.concatenate(
        (np.where(real, np.arange(width), width), rng.random((sessions, 2)) * batch.lengths[:, None] - 0.5), axis=1
    )
    order = np.argsort(places, axis=1, kind="stable")  # (B, width + 2)
    items, actions = (
        np.take_along_axis(np.concatenate((values, np.tile(new, (sessions, 1))), axis=1), order, axis=1)
        for values, new in ((batch.items, (-1, 0)), (batch.actions, (ACTIONS.index("view"), ACTIONS.index("search"))))
    )
    ages = np.where(actions > 0, rng.integers(0, 90_000, actions.shape).cumsum(axis=1), 0)
    return EventBatch(items, actions, ages, batch.lengths + 2)


def run_with_reasons(graph: ort.InferenceSession, batch: PaddedBatch | EventBatch) -> tuple[np.ndarray, ...]:
    """Return what a graph says, and why: of all candidates."""
    answers = run_graph(graph, batch)
    return *answers, explain_scores(graph, batch, answers[0].shape[1])


def batch_invariant(
    graph: ort.InferenceSession, batch: PaddedBatch | EventBatch, answers: tuple[np.ndarray, ...], at: int
) -> bool:
    """Return whether session `at`, run alone with the same padding, gets the same bits as in the batch."""
    one = slice(at, at + 1)
    alone = run_with_reasons(graph, type(batch)(*(part[one] for part in batch)))
    return all(answer[one].tobytes() == single.tobytes() for answer, single in zip(answers, alone, strict=True))
