"""Parity: compare a graph in ONNX Runtime with the PyTorch model, and test batch invariance.

Shapes: B prefixes, L padded length, D dim, V rows of the item table, K candidates.
"""

# pyright: standard
# torch does not type the result of a module.

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import torch

from clickscore.export.probes import (
    INVARIANCE_STEP,
    batch_invariant,
    run_with_reasons,
    stratified_sample,
    with_unknown_events,
)
from clickscore.model.calibration import limit_actions, to_probabilities
from clickscore.model.examples import Examples
from clickscore.model.predict import spread_bonuses
from clickscore.model.prefix_features import EventBatch
from clickscore.model.session_neighbours import SessionIndex, explain_bonuses, find_neighbours
from clickscore.model.training_batches import PaddedBatch, pad_prefixes
from clickscore.model.transformer import SessionTransformer

MAX_DIFFERENCE = 1e-4
"""Largest accepted difference of scores and probabilities: float32 sums in another order differ by about 1e-5."""
COMPARED_ITEMS = 20
"""Length of the compared rankings, as in the metrics HR@20 and MRR@20 of training."""
PARITY_PREFIXES = 1_000
"""Prefixes per comparison: a wrong operator shows on the first ones, and PyTorch is slow on a large catalogue."""

StackLogits = Callable[[EventBatch], np.ndarray]
"""Returns the stack's share of the logits, which is added to the heads' logits: (B, 6)."""
TrainedModel = tuple[SessionTransformer, torch.Tensor]
"""Model and finished item table: (V, D)."""


class Parity(NamedTuple):
    """Differences between a graph and the PyTorch model."""

    prefixes: int
    """Number of compared session prefixes."""
    same_ranking: float
    """Share of the prefixes with the same items in the same order."""
    score_difference: float
    """Largest difference of a candidate's two scores, and of the two rankings' scores at the same rank."""
    probability_difference: float
    """Largest difference of a probability."""
    reason_difference: float
    """Largest difference of a reason; the reason of an event that the model does not read must be 0."""
    batch_dependent: int
    """Sampled sessions with other output bits alone than in a batch."""

    @property
    def problems(self) -> list[str]:
        """Reasons not to export the graph; empty where the graph agrees with the model."""
        differences = {
            "scores": self.score_difference,
            "probabilities": self.probability_difference,
            "reasons": self.reason_difference,
        }
        problems = [
            f"{name} differ by up to {difference:.2g}, more than {MAX_DIFFERENCE}"
            for name, difference in differences.items()
            if not difference <= MAX_DIFFERENCE  # also true for NaN
        ]
        if self.batch_dependent:
            problems.append(f"{self.batch_dependent} sessions get other bits alone than in a batch")
        return problems


def compare(
    graph: ort.InferenceSession,
    model: SessionTransformer,
    table: torch.Tensor,
    examples: Examples,
    *,
    limit: int = PARITY_PREFIXES,
    stack_logits: StackLogits | None = None,
    neighbours: SessionIndex | None = None,
    mean_with: Sequence[TrainedModel] = (),
) -> Parity:
    """Compare the outputs of a graph and of the PyTorch model on session prefixes of all lengths.

    Rankings that differ only by equal scores, within the tolerance, agree: the comparison takes the model's own scores
    of both items at each rank.

    Args:
        graph: The exported graph.
        model: The model, with the calibration folded into its heads.
        table: Finished item table: (V, D).
        examples: Sessions to sample the prefixes from.
        limit: Largest number of prefixes.
        stack_logits: Logits of a stack; the graph then also gets ages, searches and events on unknown items.
        neighbours: Index of sessions whose items get bonuses.
        mean_with: Other trainings; the graph's scores are then the mean over all trainings.
    """
    score_differences: list[float] = []
    probability_differences: list[float] = []
    reason_differences: list[float] = []
    compared = same_rankings = batch_dependent = 0
    for events in stratified_sample(examples, limit):
        prefixes = pad_prefixes(examples, events)
        batch = with_unknown_events(prefixes) if stack_logits else prefixes
        outputs = run_with_reasons(graph, batch)
        rows, scores, action_probabilities, purchase, reasons = outputs
        prior = stack_logits(batch) if stack_logits and isinstance(batch, EventBatch) else None
        expected = _run_models([(model, table), *mean_with], prefixes, rows, prior, neighbours=neighbours)
        best = min(COMPARED_ITEMS, rows.shape[1])
        score_differences.append(_max_difference(scores, expected.scores))
        score_differences.append(_max_difference(expected.scores[:, :best], expected.best_scores))
        probability_differences.append(_max_difference(action_probabilities, expected.action_probabilities))
        probability_differences.append(_max_difference(purchase, expected.purchase))
        reason_differences.append(_max_difference(reasons, _spread_reasons(expected.reasons, prefixes, batch)))
        same_rankings += int((rows[:, :best] == expected.best_rows).all(axis=1).sum())
        compared += len(rows)
        sampled = range(0, len(rows), INVARIANCE_STEP)
        batch_dependent += sum(not batch_invariant(graph, batch, outputs, row) for row in sampled)
    return Parity(
        prefixes=compared,
        same_ranking=same_rankings / compared,
        score_difference=float(np.max(score_differences)),  # numpy's max keeps a NaN, Python's max may drop it
        probability_difference=float(np.max(probability_differences)),
        reason_difference=float(np.max(reason_differences)),
        batch_dependent=batch_dependent,
    )


class _ModelOutputs(NamedTuple):
    """Outputs of the PyTorch model for a batch."""

    scores: np.ndarray
    """Scores of the graph's candidates: (B, K)."""
    best_rows: np.ndarray
    """Rows of the model's own ranking: (B, COMPARED_ITEMS)."""
    best_scores: np.ndarray
    """Scores of `best_rows`, of the same shape."""
    action_probabilities: np.ndarray
    """Probability of each next action: (B, 5)."""
    purchase: np.ndarray
    """Probability of a purchase: (B,)."""
    reasons: np.ndarray
    """Reasons of the candidates: (B, K, L)."""


@torch.inference_mode()
def _run_models(
    trainings: Sequence[TrainedModel],
    batch: PaddedBatch,
    rows: np.ndarray,
    prior: np.ndarray | None,
    *,
    neighbours: SessionIndex | None,
) -> _ModelOutputs:
    """Return the models' outputs for a batch and for the graph's candidates: mean scores, and the first one's heads.

    Args:
        trainings: The models.
        batch: Prefixes without searches and unknown items.
        rows: Rows of the graph's candidates: (B, K).
        prior: Logits to add to the heads' logits: (B, 6).
        neighbours: Index of sessions whose items get bonuses.
    """
    items, actions, lengths = (torch.from_numpy(part) for part in batch)
    is_last = torch.arange(items.shape[1]) == lengths[:, None] - 1  # (B, L)
    session_vectors, all_scores, all_reasons = [], [], []
    for model, table in trainings:
        vectors, item_vectors = model(table, items, actions)  # (B, L, D) each
        session_vectors.append(vectors[is_last])  # (B, D)
        # Row 0 is no item: (B, V - 1)
        all_scores.append(model.scores(table, model.queries(vectors, item_vectors, items, is_last)))
        all_reasons.append(model.reasons(table, items, actions, lengths - 1, torch.from_numpy(rows)))
    scores, reasons = torch.stack(all_scores).mean(dim=0), torch.stack(all_reasons).mean(dim=0).numpy()
    if neighbours:
        matches = find_neighbours(neighbours, batch)
        scores += spread_bonuses(matches, scores, neighbours.factor)
        reasons += explain_bonuses(matches, batch, rows, neighbours.factor)
    best = scores.topk(min(COMPARED_ITEMS, rows.shape[1]))
    (model, _), vectors = trainings[0], session_vectors[0]
    logits = torch.cat((model.action_logits(vectors), model.purchase_logit(vectors)[:, None]), dim=1).numpy()
    probabilities = limit_actions(to_probabilities(logits.astype(np.float64) + (0.0 if prior is None else prior)))
    return _ModelOutputs(
        scores=scores.gather(1, torch.from_numpy(rows.clip(min=1) - 1)).numpy(),  # row 0 comes only among NaN scores
        best_rows=best.indices.numpy() + 1,
        best_scores=best.values.numpy(),
        action_probabilities=probabilities.next_action,
        purchase=probabilities.purchase,
        reasons=reasons,
    )


def _spread_reasons(reasons: np.ndarray, prefixes: PaddedBatch, batch: PaddedBatch | EventBatch) -> np.ndarray:
    """Return the reasons at the positions of a batch with more events; the additional events get 0.

    Args:
        reasons: Reasons of the model's events: (B, K, L).
        prefixes: Events as input of the model.
        batch: Events as input of the graph.
    """
    spread = np.zeros((*reasons.shape[:2], batch.items.shape[1]), dtype=reasons.dtype)
    for session, values, items, length in zip(spread, reasons, batch.items, prefixes.lengths, strict=True):
        session[:, np.flatnonzero(items > 0)] = values[:, :length]
    return spread


def _max_difference(values: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference, NaN where a value is NaN."""
    return float(np.abs(values - expected).max())
