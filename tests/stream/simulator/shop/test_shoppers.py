"""The truth of the synthetic shop is what its shoppers do."""

import numpy as np
import pytest

from clickscore.schemas.manifest import NEXT_ACTIONS
from clickscore.stream.simulator.shop.shoppers import (
    LEAVE,
    MOVES,
    PURCHASE,
    REMOVE,
    SEARCH,
    Shop,
    click_probabilities,
    expected_clicks,
    fit_of,
    make_shop,
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop(7, shoppers=500)


def walk(shop: Shop, visits: int, seed: int):
    """Return the truth at arrival and whether a purchase followed; and each first next action with its truth."""
    rng = np.random.default_rng(seed)
    at_arrival = shop.chain.arrive(shop.population, rng.choice(500, visits, p=shop.population.activity), rng)
    stated = shop.chain.purchase_truth(at_arrival)
    bought = np.zeros(visits, bool)
    here, now = np.arange(visits), at_arrival
    while len(here):
        moves, _ = shop.chain.step(now, rng)
        bought[here[moves == PURCHASE]] = True
        stay = np.flatnonzero(moves != LEAVE)
        here, now = here[stay], now.take(stay)
    return stated, bought


def test_probabilities_of_every_state_sum_to_one(shop):
    assert shop.chain.moves.min() >= 0
    np.testing.assert_allclose(shop.chain.moves.sum(axis=-1), 1.0)
    np.testing.assert_allclose(shop.chain.next_actions.sum(axis=-1), 1.0)


def test_purchases_happen_as_often_as_the_truth_says(shop):
    stated, bought = walk(shop, 20_000, seed=1)
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1.0)):
        which = (stated >= low) & (stated < high)
        expected = stated[which].mean()
        error = np.sqrt(expected * (1 - expected) / which.sum())
        assert abs(bought[which].mean() - expected) < 4 * error


def test_next_action_happens_as_often_as_the_truth_says(shop):
    rng = np.random.default_rng(2)
    visits = shop.chain.arrive(shop.population, np.zeros(20_000, np.int64), rng)
    visits.stage[:] = 1
    visits.carted = visits.item.copy()
    expected = shop.chain.next_actions[visits.intent, visits.stage, visits.fit].mean(axis=0)
    counts = np.zeros(len(NEXT_ACTIONS))
    while len(visits):
        moves, _ = shop.chain.step(visits, rng)
        for column, action in enumerate(NEXT_ACTIONS):
            counts[column] += (moves == MOVES.index(action)).sum()
        visits = visits.take(np.flatnonzero(np.isin(moves, (SEARCH, REMOVE))))
    error = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(counts / 20_000 - expected) < 4 * error).all()


def test_item_in_the_own_style_and_of_the_needed_category_fits_in_both(shop):
    assert fit_of(np.array([0, 16, 80, 96]), np.int64(0), np.int64(0)).tolist() == [3, 2, 1, 0]


def test_popularity_is_skewed(shop):
    assert np.sort(shop.assortment.weights)[-200:].sum() > 0.6  # a tenth of the items, most of the interest


def test_better_fit_is_clicked_more_often():
    clicks = click_probabilities(np.array([96, 80, 16, 1]), 0, 0, 0, on_screen=0)
    assert (np.diff(clicks) > 0).all()


def test_item_on_the_screen_is_not_clicked_again():
    assert click_probabilities(np.array([5]), 0, 0, 0, on_screen=5).tolist() == [0.0]


def test_recommendation_earns_more_when_its_best_item_stands_first():
    assert expected_clicks(np.array([0.3, 0.0])) > expected_clicks(np.array([0.0, 0.3]))
