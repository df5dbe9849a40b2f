"""Purchase truth: the probability of a purchase after a click in the simulated shop."""

import numpy as np

from clickscore.stream.simulator.shop.assortment import CATEGORIES, CELL, STYLES, Floats
from clickscore.stream.simulator.shop.shoppers import (
    CARTED,
    FITS,
    INTENTS,
    LEAVE,
    LOOKING,
    NO_ITEM,
    PURCHASE,
    STAGES,
    Chain,
    Visits,
)

VISITS = 4_000
"""Simulated visits of each state: a probability of 5 % is known to 0.3 points."""
MAX_STEPS = 300
"""Actions of a visit, at most: a tenth of all actions end a visit."""


def purchase_probabilities(chain: Chain) -> Floats:
    """Return the probability of a purchase of a clicked item in the same visit: (intents, stages, fits).

    The visits go on as the shop's chain moves, with full stock and no further recommendation.
    """
    rng = np.random.default_rng(11)
    shape = len(INTENTS), len(STAGES), len(FITS)
    states = np.indices(shape).reshape(3, -1).repeat(VISITS, axis=1)  # (3, visits)
    intent, stage, fit = states
    count = len(intent)
    need, style = rng.integers(0, len(CATEGORIES), count), rng.integers(0, len(STYLES), count)
    # The fit has two bits: the category is the needed one, and the style is the shopper's.
    category = np.where(fit >= 2, need, (need + rng.integers(1, len(CATEGORIES), count)) % len(CATEGORIES))
    item_style = np.where(fit % 2 == 1, style, (style + rng.integers(1, len(STYLES), count)) % len(STYLES))
    items = (category * len(STYLES) + item_style) * CELL + rng.integers(0, CELL, count)
    other_items = rng.integers(0, len(CATEGORIES) * len(STYLES) * CELL, count)
    visits = Visits(
        style=style,
        need=need,
        intent=intent.copy(),
        stage=np.where(stage == CARTED, CARTED, LOOKING),
        fit=fit.copy(),
        item=np.full(count, NO_ITEM),
        carted=np.where(stage == CARTED, other_items, NO_ITEM),
    )
    chain.open_clicked(visits, items)
    bought = np.zeros(count, np.bool_)
    open_rows = np.arange(count)
    for _ in range(MAX_STEPS):
        walking = visits.take(open_rows)
        moves, rows = chain.step(walking, rng)
        visits.put(open_rows, walking)
        bought[open_rows[(moves == PURCHASE) & (rows == items[open_rows])]] = True
        open_rows = open_rows[moves != LEAVE]
        if not len(open_rows):
            break
    return bought.reshape(*shape, VISITS).mean(axis=-1)
