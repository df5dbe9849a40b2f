"""Pins: put items into fixed places of a list."""

from collections.abc import Sequence

from clickscore.schemas.decisions import Choice
from clickscore.stream.policy.filters import forbidden_items
from clickscore.stream.policy.policy_file import Pin
from clickscore.stream.policy.rules import Filter, Reranker
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request

PINNED = "pinned"
"""The `reason` stated with an item that a policy puts into a fixed place."""


def make_pins(pins: Sequence[Pin], filters: Sequence[Filter], k: int) -> tuple[Reranker, ...]:
    """Return the rule that puts items into fixed places, for a list that passed all other rules.

    A pinned item passes the filters, and no cap. The other items move back, and the last ones fall out.

    Args:
        pins: Pins of the policy.
        filters: Filters of the policy.
        k: Number of items in a list.
    """
    if not pins:
        return ()

    def rerank(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
        forbidden = forbidden_items(filters, request, catalogue)
        pinned = {
            pin.place: Choice(item_id=pin.item, score=0.0, propensity=1.0, reason=PINNED)
            for pin in pins
            if not any(pin.item in items for _, items in forbidden)
        }
        items = {choice.item_id for choice in pinned.values()}
        others = (choice for choice in slate if choice.item_id not in items)
        places = (pinned.get(place) or next(others, None) for place in range(1, k + 1))
        return [choice for choice in places if choice is not None]

    return (Reranker("pin", "the policy puts some items into fixed places", rerank),)
