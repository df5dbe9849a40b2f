"""Metrics beside those of `model.metrics`: how much of the catalogue was shown, how popular, how well calibrated."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import MISS, equal_mass_bins, hit_rate, ndcg, reciprocal_rank

RANKING = {"hit_rate": hit_rate, "mrr": reciprocal_rank, "ndcg": ndcg}
"""Metrics of a ranking, by name."""

BINS = 15
"""Of reliability: as many as `model.metrics.calibration_error` has."""


def worth(name: str, k: int) -> Floats:
    """Return what each place in a ranking is worth by one of `RANKING`, cut off at k: (k + 1,), a miss first."""
    return np.array([RANKING[name](np.array([rank]), k) for rank in range(MISS, k + 1)])


def values(ranks: Ints, of_place: Floats) -> Floats:
    """Return what each rank is worth; places beyond the last of `of_place` are misses. Both (rows,)."""
    return of_place[np.where(ranks < len(of_place), ranks, MISS)]


def coverage(recommended: Mapping[str, int], items: int) -> float:
    """Return the share of the items that were recommended at least once: catalogue coverage.

    Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys 2010, section 3.

    Args:
        recommended: How often each item was.
        items: How many there are.
    """
    return len(recommended) / items if items else 0.0


def popularity(recommended: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return the mean share of all events that an item has which is recommended: 0 to 1.

    The average recommendation popularity of Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation",
    VLDB 2012, over slots instead of over users, and as a share of events instead of a count.

    Args:
        recommended: How often each item was, or was turned to.
        events: Events on each item.
    """
    slots, total = sum(recommended.values()), sum(events.values())
    return sum(count * events.get(item, 0) for item, count in recommended.items()) / (slots * total) if slots else 0.0


def popularity_bias(recommended: Mapping[str, int], wanted: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return how many times as popular what is recommended is as what users turned to; 1 where it is the same.

    After the popularity lift of Abdollahpouri, Mansoury, Burke and Mobasher, "The connection between popularity bias,
    calibration, and fairness in recommendation", RecSys 2020, as a ratio over all users.
    """
    of_wanted = popularity(wanted, events)
    return popularity(recommended, events) / of_wanted if of_wanted else 0.0


def novelty(recommended: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return the mean of -log2 of the share of events of an item that is recommended, in bits: higher is rarer.

    The self-information of Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, "Solving the apparent diversity-accuracy
    dilemma of recommender systems", PNAS 107 (2010). One event is added to each item, so that none has no share.
    """
    slots = sum(recommended.values())
    if not slots:
        return 0.0
    total = sum(events.values()) + len(events.keys() | recommended.keys())
    counts = np.array(list(recommended.values()), dtype=np.float64)
    shares = np.array([(events.get(item, 0) + 1) / total for item in recommended])
    return float(np.sum(counts * -np.log2(shares)) / slots)


class Reliability(NamedTuple):
    """Bins of equal mass over the stated probability."""

    stated: Floats
    """Mean probability of each bin: (bins,)."""
    happened: Floats
    """Share in which it happened: (bins,)."""
    rows: Ints
    """(bins,)."""
    bin_of: Ints
    """Of each row: (rows,)."""


def reliability(probabilities: Floats, happened: Ints, bins: int = BINS) -> Reliability:
    """Return stated probability against outcome, over the bins of `model.metrics.calibration_error`; both (rows,)."""
    bin_of = equal_mass_bins(probabilities, bins)
    rows = np.bincount(bin_of)
    stated, came = (np.bincount(bin_of, weights=column) / np.maximum(rows, 1) for column in (probabilities, happened))
    return Reliability(stated, came, rows, bin_of)


class WeightedPrAuc:
    """`model.metrics.pr_auc` of the same rows under many weights: they are sorted once."""

    def __init__(self, probabilities: Floats, happened: Ints) -> None:
        """Take rows: both (rows,)."""
        self._order = np.argsort(-probabilities, kind="stable")
        self._happened = happened[self._order]
        self._last_of_tie = np.append(np.diff(probabilities[self._order]) != 0, True)

    def __call__(self, weights: Floats) -> float:
        """Return it with each row counted so many times: weights (rows,)."""
        weights = weights[self._order]
        taken = np.cumsum(weights)[self._last_of_tie]
        hits = np.cumsum(weights * self._happened)[self._last_of_tie]
        if not len(hits) or not hits[-1]:
            return 0.0
        return float(np.sum(np.diff(hits, prepend=0) * hits / np.maximum(taken, 1)) / hits[-1])
