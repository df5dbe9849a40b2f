"""Session probabilities: what the model's heads expect of a session, with values where no model predicts it."""

from clickscore.stream.request import Scores

UNKNOWN_PURCHASE = 0.03
"""Probability of a purchase in a session where no model predicts it: shops report 2 to 4 %."""


def click_probability(scores: Scores | None) -> float:
    """Return the probability that the next action opens an item; 1 where no model predicts it."""
    actions = scores.actions if scores is not None else None
    return 1.0 if actions is None else actions.get("view", 0.0) + actions.get("click", 0.0)


def cart_probability(scores: Scores | None) -> float:
    """Return the probability that the next action puts an item into the cart; 0 where no model predicts it."""
    actions = scores.actions if scores is not None else None
    return 0.0 if actions is None else actions.get("cart", 0.0)


def purchase_probability(scores: Scores | None) -> float:
    """Return the probability of a purchase in the rest of the session."""
    purchase = scores.purchase if scores is not None else None
    return UNKNOWN_PURCHASE if purchase is None else purchase
