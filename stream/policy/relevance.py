"""Relevance: re-rank a slate by how well its items fit and by what the shop wants to sell.

The relevance of a candidate of the model is exp(score - best score): 1 for the best, and a tenth for an item with a
tenth of the odds, since scores are logits. Other items have no score. Popular items follow the last candidate of the
model, and fall as 1 / rank. An item that is `similar` to an unknown current item is as relevant as the next item of
another origin, so it keeps its place. A boost multiplies relevance, so a factor of 2 counts as much for every item.
"""

import math
from collections.abc import Sequence

from clickscore.schemas.durations import DAY_MS
from clickscore.stream.policy.experiments import CONTROL, MODEL, SIMILAR
from clickscore.stream.policy.policy_file import MAX_FACTOR, Boost
from clickscore.stream.policy.rules import Reranker
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request


def relevances(slate: Slate) -> Sequence[float]:
    """Return the relevance of each choice of a slate, 0 to 1: (choices,)."""
    scores = [choice.score for choice in slate if choice.reason == MODEL]
    best = max(scores, default=0.0)
    values = [math.exp(max(score - best, -700.0)) for score in scores]  # exp(-700) is the smallest usual float
    last = min(values, default=1.0)
    popular = (last / rank for rank in range(1, len(slate) + 1))
    of_model = iter(values)
    others = [next(of_model if choice.reason == MODEL else popular) for choice in slate if choice.reason != SIMILAR]
    following = others[-1] if others else 1.0
    relevance: list[float] = []
    for choice in reversed(slate):
        if choice.reason != SIMILAR:
            following = others.pop()
        relevance.append(following)
    return relevance[::-1]


def drop_irrelevant(limit: float) -> Reranker:
    """Return the rule that drops weak candidates; popular items do not take their places.

    Args:
        limit: Lowest relevance of a shown candidate of the model or similar item, 0 to 1.
    """

    def rerank(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
        del request, catalogue
        if all(choice.reason != MODEL for choice in slate):
            return slate  # the model has no answer, so popular items are all there is
        pairs = zip(slate, relevances(slate), strict=True)
        return [choice for choice, relevance in pairs if choice.reason != CONTROL and relevance >= limit]

    return Reranker("relevance", f"it has less than {limit:g} of the best candidate's relevance", rerank)


def boost_factor(boost: Boost, item: str, ts: int, catalogue: AnyCatalogue) -> float:
    """Return the factor on the relevance of an item, 1 / `MAX_FACTOR` to `MAX_FACTOR`.

    Args:
        boost: Boosts of the policy.
        item: The item.
        ts: Time of the event, ms.
        catalogue: What is known of the item.
    """
    factor = boost.items.get(item, 1.0)
    if boost.categories:
        factor *= boost.categories.get(catalogue.category_of(item) or "", 1.0)
    details = catalogue.details_of(item)
    factor *= boost.brands.get(details.brand, 1.0)
    if details.is_promoted:
        factor *= boost.promoted
    if details.margin is not None:
        factor *= boost.margin**details.margin
    if details.listed_at is not None and boost.fresh != 1.0:
        age_days = max(0.0, (ts - details.listed_at) / DAY_MS)
        factor *= boost.fresh ** max(0.0, 1.0 - age_days / boost.fresh_days)
    return min(max(factor, 1 / MAX_FACTOR), MAX_FACTOR)


def boost_items(boost: Boost) -> Reranker:
    """Return the rule that moves items by factors on their relevance; items of equal relevance keep their order."""

    def rerank(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
        ts = request.event.ts
        boosted = [
            -relevance * boost_factor(boost, choice.item_id, ts, catalogue)
            for choice, relevance in zip(slate, relevances(slate), strict=True)
        ]
        return [slate[row] for row in sorted(range(len(slate)), key=boosted.__getitem__)]

    return Reranker("boost", "the policy boosts some items", rerank)
