"""Predict: a model's predictions after every event of sessions, and their offline metrics.

The training loop needs these metrics after each epoch, so they stand here and not in `model.evaluation`.
"""

# pyright: standard
# torch does not type the result of a module.

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch

from clickscore.model import metrics
from clickscore.model.array_types import Floats, Longs
from clickscore.model.examples import NO_NEXT_ITEM, Examples, locate_events
from clickscore.model.loss import Queries
from clickscore.model.session_neighbours import NeighbourItems, SessionIndex, compute_bonuses, find_neighbours
from clickscore.model.training_batches import PaddedBatch, pad_prefixes, pad_sessions
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import NEXT_ACTIONS

CUTOFF = 20
"""Ranking length of the metrics, as in the literature on session-based recommendation."""
RANKING_SCORE = f"mean of hit_rate@{CUTOFF} and mrr@{CUTOFF}"
"""Name of the validation score that ends a training early and chooses its best epoch (`ranking_score`)."""
MAX_SCORES = 2**24
"""Scores in memory at once, about: 64 MiB in float32."""
BATCH_SESSIONS = 64
"""Maximum number of sessions, or prefixes, in a forward pass."""


class Predictions(NamedTuple):
    """Predictions after each event of some sessions."""

    ranks: metrics.Ints
    """Rank of the next item from 1, or `metrics.MISS` for an unknown item or no candidate: (events,)."""
    action_probabilities: metrics.Floats
    """Probability of each next action: (events, 5)."""
    purchase: metrics.Floats
    """Probability of a purchase later in the session: (events,)."""


def compute_metrics(predictions: Predictions, examples: Examples) -> dict[str, float]:
    """Return the metrics of predictions.

    `hit_rate@20`, `mrr@20` and `ndcg@20` judge the next item after each event that another item follows; an unknown
    next item is a miss. `popular_...` are the same metrics for a fixed ranking by popularity.
    `purchase_rate` is the `purchase_pr_auc` of chance.
    """
    has_next = examples.next_item != NO_NEXT_ITEM
    ranks = predictions.ranks[has_next]
    popular_ranks = examples.next_item[has_next].clip(min=metrics.MISS)  # rows are in order of popularity
    return {
        "sessions": float(len(examples)),
        "events": float(len(examples.items)),
        "ranked_events": float(has_next.sum()),
        f"hit_rate@{CUTOFF}": metrics.hit_rate(ranks, CUTOFF),
        f"mrr@{CUTOFF}": metrics.reciprocal_rank(ranks, CUTOFF),
        f"ndcg@{CUTOFF}": metrics.ndcg(ranks, CUTOFF),
        f"popular_hit_rate@{CUTOFF}": metrics.hit_rate(popular_ranks, CUTOFF),
        f"popular_mrr@{CUTOFF}": metrics.reciprocal_rank(popular_ranks, CUTOFF),
        "next_action_log_loss": metrics.log_loss(predictions.action_probabilities, examples.next_action),
        "purchase_rate": float(examples.purchase.mean()),
        "purchase_pr_auc": metrics.pr_auc(predictions.purchase, examples.purchase),
        "purchase_log_loss": metrics.log_loss(predictions.purchase, examples.purchase),
        "purchase_brier": metrics.brier(predictions.purchase, examples.purchase),
        "purchase_calibration_error": metrics.calibration_error(predictions.purchase, examples.purchase),
    }


def ranking_score(metrics: Mapping[str, float]) -> float:
    """Return the mean of hit rate and MRR: higher if a model finds more items, and if it orders them better.

    MRR alone stops some trainings early while the hit rate still grows by points (`docs/experiments.md`).
    """
    return (metrics[f"hit_rate@{CUTOFF}"] + metrics[f"mrr@{CUTOFF}"]) / 2


def evaluate_model(model: SessionTransformer, table: torch.Tensor, examples: Examples) -> dict[str, float]:
    """Return the metrics of a model on sessions.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        examples: Sessions and their labels.
    """
    return compute_metrics(predict_sessions(model, table, examples), examples)


@torch.inference_mode()
def predict_sessions(
    model: SessionTransformer, table: torch.Tensor, examples: Examples, neighbours: SessionIndex | None = None
) -> Predictions:
    """Return a model's predictions after every event, with a single causal pass over each session.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        examples: Sessions and their labels.
        neighbours: Index of sessions whose items get bonuses.
    """
    predictions = empty_predictions(examples)
    for sessions in _batch_by_length(examples, MAX_SCORES // len(table)):
        events = locate_events(examples, sessions)  # (n,)
        vectors, queries = compute_queries(model, table, pad_sessions(examples, sessions))  # (n, D), n queries
        scores = model.scores(table, queries)  # (n, V - 1)
        if neighbours:
            matches = find_neighbours(neighbours, pad_prefixes(examples, events))
            scores += spread_bonuses(matches, scores, neighbours.factor)
        predictions.ranks[events] = _rank_next_items(scores, examples.next_item[events])
        predictions.action_probabilities[events] = model.action_logits(vectors).softmax(dim=-1).cpu().numpy()
        predictions.purchase[events] = model.purchase_logit(vectors).sigmoid().cpu().numpy()
    return predictions


@torch.inference_mode()
def rank_with_factors(
    model: SessionTransformer, table: torch.Tensor, examples: Examples, neighbours: SessionIndex, factors: Floats
) -> metrics.Ints:
    """Return the rank of the next item after every event, by factor of the bonuses: (factors, events).

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        examples: Sessions and their labels.
        neighbours: Index of sessions.
        factors: Factors of the bonuses: (factors,).
    """
    ranks = np.zeros((len(factors), len(examples.items)), dtype=np.int64)
    for sessions in _batch_by_length(examples, MAX_SCORES // len(table)):
        events = locate_events(examples, sessions)  # (n,)
        _, queries = compute_queries(model, table, pad_sessions(examples, sessions))
        scores = model.scores(table, queries)  # (n, V - 1)
        bonuses = spread_bonuses(find_neighbours(neighbours, pad_prefixes(examples, events)), scores, 1.0)
        for row, factor in zip(ranks, factors.tolist(), strict=True):
            row[events] = _rank_next_items(scores + factor * bonuses, examples.next_item[events])
    return ranks


def spread_bonuses(matches: NeighbourItems, scores: torch.Tensor, factor: float) -> torch.Tensor:
    """Return the bonus of every item, in the shape of the scores: (n, V - 1).

    Args:
        matches: Items of the neighbours of n prefixes.
        scores: Scores of rows 1 to V - 1 of the item table: (n, V - 1).
        factor: Factor of the bonuses.
    """
    weights = torch.zeros(len(scores), scores.shape[1] + 1, dtype=torch.int64)
    weights.scatter_add_(1, torch.from_numpy(matches.rows), torch.from_numpy(matches.parts.sum(axis=1)))
    bonuses = compute_bonuses(weights[:, 1:].numpy(), matches.totals, factor)
    return torch.from_numpy(bonuses.astype(np.float32)).to(scores.device)


def compute_queries(model: SessionTransformer, table: torch.Tensor, batch: PaddedBatch) -> tuple[torch.Tensor, Queries]:
    """Return the session vector and the item query after each real event, session by session: (n, D), n queries.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        batch: Padded sessions: (B, T).
    """
    items, actions = (torch.from_numpy(part).to(table.device) for part in (batch.items, batch.actions))
    real = items > 0  # (B, T)
    vectors, item_vectors = model(table, items, actions)  # (B, T, D)
    return vectors[real], model.queries(vectors, item_vectors, items, real)


def _rank_next_items(scores: torch.Tensor, next_item: metrics.Ints) -> metrics.Ints:
    """Return the rank of each next item, behind all items of an equal score; `metrics.MISS` for an unknown item.

    Args:
        scores: Scores of rows 1 to V - 1 of the item table: (n, V - 1).
        next_item: Row of the next item, below 1 if absent or unknown: (n,).
    """
    targets = torch.from_numpy(next_item.astype(np.int64)).to(scores.device)[:, None]  # (n, 1)
    target_scores = scores.gather(1, (targets - 1).clamp(min=0))  # (n, 1)
    return (scores >= target_scores).sum(dim=1).where(targets[:, 0] > 0, metrics.MISS).cpu().numpy()


def _batch_by_length(examples: Examples, max_events: int) -> Iterator[Longs]:
    """Yield the numbers of sessions of like length together, with about `max_events` events or fewer in a batch."""
    order = np.argsort(examples.lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(examples.lengths[order[min(start + BATCH_SESSIONS, len(order)) - 1]])
        end = start + max(1, min(BATCH_SESSIONS, max_events // longest))
        yield order[start:end]
        start = end


def empty_predictions(examples: Examples) -> Predictions:
    """Return zeroed predictions with an entry for each event, to be filled."""
    events = len(examples.items)
    return Predictions(
        np.zeros(events, dtype=np.int64),
        np.zeros((events, len(NEXT_ACTIONS)), dtype=np.float32),
        np.zeros(events, dtype=np.float32),
    )
