import numpy as np
import pytest

from clickscore.model.config import ModelConfig
from clickscore.model.examples import NO_NEXT_ITEM, Examples
from clickscore.model.neighbour_factor import FACTORS, choose_factor
from clickscore.model.predict import compute_metrics, predict_sessions, rank_with_factors
from clickscore.model.session_neighbours import IndexedSessions, index_sessions, open_index
from tests.model.networks import network

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=16, ffn=16, max_length=8)
ITEMS = 300


def visits(count: int, seed: int, step: int) -> Examples:
    """Return sessions of four items, each `step` rows after the one before."""
    first = np.random.default_rng(seed).integers(0, ITEMS, count)
    items = 1 + (first[:, None] + step * np.arange(4)) % ITEMS
    next_items = np.concatenate((items[:, 1:], np.full((count, 1), NO_NEXT_ITEM)), axis=1)
    none = np.zeros(4 * count, dtype=np.int64)
    return Examples(items.ravel(), none + 1, next_items.ravel(), none, none, np.arange(count + 1) * 4)


def test_bonuses_that_find_more_next_items_are_chosen():
    model, table = network(CONFIG, ITEMS)
    factor, gain = choose_factor(model, table, visits(400, 0, step=7), visits(60, 1, step=7))
    assert factor in FACTORS[1:]
    assert 0.1 < gain < 1


def test_bonuses_that_find_nothing_are_left_out():
    model, table = network(CONFIG, ITEMS)
    assert choose_factor(model, table, visits(400, 0, step=7), visits(60, 1, step=91)) == (0.0, 0.0)


def test_metrics_with_an_index_are_those_of_its_factor():
    model, table = network(CONFIG, ITEMS)
    sessions, items = visits(60, 1, step=7), index_sessions(visits(400, 0, step=7))
    ranks = rank_with_factors(
        model, table, sessions, open_index(IndexedSessions(items, 1.0), ITEMS + 1), np.array([0.0, 4.0])
    )
    usual, helped = (
        predict_sessions(model, table, sessions, neighbours)
        for neighbours in (None, open_index(IndexedSessions(items, 4.0), ITEMS + 1))
    )
    assert ranks.tolist() == [usual.ranks.tolist(), helped.ranks.tolist()]
    assert compute_metrics(helped, sessions)["hit_rate@20"] > compute_metrics(usual, sessions)["hit_rate@20"]
