"""Sponsored items: ads within the list of recommended items, always marked.

A sponsored item moves the recommended items behind it back by one place, and the last one falls out. An item that is
both recommended and advertised is shown once, as sponsored.
"""

from collections.abc import Callable, Sequence

from clickscore.schemas.decisions import Choice, SoldSlot
from clickscore.stream.policy.auction import Admits, Bidder, Sale

SPONSORED = "sponsored"
"""The `reason` stated with an item that is in a list because it is advertised."""


def make_admission(items: Sequence[Choice], quality: Callable[[str], float], relevance: float) -> Admits:
    """Return the rule that says whether an ad may be at a position of the list.

    The position must be free, without a hole before it, and the ad's quality must be at least `relevance` times the
    quality of the recommended item that the ad displaces.

    Args:
        items: The recommended items, best first.
        quality: Returns the quality of an item, 0 to 1.
        relevance: Lowest quality of an ad, as a share of the displaced item's quality.
    """

    def admits(bidder: Bidder, position: int, sales: Sequence[Sale]) -> bool:
        taken = {sale.position: sale.bidder.campaign.item_id for sale in sales if sale.position is not None}
        if position in taken:
            return False
        shown = {bidder.campaign.item_id, *taken.values()}
        index = position - sum([place < position for place in taken])
        organic = [choice.item_id for choice in items if choice.item_id not in shown]
        if index >= len(organic):
            return index == len(organic)
        return bidder.quality >= relevance * quality(organic[index])

    return admits


def place_ads(items: Sequence[Choice], slots: Sequence[SoldSlot], k: int) -> tuple[Choice, ...]:
    """Return a list with the ads at their positions.

    Args:
        items: The recommended items, best first.
        slots: Sold slots; those beside the list are left out.
        k: Largest number of items of the list.
    """
    by_position = sorted(
        ((slot.position, slot) for slot in slots if slot.position is not None), key=lambda pair: pair[0]
    )
    shown = {slot.item_id for _, slot in by_position}
    scores = {choice.item_id: choice.score for choice in items if choice.item_id in shown}
    page = [choice for choice in items if choice.item_id not in shown]
    for position, slot in by_position:
        page.insert(position, make_sponsored(slot, scores.get(slot.item_id, 0.0)))
    return tuple(page[:k])


def make_sponsored(slot: SoldSlot, score: float) -> Choice:
    """Return an ad as a marked item.

    Args:
        slot: The sold slot.
        score: Score of the model; 0 where the item is no candidate.
    """
    return Choice(
        item_id=slot.item_id,
        score=score,
        propensity=1.0,
        reason=SPONSORED,
        sponsored=True,
        campaign_id=slot.campaign_id,
    )
