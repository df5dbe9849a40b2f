"""Comparison with baselines: ranks counted by hand, and the sentence for each outcome."""

import numpy as np
import pytest

from clickscore.model.evaluation.comparison import (
    describe_comparison,
    estimate_share,
    measure_baselines,
    rank_next_items,
)
from clickscore.model.evaluation.ranking_baselines import CooccurrenceBaseline, PopularityBaseline
from clickscore.model.examples import UNKNOWN_NEXT_ITEM, Examples


def examples(*sessions: list[int], unknown_end: bool = False) -> Examples:
    """Return sessions of views of these rows; the next item after the last is absent, or unknown."""
    items = np.concatenate([np.array(session, dtype=np.int32) for session in sessions])
    end = UNKNOWN_NEXT_ITEM if unknown_end else 0
    next_item = np.concatenate([np.array([*session[1:], end], dtype=np.int32) for session in sessions])
    zeros = np.zeros(len(items), dtype=np.int8)
    starts = np.cumsum([0, *map(len, sessions)])
    return Examples(items, zeros, next_item, zeros, zeros, starts)


TRAINING = examples([1, 2], [1, 2], [1, 3], [1, 1])


def test_rank_counts_items_of_an_equal_score_first() -> None:
    popularity = PopularityBaseline(TRAINING, 5)  # counts of rows 1 to 4: 5, 2, 1, 0
    assert rank_next_items(popularity, examples([2, 1], [1, 3])).tolist() == [1, 3]
    cooccurrence = CooccurrenceBaseline(TRAINING, 5)  # after 1 comes 2 twice, 1 and 3 once
    assert rank_next_items(cooccurrence, examples([1, 2], [1, 3])).tolist() == [1, 3]


def test_item_without_a_score_and_unknown_item_are_misses() -> None:
    popularity = PopularityBaseline(TRAINING, 5)
    assert rank_next_items(popularity, examples([1, 4])).tolist() == [0]
    assert rank_next_items(popularity, examples([1], unknown_end=True)).tolist() == [0]


def test_baselines_are_counted_on_the_training_sessions() -> None:
    assert measure_baselines(TRAINING, examples([1, 2], [3, 1]), 5) == {"popularity": 1.0, "co-occurrence": 0.5}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_few_rows_of_one_outcome_prove_nothing(share: float) -> None:
    interval = estimate_share(share, 3)
    assert interval.high - interval.low > 0.5
    assert 0 <= interval.low <= share <= interval.high <= 1
    _, outcome = describe_comparison(interval, {"popularity": 0.5}, 3)
    assert outcome == "These next items are too few to tell the model from popularity."


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.30, "The model ranks better than co-occurrence, the best of these."),
        (0.10, "The model ranks worse than co-occurrence: train on more sessions"),
        (0.20, "These next items are too few to tell the model from co-occurrence."),
    ],
)
def test_sentence_of_each_outcome(share: float, words: str) -> None:
    figures, outcome = describe_comparison(
        estimate_share(share, 1_000), {"popularity": 0.05, "co-occurrence": 0.2}, 1_000
    )
    assert figures.startswith(f"Of 1,000 next items, the model has {100 * share:.1f} % among its first 20 (95 %: ")
    assert figures.endswith("for comparison: popularity 5.0 %, co-occurrence 20.0 %.")
    assert outcome.startswith(words)
