"""Evaluate: the offline metrics of a model or of its graph, over every event of sessions that it has not seen."""

# pyright: standard
# torch leaves what a module returns untyped.

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from clickscore.model import metrics
from clickscore.model.features import NO_NEXT_ITEM, Examples, Longs, PaddedBatch, locate_events, pad_sessions
from clickscore.model.loss import Queries
from clickscore.model.transformer import SessionTransformer
from clickscore.schemas.manifest import NEXT_ACTIONS

CUTOFF = 20
"""Length of the ranking that metrics look at: what the literature on sessions reports."""
MAX_SCORES = 2**24
"""Scores that are held at once, about."""
BATCH = 64


class Predictions(NamedTuple):
    """What was said after each event of some sessions, beside what came."""

    ranks: metrics.Ints
    """Place of the next item from 1, `metrics.MISS` where it was not ranked or not known: (events,)."""
    action_probabilities: metrics.Floats
    """(events, 5)."""
    purchase: metrics.Floats
    """(events,)."""


def compute_metrics(answers: Predictions, of: Examples) -> dict[str, float]:
    """Return the metrics of answers.

    `hit_rate@20`, `mrr@20` and `ndcg@20` are of the next item, over the events that another item follows; an item that
    the model does not know is a miss. `popular_...` are those of always showing what is most popular. `purchase_rate`
    is what `purchase_pr_auc` would be by chance.
    """
    followed = of.next_item != NO_NEXT_ITEM
    ranks, popular = answers.ranks[followed], of.next_item[followed].clip(min=metrics.MISS)  # rows are by popularity
    return {
        "sessions": float(len(of)),
        "events": float(len(of.items)),
        "ranked_events": float(followed.sum()),
        f"hit_rate@{CUTOFF}": metrics.hit_rate(ranks, CUTOFF),
        f"mrr@{CUTOFF}": metrics.reciprocal_rank(ranks, CUTOFF),
        f"ndcg@{CUTOFF}": metrics.ndcg(ranks, CUTOFF),
        f"popular_hit_rate@{CUTOFF}": metrics.hit_rate(popular, CUTOFF),
        f"popular_mrr@{CUTOFF}": metrics.reciprocal_rank(popular, CUTOFF),
        "next_action_log_loss": metrics.log_loss(answers.action_probabilities, of.next_action),
        "purchase_rate": float(of.purchase.mean()),
        "purchase_pr_auc": metrics.pr_auc(answers.purchase, of.purchase),
        "purchase_log_loss": metrics.log_loss(answers.purchase, of.purchase),
        "purchase_brier": metrics.brier(answers.purchase, of.purchase),
        "purchase_calibration_error": metrics.calibration_error(answers.purchase, of.purchase),
    }


def evaluate_model(model: SessionTransformer, table: torch.Tensor, of: Examples) -> dict[str, float]:
    """Return a model's metrics: those of `answer`."""
    return compute_metrics(predict_sessions(model, table, of), of)


@torch.inference_mode()
def predict_sessions(model: SessionTransformer, table: torch.Tensor, of: Examples) -> Predictions:
    """Return what a model says after every event, in one causal pass over each session.

    Args:
        model: In evaluation mode.
        table: The vectors of all items.
        of: Sessions.
    """
    answers = empty_predictions(of)
    for sessions in _by_length(of, MAX_SCORES // len(table)):
        at = locate_events(of, sessions)
        vectors, queries = compute_queries(model, table, pad_sessions(of, sessions))
        answers.ranks[at] = _ranks(model.scores(table, queries), of.next_item[at])
        answers.action_probabilities[at] = model.action_logits(vectors).softmax(dim=-1).cpu().numpy()
        answers.purchase[at] = model.purchase_logit(vectors).sigmoid().cpu().numpy()
    return answers


def compute_queries(model: SessionTransformer, table: torch.Tensor, batch: PaddedBatch) -> tuple[torch.Tensor, Queries]:
    """Return session vector and wish after each real event, session by session: (n, D), n queries."""
    items, actions = (torch.from_numpy(part).to(table.device) for part in (batch.items, batch.actions))
    real = items > 0  # (B, T)
    vectors, of_items = model(table, items, actions)  # (B, T, D)
    return vectors[real], model.queries(vectors, of_items, items, real)


def _ranks(scores: torch.Tensor, next_item: metrics.Ints) -> metrics.Ints:
    """Return the place of each next item in its row of scores, others of the same score before it; or a miss."""
    wanted = torch.from_numpy(next_item.astype(np.int64)).to(scores.device)[:, None]  # (n, 1)
    own = scores.gather(1, (wanted - 1).clamp(min=0))  # (n, 1)
    return (scores >= own).sum(dim=1).where(wanted[:, 0] > 0, metrics.MISS).cpu().numpy()


def _by_length(of: Examples, most: int) -> Iterator[Longs]:
    """Yield numbers of sessions, those of like length together, with about `most` events or fewer at once."""
    order = np.argsort(of.lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(of.lengths[order[min(start + BATCH, len(order)) - 1]])
        end = start + max(1, min(BATCH, most // longest))
        yield order[start:end]
        start = end


def empty_predictions(of: Examples) -> Predictions:
    """Return arrays to fill, one entry for each event."""
    events = len(of.items)
    return Predictions(
        np.zeros(events, dtype=np.int64),
        np.zeros((events, len(NEXT_ACTIONS)), dtype=np.float32),
        np.zeros(events, dtype=np.float32),
    )
