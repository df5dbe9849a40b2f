"""Goals: re-rank a slate by the expected value of each item, in money.

The value of an item is

    share * (click * P(click) + cart * P(cart) + P(purchase) * price * (order + margin * margin of the item))

`share` is of the item: the relevance, proportional to the probability of the item as the next item of the session. The
three probabilities are of the session: the model's heads predict the next action of the user, with any item. So they
decide how much money counts beside relevance: much for a user who is about to buy, little for a user who looks around.
The value as a sum of actions, each in money, follows Pei et al., Value-aware Recommendation based on
Reinforced Profit Maximization, WWW 2019.
"""

from statistics import median

from clickscore.stream.policy.goal_policy import Goals, GoalWeights
from clickscore.stream.policy.policy_file import Boost
from clickscore.stream.policy.relevance import boost_factor, relevances
from clickscore.stream.policy.rules import Rerank, ScoredReranker
from clickscore.stream.policy.session_probabilities import cart_probability, click_probability, purchase_probability
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores


def order_values(weights: GoalWeights, slate: Slate, catalogue: AnyCatalogue) -> list[float]:
    """Return the worth of an order of each item: (choices,).

    An item without a price, or without a margin where margins count, is worth as much as the median of the other items.

    Args:
        weights: Goals of the policy.
        slate: The items.
        catalogue: Prices and margins of the items.
    """
    values: list[float | None] = []
    for choice in slate:
        details = catalogue.details_of(choice.item_id)
        price, margin = details.price, details.margin if weights.margin else 0.0
        if price is None or margin is None:
            values.append(None)
        else:
            values.append(price * (weights.order + weights.margin * margin))
    known_values = [value for value in values if value is not None]
    middle = median(known_values) if known_values else 0.0
    return [middle if value is None else value for value in values]


def item_values(weights: GoalWeights, slate: Slate, scores: Scores | None, catalogue: AnyCatalogue) -> list[float]:
    """Return the expected value of showing each item, up to a common factor: (choices,).

    An item with costs above the return has the value 0.

    Args:
        weights: Goals of the policy.
        slate: The items, in order of relevance.
        scores: The model's output; absent where no model scores the request.
        catalogue: Prices and margins of the items.
    """
    actions = weights.click * click_probability(scores) + weights.cart * cart_probability(scores)
    purchase = purchase_probability(scores)
    return [
        relevance * max(0.0, actions + purchase * value)
        for relevance, value in zip(relevances(slate), order_values(weights, slate, catalogue), strict=True)
    ]


def rank_by_goals(goals: Goals, boost: Boost | None) -> ScoredReranker:
    """Return the rule to order items by expected value; items of equal value keep their order.

    Boosts multiply the value, as they multiply relevance in a policy without goals.

    Args:
        goals: Goals of the policy.
        boost: Boosts of the policy; None for a policy without boosts.
    """

    def bind(scores: Scores | None) -> Rerank:
        def rerank(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
            ts, weights = request.event.ts, goals.weights(request.variant)
            values = item_values(weights, slate, scores, catalogue)
            if boost is not None:
                values = [
                    value * boost_factor(boost, choice.item_id, ts, catalogue)
                    for choice, value in zip(slate, values, strict=True)
                ]
            return [slate[row] for row in sorted(range(len(slate)), key=values.__getitem__, reverse=True)]

        return rerank

    return ScoredReranker("goals", "the goals of the policy make it worth more or less than others", bind)
