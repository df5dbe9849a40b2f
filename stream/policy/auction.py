"""Auction: sell the slots of a placement to the highest scores, and set the prices.

The score of an ad is its worth for one impression: bid * probability * quality. With the generalised second price (GSP)
the winner of a slot pays the lowest bid that keeps the slot: the score of the runner-up divided by the winner's own
probability * quality, and no less than the reserve (Edelman, Ostrovsky and Schwarz, American Economic Review 97(1),
2007). With the first price the winner pays its bid.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign
from clickscore.stream.policy.ad_policy import Pricing


class Bidder(msgspec.Struct, frozen=True, gc=False):
    """A campaign that takes part in an auction, as `make_bidder` returns it."""

    campaign: Campaign
    probability: float
    """Probability that an impression brings what the bid is for."""
    quality: float
    """Quality of the advertised item, 0 to 1."""
    weight: float
    """Score for a bid of 1."""
    score: float
    """Worth of the ad for one impression: bid * probability * quality."""
    bid: float
    """Highest price: the bid of the campaign times the multiplier of its pacing."""


BESIDE: tuple[int | None, ...] = (None,)
"""Positions of a slot beside the list."""


class Slot(NamedTuple):
    """A slot for an ad."""

    number: int
    """Number of the slot in its placement, from 0."""
    exposure: float
    """Probability that the slot is seen, relative to the first slot; above 0 and at most 1."""
    positions: Sequence[int | None] = BESIDE
    """Positions in the list where the ad may be, the preferred first; None beside the list."""


class Sale(msgspec.Struct, frozen=True, gc=False):
    """A sold slot."""

    bidder: Bidder
    slot: Slot
    position: int | None
    """Position in the list; None beside the list."""
    price: float
    """Price for a click, for a thousand impressions or for an order; at most the bid."""
    runner_up: Bidder | None
    """The next best ad for the same slot; None where no other ad wants it."""


Admits = Callable[[Bidder, int, Sequence[Sale]], bool]
"""Returns whether an ad may be at a position of the list, given the sales so far."""


def make_bidder(campaign: Campaign, probability: float, quality: float, multiplier: float = 1.0) -> Bidder:
    """Return a campaign as a bidder.

    Args:
        campaign: The campaign.
        probability: Probability that an impression brings what the bid is for.
        quality: Quality of the advertised item, 0 to 1.
        multiplier: Factor on the bid, from the pacing of the campaign's budget.
    """
    unit = 1000 if campaign.bid_per == "thousand_impressions" else 1
    weight, bid = probability * quality / unit, campaign.bid * multiplier
    return Bidder(campaign, probability, quality, weight, bid * weight, bid)


def rank(bidders: Iterable[Bidder]) -> list[Bidder]:
    """Return the bidders by score, highest first; equal scores go by the campaign's id."""
    return sorted(bidders, key=_rank_of)


def _rank_of(bidder: Bidder) -> tuple[float, str]:
    return -bidder.score, bidder.campaign.campaign_id


def sell(
    ranked: Sequence[Bidder],
    slots: Iterable[Slot],
    reserve: float,
    pricing: Pricing,
    *,
    admits: Admits | None = None,
    earlier: Sequence[Sale] = (),
) -> Iterator[Sale]:
    """Sell slots, one after another, and yield the sales. An advertised item gets one slot at most.

    Args:
        ranked: Bidders, best first, as `rank` returns them.
        slots: Slots in order.
        reserve: Lowest score times exposure of a shown ad, in the currency of the bids, for one impression.
        pricing: Rule of the price.
        admits: Returns whether an ad may be at a position of the list; by default every ad may.
        earlier: Sales of other placements of the page.
    """
    sales = list(earlier)
    remaining = ranked
    for slot in slots:
        contest = _contest(remaining, slot, reserve, sales, admits)
        if contest is None:
            continue
        winner, runner_up, position = contest
        floor = max(reserve / slot.exposure, runner_up.score if runner_up else 0.0)
        sale = Sale(winner, slot, position, _price(winner, floor, pricing), runner_up)
        yield sale
        sales.append(sale)
        remaining = [bidder for bidder in remaining if bidder.campaign.item_id != winner.campaign.item_id]


def _contest(
    remaining: Sequence[Bidder], slot: Slot, reserve: float, sales: Sequence[Sale], admits: Admits | None
) -> tuple[Bidder, Bidder | None, int | None] | None:
    """Return winner, runner-up and position of a slot: the first position with a winner; None for an unsold slot.

    Args:
        remaining: Bidders without a slot, best first.
        slot: The slot.
        reserve: Lowest score times exposure of a shown ad.
        sales: Sales so far.
        admits: Returns whether an ad may be at a position of the list.
    """
    for position in slot.positions:
        winner = None
        for bidder in remaining:
            if bidder.score * slot.exposure < reserve:
                break
            if position is not None and admits is not None and not admits(bidder, position, sales):
                continue
            if winner is not None:
                return winner, bidder, position
            winner = bidder
        if winner is not None:
            return winner, None, position
    return None


def _price(winner: Bidder, floor: float, pricing: Pricing) -> float:
    """Return the price of a slot.

    Args:
        winner: The winner.
        floor: Lowest score that keeps the slot.
        pricing: Rule of the price.
    """
    if pricing == "first_price":
        return winner.bid
    return min(winner.bid, floor / winner.weight) if winner.weight else 0.0
