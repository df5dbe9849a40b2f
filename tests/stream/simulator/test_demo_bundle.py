"""The demo's bundle: small, servable, and of real help to the simulated shoppers, none of whom it was trained on."""

import dataclasses

import numpy as np
import pytest

from clickscore.model.packaged_bundle import DEMO_FOLDER as BUNDLE
from clickscore.schemas.events import ACTIONS, View
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.request import Request
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.simulator.demo import SEED
from clickscore.stream.simulator.shop.history import History, generate
from clickscore.stream.simulator.shop.shoppers import (
    MOVES,
    NO_ITEM,
    VIEW,
    click_probabilities,
    expected_clicks,
    make_shop,
)

pytestmark = pytest.mark.slow

K = 10
CODES = {move: ACTIONS.index(name) for move, name in enumerate(MOVES) if name in ACTIONS}


@pytest.fixture(scope="module")
def history() -> History:
    """Visits to the demo's shop that the training did not see: the same items and shoppers, other draws."""
    return generate(dataclasses.replace(make_shop(SEED), seed=1_000), 4_000)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(load_bundle(BUNDLE))


@pytest.fixture(scope="module")
def answers(history, scorer):
    """The model's answer to each event of the visits."""
    names = [item.item_id for item in history.shop.assortment.items]
    requests = []
    for at in range(len(history)):
        first = at - int(history.number[at])
        rows, moves = history.item[first : at + 1].tolist(), history.move[first : at + 1].tolist()
        requests.append(
            Request(
                decision_id=f"t-0-{at}",
                event=View(event_id="e", user_id="u", ts=0, item_id="i"),
                session_id="s",
                session_length=len(rows),
                items=["" if row == NO_ITEM else names[row] for row in rows],
                actions=bytes(CODES[move] for move in moves),
                bought=frozenset(),
                variant=MODEL,
                late=False,
                popular=[],
            )
        )
    return scorer.score(requests)


@pytest.fixture(scope="module")
def click_rate(history):
    """Return the true click rate of a recommendation for each event: no draw, so nothing to be lucky with."""
    rows = {item.item_id: row for row, item in enumerate(history.shop.assortment.items)}

    def measure(recommended) -> float:
        rates, on_screen = [], NO_ITEM
        for at, items in enumerate(recommended):
            on_screen = int(history.item[at]) if history.move[at] == VIEW else on_screen
            style, need, intent, _, _ = history.states[at].tolist()
            shown = np.array([rows[item] for item in items[:K]])
            rates.append(expected_clicks(click_probabilities(shown, need, style, intent, on_screen)))
        return float(np.mean(rates))

    return measure


def test_bundle_is_good_and_small():
    assert check_bundle(BUNDLE) == []
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 3_000_000


def test_bundle_knows_the_items_of_the_demo(scorer, history):
    known = set(load_bundle(BUNDLE).items)
    assert known <= {item.item_id for item in history.shop.assortment.items}
    assert len(known) > 1_900


def test_model_earns_more_clicks_than_popularity(history, answers, scorer, click_rate):
    model = click_rate([[item for item, _ in answer.candidates()] for answer in answers])
    popular = click_rate([scorer.popular] * len(history))
    assert model > 2 * popular


def test_purchase_probability_follows_the_true_one(history, answers):
    chain = history.shop.chain
    style, need, intent, stage, fit = history.states.T
    truth = chain.purchase[intent, style, stage, need, fit]
    stated = np.array([answer.purchase for answer in answers])
    assert np.corrcoef(truth, stated)[0, 1] > 0.5
