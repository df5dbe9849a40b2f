"""Comparison: a model's hit rate beside those of popularity and co-occurrence, in sentences."""

import math
from collections.abc import Mapping

import numpy as np

from clickscore.model import metrics
from clickscore.model.array_types import Ints
from clickscore.model.evaluation.bootstrap import BootstrapInterval
from clickscore.model.evaluation.ranking_baselines import CooccurrenceBaseline, PopularityBaseline, RankingBaseline
from clickscore.model.examples import NO_NEXT_ITEM, Examples

CUTOFF = 20
"""Ranking length of the compared hit rate, as in the other metrics of a training."""
NORMAL_QUANTILE = 1.96
"""Standard deviations between the mean and the ends of a 95 % interval of a normal distribution."""


def measure_baselines(training: Examples, held_out: Examples, rows: int) -> dict[str, float]:
    """Return the hit rate of popularity and co-occurrence on held-out sessions, counted on the training sessions.

    Args:
        training: Sessions that the baselines count.
        held_out: Sessions whose next items are ranked.
        rows: Rows of the item table, padding included.
    """
    baselines = PopularityBaseline(training, rows), CooccurrenceBaseline(training, rows)
    return {baseline.name: metrics.hit_rate(rank_next_items(baseline, held_out), CUTOFF) for baseline in baselines}


def rank_next_items(baseline: RankingBaseline, examples: Examples) -> Ints:
    """Return the rank of the next item after each event that another item follows; items of an equal score are first.

    Args:
        baseline: Scores all items after a prefix.
        examples: Sessions and their next items.
    """
    ranks: list[int] = []
    for start, end in zip(examples.starts[:-1].tolist(), examples.starts[1:].tolist(), strict=True):
        for event in range(start, end):
            target = int(examples.next_item[event])
            if target == NO_NEXT_ITEM:
                continue
            scores = baseline.scores(examples.items[start : event + 1])  # (V,)
            is_ranked = target > 0 and scores[target] > 0
            ranks.append(int((scores[1:] >= scores[target]).sum()) if is_ranked else metrics.MISS)
    return np.array(ranks, dtype=np.int64)


def estimate_share(share: float, rows: int) -> BootstrapInterval:
    """Return a share of independent rows with its 95 % interval (Wilson, JASA 1927).

    Unlike a bootstrap, the interval does not shrink to a point after a few rows without a hit.
    """
    penalty = NORMAL_QUANTILE**2 / max(1, rows)
    centre = (share + penalty / 2) / (1 + penalty)
    margin = math.sqrt(share * (1 - share) * penalty + penalty**2 / 4) / (1 + penalty)
    return BootstrapInterval(value=share, low=max(0.0, centre - margin), high=min(1.0, centre + margin))


def describe_comparison(model: BootstrapInterval, baselines: Mapping[str, float], rows: int) -> list[str]:
    """Return how the hit rate of a model compares with the baselines', in sentences.

    Args:
        model: Hit rate at 20 of the model, as a share, with its interval.
        baselines: Hit rate at 20 of each baseline by name.
        rows: Number of ranked next items.
    """
    name, best = max(baselines.items(), key=lambda pair: pair[1])
    others = ", ".join(f"{baseline} {_percent(share)}" for baseline, share in baselines.items())
    sentences = [
        f"Of {rows:,} next items, the model has {_percent(model.value)} among its first {CUTOFF} "
        f"(95 %: {_percent(model.low)} to {_percent(model.high)}); for comparison: {others}."
    ]
    if model.low > best:
        return [*sentences, f"The model ranks better than {name}{', the best of these' * (len(baselines) > 1)}."]
    if model.high < best:
        advice = "train on more sessions, or for more epochs, before you serve it"
        return [*sentences, f"The model ranks worse than {name}: {advice}."]
    return [*sentences, f"These next items are too few to tell the model from {name}."]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
