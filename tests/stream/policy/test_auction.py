"""Auction: winners and prices, compared with an oracle that tries every bid."""

import itertools
import random

import pytest

from clickscore.schemas.catalogue import Campaign
from clickscore.stream.policy.auction import Bidder, Sale, Slot, make_bidder, rank, sell
from tests.scored_requests import make_campaign

# Bids, probabilities, qualities and exposures are fractions of powers of two, so every product is exact.
STEP = 1 / 64


def bidder(name: str, bid: float, item: str = "", **more: object) -> Bidder:
    return make_bidder(make_campaign(name, item or name, bid), **{"probability": 1.0, "quality": 1.0, **more})  # pyright: ignore[reportArgumentType]


def winners(bidders: list[Bidder], slots: list[Slot], reserve: float = 0.0) -> list[tuple[str, float, str | None]]:
    return [
        (
            sale.bidder.campaign.campaign_id,
            sale.price,
            sale.runner_up.campaign.campaign_id if sale.runner_up else None,
        )
        for sale in sell(rank(bidders), slots, reserve, "second_price")
    ]


ONE = [Slot(0, 1.0)]


def test_winner_pays_the_lowest_bid_that_keeps_the_slot():
    assert winners([bidder("a", 4.0, quality=0.5), bidder("b", 1.0)], ONE) == [("a", 2.0, "b")]


def test_winner_pays_at_least_the_reserve():
    assert winners([bidder("a", 4.0, probability=0.5)], ONE, 1.0) == [("a", 2.0, None)]


def test_slot_that_is_seldom_seen_needs_a_higher_score():
    slots = [Slot(0, 1.0), Slot(1, 0.5)]
    assert winners([bidder("a", 4.0), bidder("b", 1.5)], slots, 1.0) == [("a", 1.5, "b")]
    assert winners([bidder("a", 4.0), bidder("b", 2.5)], slots, 1.0) == [("a", 2.5, "b"), ("b", 2.0, None)]


def test_equal_scores_go_by_the_campaigns_id():
    assert winners([bidder("b", 1.0), bidder("a", 1.0)], ONE) == [("a", 1.0, "b")]


def test_item_gets_one_slot():
    bidders = [bidder("a", 3.0, "kettle"), bidder("b", 2.0, "kettle"), bidder("c", 1.0)]
    assert winners(bidders, [Slot(0, 1.0), Slot(1, 1.0)]) == [("a", 2.0, "b"), ("c", 0.0, None)]


def test_first_price_is_the_bid():
    (sale,) = sell(rank([bidder("a", 3.0), bidder("b", 2.0)]), ONE, 0.0, "first_price")
    assert (sale.price, sale.runner_up) == (3.0, bidder("b", 2.0))


def test_ad_that_is_never_paid_for_costs_nothing():
    assert winners([bidder("a", 3.0, probability=0.0)], ONE) == [("a", 0.0, None)]


def test_thousand_impressions_count_as_a_thousand():
    campaign = make_campaign("m", "m", 3.0, bid_per="thousand_impressions")
    assert make_bidder(campaign, 1.0, 1.0).score == 0.003


def test_slot_goes_to_the_first_position_with_a_winner():
    slots = [Slot(0, 1.0, (0, 1, 2))]
    (sale,) = sell([bidder("a", 1.0)], slots, 0.0, "second_price", admits=lambda _, position, __: position == 1)
    assert sale.position == 1


# The oracle


def worth(each: Bidder) -> float:
    return each.campaign.bid * each.probability * each.quality


def best(bidders: list[Bidder], slot: Slot, reserve: float, taken: set[str]) -> Bidder | None:
    """Return the winner of a slot: the able bidder that no other one beats."""
    able = [each for each in bidders if each.campaign.item_id not in taken and worth(each) * slot.exposure >= reserve]
    for each in able:
        if not any(beats(other, each) for other in able):
            return each
    return None


def beats(other: Bidder, each: Bidder) -> bool:
    if worth(other) == worth(each):
        return other.campaign.campaign_id < each.campaign.campaign_id
    return worth(other) > worth(each)


def keeps(winner: Bidder, bid: float, bidders: list[Bidder], slot: Slot, *, reserve: float, taken: set[str]) -> bool:
    """Return whether the winner of a slot would still win with another bid, ties aside."""
    campaign = Campaign(campaign_id=" ", item_id=winner.campaign.item_id, bid=bid)  # before all others in a tie
    lower = make_bidder(campaign, winner.probability, winner.quality)
    others = [each for each in bidders if each is not winner]
    return best([lower, *others], slot, reserve, taken) is lower


def check(rng: random.Random) -> None:
    """Compare an auction with the oracle."""
    bidders = [
        make_bidder(
            Campaign(campaign_id=name, item_id=rng.choice("xyz"), bid=rng.randint(1, 16) / 4),
            probability=2.0 ** -rng.randint(0, 2),
            quality=2.0 ** -rng.randint(0, 2),
        )
        for name in "abcd"[: rng.randint(1, 4)]
    ]
    exposures = sorted((2.0 ** -rng.randint(0, 1) for _ in range(rng.randint(1, 2))), reverse=True)
    slots = [Slot(number, exposure) for number, exposure in enumerate(exposures)]
    reserve = rng.choice((0.0, 0.25, 0.5))
    sales = {sale.slot.number: sale for sale in sell(rank(bidders), slots, reserve, "second_price")}
    taken: set[str] = set()
    for slot in slots:
        winner = best(bidders, slot, reserve, taken)
        sale = sales.get(slot.number)
        assert (sale.bidder if sale else None) == winner
        if sale is None or winner is None:
            continue
        # Scores are multiples of 1 / 64, and a weight is at least 1 / 16.
        assert keeps(winner, sale.price, bidders, slot, reserve=reserve, taken=taken)
        assert sale.price == 0 or not keeps(winner, sale.price - STEP, bidders, slot, reserve=reserve, taken=taken)
        others = [each for each in bidders if each is not winner]
        assert sale.runner_up == best(others, slot, reserve, taken)
        taken.add(winner.campaign.item_id)


def test_auctions_agree_with_the_oracle():
    rng = random.Random(13)
    for _ in range(2_000):
        check(rng)


@pytest.mark.slow
def test_a_hundred_thousand_auctions_agree_with_the_oracle():
    rng = random.Random(7)
    for _ in itertools.repeat(None, 100_000):
        check(rng)


def test_sales_of_other_placements_are_seen_by_the_rule_of_positions():
    seen: list[int] = []

    def admits(_: Bidder, __: int, sales: object) -> bool:
        assert isinstance(sales, list)
        seen.append(len(sales))
        return True

    earlier = Sale(bidder("z", 1.0), Slot(0, 1.0), 0, 0.0, None)
    assert list(sell([bidder("a", 1.0)], [Slot(0, 1.0, (3,))], 0.0, "first_price", admits=admits, earlier=[earlier]))
    assert seen == [1]
