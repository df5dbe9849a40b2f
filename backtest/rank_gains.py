"""Rank gains: the value of each rank by hit rate, MRR and NDCG, as a table, so that a metric is a lookup and a mean."""

import numpy as np

from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import MISS, hit_rate, ndcg, reciprocal_rank

RANKING_METRICS = {"hit_rate": hit_rate, "mrr": reciprocal_rank, "ndcg": ndcg}
"""Ranking metrics by name."""


def gain_table(metric: str, k: int) -> Floats:
    """Return the gain of each rank from 0, a miss, to k: (k + 1,).

    Args:
        metric: A name of `RANKING_METRICS`.
        k: Length of the ranking.
    """
    return np.array([RANKING_METRICS[metric](np.array([rank]), k) for rank in range(MISS, k + 1)])


def gain_ranks(ranks: Ints, gains: Floats) -> Floats:
    """Return the gain of each rank, where a rank beyond k is a miss: (events,).

    Args:
        ranks: Rank of each event's next item, 0 for a miss: (events,).
        gains: Table of `gain_table`: (k + 1,).
    """
    return gains[np.where(ranks < len(gains), ranks, MISS)]
