"""Neighbour factor: choose on validation how much session neighbours add to the scores."""

# pyright: standard
# torch does not type the result of a module.

import numpy as np
import torch

from clickscore.model import metrics
from clickscore.model.array_types import Floats
from clickscore.model.examples import NO_NEXT_ITEM, Examples
from clickscore.model.predict import CUTOFF, rank_with_factors
from clickscore.model.session_neighbours import IndexedSessions, index_sessions, open_index
from clickscore.model.transformer import SessionTransformer

FACTORS: Floats = np.array([0.0, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
"""Factors to choose from. A bonus with the factor 1 is a difference of log-probabilities, as scores are."""
STANDARD_ERRORS = 2.0
"""Gain on validation, in standard errors of the difference over sessions, below which a model has no bonuses."""


def choose_factor(
    model: SessionTransformer, table: torch.Tensor, training: Examples, validation: Examples
) -> tuple[float, float]:
    """Return the factor with the best validation score, and the gain; 0 without a clear gain.

    The score is the mean of hit rate and MRR, as in `predict.ranking_score`. A factor may lower neither part.

    Args:
        model: The model in evaluation mode.
        table: Vectors of all items: (V, D).
        training: Sessions to index.
        validation: Sessions to rank, newer than the training sessions.
    """
    neighbours = open_index(IndexedSessions(index_sessions(training), 1.0), len(table))
    ranks = rank_with_factors(model, table, validation, neighbours, FACTORS)  # (factors, events)
    is_hit = (ranks != metrics.MISS) & (ranks <= CUTOFF) & (validation.next_item != NO_NEXT_ITEM)
    hits, orders = is_hit.astype(np.float64), np.where(is_hit, 1 / np.maximum(ranks, 1), 0.0)
    gains = [
        np.add.reduceat(values - values[:1], validation.starts[:-1], axis=1) for values in (hits, orders)
    ]  # (factors, sessions) each
    no_loss = np.minimum(*(gain.sum(axis=1) for gain in gains)) >= 0  # (factors,)
    gain = (gains[0] + gains[1]) / 2
    totals = np.where(no_loss, gain.sum(axis=1), -np.inf)  # (factors,)
    best = int(np.argmax(totals))
    error = float(np.sqrt(((gain[best] - gain[best].mean()) ** 2).sum()))
    if totals[best] <= STANDARD_ERRORS * error:
        return 0.0, 0.0
    return float(FACTORS[best]), float(totals[best] / (validation.next_item != NO_NEXT_ITEM).sum())
