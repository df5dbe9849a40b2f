"""Price order: the nearest price first, whatever was added and removed before."""

import itertools
import math
import random

import pytest

from clickscore.schemas.catalogue import Item, encode
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.price_order import Kind, PriceOrder, comes_before, merge_nearest

TEA = Kind("tea", "lumi")


def make_order(**prices: float) -> PriceOrder:
    order = PriceOrder()
    for item_id, price in prices.items():
        order.add(TEA, (price, item_id))
    return order


def names(order: PriceOrder, price: float) -> str:
    return "".join(item_id for _, item_id in order.nearest(TEA, price))


def test_nearest_price_is_first_by_ratio():
    assert names(make_order(a=1, b=3, c=10, d=30), 9) == "cbda"


def test_cheaper_item_is_first_where_two_are_as_near():
    assert names(make_order(a=2, b=8), 4) == "ab"


def test_unknown_prices_are_last():
    assert names(make_order(a=0, b=100, c=0), 1) == "bca"
    assert names(make_order(a=5, b=0, c=1), 0) == "bca"


def test_unknown_kind_has_no_items():
    assert list(make_order(a=1).nearest(Kind("tea", ""), 1)) == []


@pytest.mark.parametrize("is_read", [False, True])
def test_items_come_and_go_before_and_after_the_first_reading(is_read: bool):
    order = make_order(a=1, b=2)
    if is_read:
        assert names(order, 1) == "ab"
    order.add(TEA, (1.5, "c"))
    order.remove(TEA, (1, "a"))
    assert names(order, 1) == "cb"
    order.remove(TEA, (1.5, "c"))
    order.remove(TEA, (2, "b"))
    assert names(order, 1) == ""


def test_last_unread_item_may_go():
    order = make_order(a=1)
    order.remove(TEA, (1, "a"))
    assert names(order, 1) == ""


@pytest.mark.parametrize("seed", range(30))
def test_two_orders_merge_into_the_order_of_all(seed: int):
    rng = random.Random(seed)
    items = [(rng.choice((0.0, 1.0, 2.0, 4.0, 5.5, rng.random())), f"item-{n}") for n in range(rng.randrange(12))]
    price = rng.choice((0.0, 2.0, rng.random()))
    orders = [PriceOrder(), PriceOrder(), PriceOrder()]
    for item in items:
        orders[0].add(TEA, item)
        orders[rng.randint(1, 2)].add(TEA, item)
    every, first, second = (order.nearest(TEA, price) for order in orders)
    ordered = list(every)
    assert list(merge_nearest(first, second, price)) == ordered
    assert all(comes_before(item, other, price) for item, other in itertools.pairwise(ordered))
    if price:
        distances = [abs(math.log(item) - math.log(price)) for item, _ in ordered if item]
        assert distances == pytest.approx(sorted(distances))


def test_catalogue_finds_items_of_the_same_category_and_brand():
    catalogue = Catalogue()
    for item in (
        Item(item_id="a", category="tea", brand="lumi", price=5),
        Item(item_id="b", category="tea", brand="lumi", price=9),
        Item(item_id="c", category="tea", brand="fjord", price=5),
        Item(item_id="d", brand="lumi", price=5),
        Item(item_id="e", category="tea", brand="lumi"),
    ):
        catalogue.update_item(item.item_id.encode(), encode(item))
    assert list(catalogue.similar_to("a")) == ["a", "b", "e"]
    assert list(catalogue.similar_to("d")) == list(catalogue.similar_to("unknown")) == []
    catalogue.update_item(b"b", None)
    catalogue.update_item(b"c", encode(Item(item_id="c", category="tea", brand="lumi", price=6)))
    assert list(catalogue.similar_to("a")) == ["a", "c", "e"]
