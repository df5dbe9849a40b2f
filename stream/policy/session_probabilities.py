"""Session probabilities: outputs of the model's heads for a session, with values where a head is missing."""

from clickscore.stream.request import Scores

UNKNOWN_PURCHASE = 0.03
"""Probability of a purchase in a session without a prediction: shops report 2 to 4 %."""


def click_probability(scores: Scores | None) -> float:
    """Return the probability of a view or click as the next action; 1 without a prediction."""
    actions = scores.actions if scores is not None else None
    return 1.0 if actions is None else actions.get("view", 0.0) + actions.get("click", 0.0)


def cart_probability(scores: Scores | None) -> float:
    """Return the probability of an item put into the cart as the next action; 0 without a prediction."""
    actions = scores.actions if scores is not None else None
    return 0.0 if actions is None else actions.get("cart", 0.0)


def purchase_probability(scores: Scores | None) -> float:
    """Return the probability of a purchase in the rest of the session."""
    purchase = scores.purchase if scores is not None else None
    return UNKNOWN_PURCHASE if purchase is None else purchase
