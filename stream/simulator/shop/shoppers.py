"""Shoppers: a Markov chain of hidden states, so that each next action and each purchase has a true probability.

Five values describe a visit: the style (a taste that never changes), the need (a category; the next category follows
when an item is put into the cart), the intent (browse, compare, buy), the stage (looking, or with an item in the cart)
and the fit of the item on screen. The next action depends on these values alone, so the true probabilities are the
solution of a small linear system, and not an estimate.
"""

import dataclasses

import numpy as np

from clickscore.schemas.manifest import NEXT_ACTIONS
from clickscore.stream.simulator.shop.assortment import (
    CATEGORIES,
    CELL,
    STYLES,
    Assortment,
    Floats,
    Ints,
    category_of,
    make_assortment,
    style_of,
)

INTENTS: tuple[str, ...] = ("browse", "compare", "buy")
INTENT_SHARES = np.array([0.65, 0.25, 0.10])
LOOKING, CARTED = 0, 1
STAGES: tuple[str, ...] = ("looking", "carted")

FITS: tuple[str, ...] = ("neither", "style", "category", "both")
"""How well an item fits: in style (the shopper's taste), in category (the need), in both, or in neither."""

MOVES: tuple[str, ...] = ("view", "cart", "favourite", "purchase", "search", "remove_from_cart", "leave")
VIEW, CART, FAVOURITE, PURCHASE, SEARCH, REMOVE, LEAVE = range(len(MOVES))

NO_ITEM = -1
"""Row that stands for no item."""

# Probabilities by intent: browse, compare, buy.
_CART = np.array([0.03, 0.10, 0.35])  # at a perfect fit, times _CART_FIT
_CART_FIT = np.array([0.06, 0.22, 0.40, 1.0])
_FAVOURITE = np.array([0.03, 0.06, 0.02])  # times _CART_FIT too
_SEARCH = np.array([0.05, 0.08, 0.08])
_LEAVE = np.array([0.14, 0.10, 0.08])
_CHECKOUT = np.array([0.06, 0.12, 0.30])
_REMOVE = np.array([0.06, 0.08, 0.03])
_CARTED_LEAVE = np.array([0.12, 0.10, 0.05])

# Ways to find an item, by intent: the needed category in the own style, the needed category in any style,
# any category in the own style, any item. Popular items are found more often.
_PATHS = np.array([[0.38, 0.17, 0.25, 0.20], [0.50, 0.25, 0.15, 0.10], [0.60, 0.25, 0.05, 0.10]])

# Recommendations: probabilities of a look, of reading on, and of a click.
LOOK = 0.4
"""Probability that a shopper looks at the recommendations of a page."""
FURTHER = 0.6
"""Probability that a shopper looks at the next position after a position without a click."""
_CLICK_FIT = np.array([0.01, 0.05, 0.09, 0.28])
_CLICK_INTENT = np.array([1.0, 1.1, 0.9])
AD_FACTOR = 0.5
"""Factor on the click probability of an ad: half of a recommendation's."""


@dataclasses.dataclass(frozen=True)
class Population:
    """Shoppers by number, with everything that stays the same from visit to visit."""

    style: Ints
    needs: Ints
    """Categories at which a visit may start.  # (shoppers, 3)."""
    activity: Floats
    """Share of all visits by each shopper; the sum is 1."""


@dataclasses.dataclass
class Visits:
    """Hidden states of visits, as arrays with one entry a visit."""

    style: Ints
    need: Ints
    intent: Ints
    stage: Ints
    fit: Ints
    """Fit of the item on screen at the time of its opening."""
    item: Ints
    """Row of the item on screen."""
    carted: Ints
    """Row of the newest item in the cart."""

    def __len__(self) -> int:
        return len(self.style)

    def take(self, rows: Ints) -> "Visits":
        """Return a copy of the visits in these rows."""
        return Visits(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: Ints, visits: "Visits") -> None:
        """Overwrite the visits in these rows with `visits`."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(visits, field.name)


def user_id(shopper: int) -> str:
    """Return the user id of a shopper."""
    return f"shopper-{shopper:05d}"


def make_population(seed: int, shoppers: int) -> Population:
    """Return the shoppers of a seed."""
    rng = np.random.default_rng([seed, 2])
    activity = np.exp(rng.normal(0.0, 1.0, shoppers))
    return Population(
        style=rng.integers(0, len(STYLES), shoppers),
        needs=rng.integers(0, len(CATEGORIES), (shoppers, 3)),
        activity=activity / activity.sum(),
    )


class Chain:
    """Transition probabilities of all hidden states, for one assortment."""

    def __init__(self, assortment: Assortment) -> None:
        masses = assortment.masses
        self.moves = _move_probabilities()  # (intents, stages, fits, moves)
        self._moves_up_to = np.cumsum(self.moves, axis=-1)
        self._paths_up_to = np.cumsum(_PATHS, axis=-1)
        self._style_given_category = np.cumsum(masses / masses.sum(axis=1, keepdims=True), axis=1)
        self._category_given_style = np.cumsum(masses / masses.sum(axis=0, keepdims=True), axis=0).T
        self._cell = np.cumsum(masses.ravel())
        weights = assortment.weights.reshape(-1, CELL)
        self._item_given_cell = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        self.next_actions = _next_of_five(self.moves)  # (intents, stages, fits, next actions)
        self.purchase = _purchase_probabilities(self.moves, masses)  # (intents, styles, stages, needs, fits)

    def arrive(self, population: Population, shoppers: Ints, rng: np.random.Generator) -> Visits:
        """Return new visits, each with its first item on screen.

        Args:
            population: All shoppers.
            shoppers: Shopper of each visit.
            rng: Source of randomness.
        """
        count = len(shoppers)
        visits = Visits(
            style=population.style[shoppers],
            need=population.needs[shoppers, rng.integers(0, population.needs.shape[1], count)],
            intent=rng.choice(len(INTENTS), count, p=INTENT_SHARES),
            stage=np.full(count, LOOKING),
            fit=np.zeros(count, np.int64),
            item=np.full(count, NO_ITEM),
            carted=np.full(count, NO_ITEM),
        )
        self._open_items(visits, np.arange(count), rng)
        return visits

    def step(self, visits: Visits, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Move each visit by one action, in place. Return the moves and the rows of the affected items."""
        up_to = self._moves_up_to[visits.intent, visits.stage, visits.fit]
        moves = _draw(up_to, rng)
        self._open_items(visits, np.flatnonzero(moves == VIEW), rng)
        about = np.where(np.isin(moves, (PURCHASE, REMOVE)), visits.carted, visits.item)
        about[np.isin(moves, (SEARCH, LEAVE))] = NO_ITEM
        cart = moves == CART
        visits.carted[cart] = visits.item[cart]
        visits.need[cart] = (visits.need[cart] + 1) % len(CATEGORIES)
        visits.stage[cart] = CARTED
        emptied = np.isin(moves, (PURCHASE, REMOVE))
        visits.stage[emptied] = LOOKING
        visits.carted[emptied] = NO_ITEM
        visits.intent[moves == PURCHASE] = 0  # the errand is done; a shopper who stays browses
        return moves, about

    def open_clicked(self, visits: Visits, items: Ints) -> None:
        """Open the clicked item of each visit, in place."""
        visits.item = items
        visits.fit = fit_of(items, visits.need, visits.style)

    def purchase_truth(self, visits: Visits) -> Floats:
        """Return the probability of a purchase in the rest of each visit, if no recommendation is clicked."""
        return self.purchase[visits.intent, visits.style, visits.stage, visits.need, visits.fit]

    def _open_items(self, visits: Visits, rows: Ints, rng: np.random.Generator) -> None:
        path = _draw(self._paths_up_to[visits.intent[rows]], rng)
        category, style = visits.need[rows], visits.style[rows]
        any_style = _draw(self._style_given_category[category], rng)
        any_category = _draw(self._category_given_style[style], rng)
        anything = np.searchsorted(self._cell, rng.random(len(rows)) * self._cell[-1], side="right")
        category = np.choose(path, [category, category, any_category, anything // len(STYLES)])
        style = np.choose(path, [style, any_style, style, anything % len(STYLES)])
        cell = category * len(STYLES) + style
        items = cell * CELL + _draw(self._item_given_cell[cell], rng)
        visits.item[rows] = items
        visits.fit[rows] = fit_of(items, visits.need[rows], visits.style[rows])


@dataclasses.dataclass(frozen=True)
class Shop:
    """A complete shop: assortment, shoppers, and transition probabilities."""

    seed: int
    assortment: Assortment
    population: Population
    chain: Chain


def make_shop(seed: int, shoppers: int = 5_000) -> Shop:
    """Return the shop of a seed."""
    assortment = make_assortment(seed)
    return Shop(seed, assortment, make_population(seed, shoppers), Chain(assortment))


def fit_of(items: Ints, need: Ints, style: Ints) -> Ints:
    """Return how well items fit, as codes of `FITS`.

    Args:
        items: Rows of the items.
        need: Needed category of each item's shopper.
        style: Style of each item's shopper.
    """
    return 2 * (category_of(items) == need) + (style_of(items) == style)


def click_probabilities(items: Ints, need: int, style: int, intent: int, on_screen: int) -> Floats:
    """Return the true probability of a click on each recommended item, given that the shopper looks at the item.

    Args:
        items: Rows of the items.
        need: Needed category.
        style: Style of the shopper.
        intent: Intent of the shopper.
        on_screen: Row of the item on screen, which is never clicked again.
    """
    fit = fit_of(items, np.int64(need) + np.zeros_like(items), np.int64(style) + np.zeros_like(items))
    return np.where(items == on_screen, 0.0, _CLICK_FIT[fit] * _CLICK_INTENT[intent])


def expected_clicks(click: Floats) -> float:
    """Return the probability of a click on a list, from the click probability of each position."""
    reached = LOOK * np.cumprod(np.concatenate(([1.0], (1.0 - click[:-1]) * FURTHER)))
    return float((reached * click).sum())


def _draw(up_to: Floats, rng: np.random.Generator) -> Ints:
    """Return one column index a row, drawn from the row's cumulative probabilities."""
    # The last column is 1 except for rounding. Scaling by it keeps every draw inside the table.
    return (rng.random((len(up_to), 1)) * up_to[:, -1:] >= up_to[:, :-1]).sum(axis=1)


def _move_probabilities() -> Floats:
    """Return the probability of each move.  # (intents, stages, fits, moves)."""
    table = np.zeros((len(INTENTS), len(STAGES), len(FITS), len(MOVES)))
    table[:, LOOKING, :, CART] = np.outer(_CART, _CART_FIT)
    table[:, CARTED, :, CART] = np.outer(_CART, _CART_FIT) / 2
    table[:, :, :, FAVOURITE] = np.outer(_FAVOURITE, _CART_FIT)[:, None]
    table[:, LOOKING, :, LEAVE] = _LEAVE[:, None]
    table[:, CARTED, :, LEAVE] = _CARTED_LEAVE[:, None]
    table[:, LOOKING, :, SEARCH] = _SEARCH[:, None]
    table[:, CARTED, :, SEARCH] = _SEARCH[:, None] / 2
    table[:, CARTED, :, PURCHASE] = _CHECKOUT[:, None]
    table[:, CARTED, :, REMOVE] = _REMOVE[:, None]
    table[..., VIEW] = 1.0 - table.sum(axis=-1)
    return table


def _next_of_five(moves: Floats) -> Floats:
    """Return the probability of each next action, with searches and removals skipped.

    A search keeps the state. A removal leads back to the stage `looking`, with the same item on screen.
    """
    columns = [MOVES.index(action) for action in NEXT_ACTIONS]
    probabilities = moves[..., columns] / (1.0 - moves[..., SEARCH, None])
    removed = moves[:, CARTED, :, REMOVE, None] / (1.0 - moves[:, CARTED, :, SEARCH, None])
    probabilities[:, CARTED] += removed * probabilities[:, LOOKING]
    return probabilities


def _purchase_probabilities(moves: Floats, masses: Floats) -> Floats:
    """Return the probability of a purchase before leaving.  # (intents, styles, stages, needs, fits).

    The probability h solves h = p + T h. T holds the transitions that neither buy nor leave; p is the probability
    of an immediate purchase.
    """
    categories, styles = masses.shape
    states = (len(STAGES), categories, len(FITS))
    needs = np.arange(categories)
    result = np.empty((len(INTENTS), styles, *states))
    for intent in range(len(INTENTS)):
        for style in range(styles):
            arrive_at = _fit_shares(masses, style, _PATHS[intent])  # (needs, fits)
            move = moves[intent]  # (stages, fits, moves)
            step = np.zeros((*states, *states))
            for stage in (LOOKING, CARTED):
                for fit in range(len(FITS)):
                    go = move[stage, fit]
                    step[stage, needs, fit, stage, needs] += go[VIEW] * arrive_at
                    step[stage, needs, fit, stage, needs, fit] += go[FAVOURITE] + go[SEARCH]
                    step[stage, needs, fit, CARTED, (needs + 1) % categories, fit] += go[CART]
                    step[stage, needs, fit, LOOKING, needs, fit] += go[REMOVE]
            size = int(np.prod(states))
            buy = np.broadcast_to(move[:, None, :, PURCHASE], states).ravel()
            result[intent, style] = np.linalg.solve(np.eye(size) - step.reshape(size, size), buy).reshape(states)
    return result


def _fit_shares(masses: Floats, style: int, paths: Floats) -> Floats:
    """Return the distribution of the next opened item's fit.  # (needs, fits).

    Args:
        masses: Popularity of each category and style.  # (categories, styles).
        style: Style of the shopper.
        paths: Probability of each way to find an item, see `_PATHS`.
    """
    categories = len(masses)
    style_here = masses[:, style] / masses.sum(axis=1)
    category_here = masses[:, style] / masses[:, style].sum()
    style_masses = masses[:, style]
    shares = np.zeros((categories, len(FITS)))
    shares[:, 3] = paths[0] + paths[1] * style_here + paths[2] * category_here + paths[3] * style_masses
    shares[:, 2] = paths[1] * (1 - style_here) + paths[3] * (masses.sum(axis=1) - style_masses)
    shares[:, 1] = paths[2] * (1 - category_here) + paths[3] * (masses[:, style].sum() - style_masses)
    shares[:, 0] = paths[3] * (1 - masses.sum(axis=1) - masses[:, style].sum() + style_masses)
    return shares
