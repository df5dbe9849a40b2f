"""Catalogue metrics: coverage, popularity bias and novelty of an arm's recommendations (beyond-accuracy metrics)."""

from collections.abc import Mapping

import numpy as np


def coverage(recommended: Mapping[str, int], items: int) -> float:
    """Return the share of the items with at least one recommendation: catalogue coverage.

    Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys 2010, section 3.

    Args:
        recommended: Number of recommendations of each item.
        items: Number of items in the catalogue.
    """
    return len(recommended) / items if items else 0.0


def popularity(recommended: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return the mean popularity of a recommendation, where an item's popularity is its share of all events: 0 to 1.

    The average recommendation popularity of Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation",
    VLDB 2012, averaged over recommendations instead of users, with shares instead of counts.

    Args:
        recommended: Number of recommendations of each item.
        events: Number of events on each item.
    """
    slots, total = sum(recommended.values()), sum(events.values())
    return sum(count * events.get(item, 0) for item, count in recommended.items()) / (slots * total) if slots else 0.0


def popularity_bias(recommended: Mapping[str, int], next_items: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return popularity(recommended) / popularity(next items): above 1, an arm prefers bestsellers.

    After the popularity lift of Abdollahpouri, Mansoury, Burke and Mobasher, "The connection between popularity bias,
    calibration, and fairness in recommendation", RecSys 2020, as a ratio over all users.

    Args:
        recommended: Number of recommendations of each item.
        next_items: Count of each item as the next item.
        events: Number of events on each item.
    """
    baseline = popularity(next_items, events)
    return popularity(recommended, events) / baseline if baseline else 0.0


def novelty(recommended: Mapping[str, int], events: Mapping[str, int]) -> float:
    """Return the mean self-information -log2(share of events) of a recommendation, bits: higher is rarer.

    Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, "Solving the apparent diversity-accuracy dilemma of recommender
    systems", PNAS 107 (2010). Each item gets one more event (add-one smoothing), so that no share is 0.

    Args:
        recommended: Number of recommendations of each item.
        events: Number of events on each item.
    """
    slots = sum(recommended.values())
    if not slots:
        return 0.0
    total = sum(events.values()) + len(events.keys() | recommended.keys())
    counts = np.array(list(recommended.values()), dtype=np.float64)
    shares = np.array([(events.get(item, 0) + 1) / total for item in recommended])
    return float(np.sum(counts * -np.log2(shares)) / slots)
