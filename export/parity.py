"""Parity: whether a graph in ONNX Runtime says what the PyTorch model says, and the same in any company."""

# pyright: standard
# torch leaves what a module returns untyped.

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import torch

from clickscore.export.probes import BATCH, batch_invariant, run_with_reasons, stratified_sample, with_unknown_events
from clickscore.model.calibration import to_probabilities
from clickscore.model.features import Examples, PaddedBatch, pad_prefixes
from clickscore.model.prefix_features import EventBatch
from clickscore.model.transformer import SessionTransformer

TOLERANCE = 1e-4
"""Largest difference of scores and probabilities: sums of the same numbers in another order differ by about 1e-5."""
Beside = Callable[[EventBatch], np.ndarray]
"""Returns what is added to the heads' logits: (batch, 6)."""
COMPARED = 20
"""Places of the ranking that are compared."""


class Parity(NamedTuple):
    """What a comparison found."""

    beginnings: int
    """Beginnings of sessions that were compared."""
    same_ranking: float
    """Share of them with the same items in the same order."""
    score_difference: float
    """Largest difference of a score: of a candidate's own, and between the two rankings place by place."""
    probability_difference: float
    """Largest difference of a probability."""
    reason_difference: float
    """Largest difference of what an event brought to a score, and of what one that is not read brought from 0."""
    depends_on_batch: int
    """Those, of every eighth, whose answer had other bits alone than in a batch."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; empty where the graph can be shipped."""
        found: list[str] = []
        if not self.score_difference <= TOLERANCE:  # a NaN is wrong, too
            found.append(f"scores differ by up to {self.score_difference:.2g}, more than {TOLERANCE}")
        if not self.probability_difference <= TOLERANCE:
            found.append(f"probabilities differ by up to {self.probability_difference:.2g}, more than {TOLERANCE}")
        if not self.reason_difference <= TOLERANCE:
            found.append(f"reasons differ by up to {self.reason_difference:.2g}, more than {TOLERANCE}")
        if self.depends_on_batch:
            found.append(f"{self.depends_on_batch} answers have other bits alone than in a batch")
        return found


def compare(
    graph: ort.InferenceSession,
    model: SessionTransformer,
    table: torch.Tensor,
    of: Examples,
    *,
    most: int = 1_000,
    beside: Beside | None = None,
) -> Parity:
    """Return how graph and model answer beginnings of sessions, at most about `most` of them, of all lengths.

    A graph in which something answers beside the heads is told times, and events that the model does not read.

    Rankings that differ only where scores are equal within the tolerance count as agreeing: place by place, the
    model's own scores of the two items are compared.
    """
    scores_apart: list[float] = []
    probabilities_apart: list[float] = []
    reasons_apart: list[float] = []
    compared = same = depends = 0
    for at in stratified_sample(of, most, BATCH):
        batch = pad_prefixes(of, at)
        asked = with_unknown_events(batch) if beside else batch
        answers = run_with_reasons(graph, asked)
        rows, scores, action_probabilities, purchase, reasons = answers
        expected = _ask(model, table, batch, rows, beside(asked) if beside and isinstance(asked, EventBatch) else None)
        best = min(COMPARED, rows.shape[1])
        scores_apart.append(_largest(scores, expected.scores))
        scores_apart.append(_largest(expected.scores[:, :best], expected.best_scores))
        probabilities_apart.append(_largest(action_probabilities, expected.action_probabilities))
        probabilities_apart.append(_largest(purchase, expected.purchase))
        reasons_apart.append(_largest(reasons, _placed(expected.reasons, asked, batch)))
        same += int((rows[:, :best] == expected.best_rows).all(axis=1).sum())
        compared += len(rows)
        depends += sum(not batch_invariant(graph, asked, answers, at) for at in range(0, len(rows), 8))
    return Parity(
        beginnings=compared,
        same_ranking=same / compared,
        score_difference=float(np.max(scores_apart)),  # numpy's, since Python's max passes over a NaN
        probability_difference=float(np.max(probabilities_apart)),
        reason_difference=float(np.max(reasons_apart)),
        depends_on_batch=depends,
    )


class _Expected(NamedTuple):
    """What the model says of a batch."""

    scores: np.ndarray
    """Of the graph's candidates: (batch, candidates)."""
    best_rows: np.ndarray
    """Of its own ranking: (batch, places)."""
    best_scores: np.ndarray
    action_probabilities: np.ndarray
    purchase: np.ndarray
    reasons: np.ndarray
    """(batch, candidates, events)."""


@torch.inference_mode()
def _ask(
    model: SessionTransformer, table: torch.Tensor, batch: PaddedBatch, rows: np.ndarray, added: np.ndarray | None
) -> _Expected:
    """Return what the model says of a batch and of the candidates `rows` (batch, candidates) of the graph.

    `added` is what comes to the heads' logits: (batch, 6).
    """
    items, actions, lengths = (torch.from_numpy(part) for part in batch)
    ends = torch.arange(items.shape[1]) == lengths[:, None] - 1  # (batch, width)
    vectors, of_items = model(table, items, actions)
    scores = model.scores(table, model.queries(vectors, of_items, items, ends))  # (batch, V - 1)
    reasons = model.reasons(table, items, actions, lengths - 1, torch.from_numpy(rows))
    vectors = vectors[ends]  # (batch, D)
    best = scores.topk(min(COMPARED, rows.shape[1]))
    logits = torch.cat((model.action_logits(vectors), model.purchase_logit(vectors)[:, None]), dim=1).numpy()
    said = to_probabilities(logits.astype(np.float64) + (0.0 if added is None else added))
    return _Expected(
        scores=scores.gather(1, torch.from_numpy(rows.clip(min=1) - 1)).numpy(),  # where all are NaN, row 0 may come
        best_rows=best.indices.numpy() + 1,
        best_scores=best.values.numpy(),
        action_probabilities=said.next_action,
        purchase=said.purchase,
        reasons=reasons.numpy(),
    )


def _placed(reasons: np.ndarray, asked: PaddedBatch | EventBatch, read: PaddedBatch) -> np.ndarray:
    """Return reasons of the events that are read, at their places among those that were asked about, 0 at others."""
    placed = np.zeros((*reasons.shape[:2], asked.items.shape[1]), dtype=reasons.dtype)
    for of, brought, items, length in zip(placed, reasons, asked.items, read.lengths, strict=True):
        of[:, np.flatnonzero(items > 0)] = brought[:, :length]
    return placed


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, NaN where one is no number."""
    return float(np.abs(found - expected).max())
