"""Item filters: what the catalogue says of an item, and what the policy makes of it."""

from collections.abc import Callable, Collection

import msgspec
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.schemas.events import Impression, ItemEvent, Search, View
from clickscore.stream.policy.filters import forbidden_items
from clickscore.stream.policy.item_filters import (
    Forbid,
    flagged,
    hidden_brand,
    hidden_category,
    make_item_filters,
    other_brand,
    other_category,
    price_band,
    unavailable,
)
from clickscore.stream.policy.policy_file import Hide, Only, PriceBand
from clickscore.stream.request import Request
from tests.events import START
from tests.scored_requests import make_catalogue, make_request, plain

CATALOGUE = make_catalogue(
    Item(item_id="a", category="tea", brand="oak", flags=("adult", "new"), price=10.0),
    Item(item_id="b", category="tin", brand="elm", price=20.0),
    Item(item_id="c", price=30.0),
    Item(item_id="d"),
)


def shown(forbid: Forbid, request: Request | None = None) -> list[str]:
    """Return the items that a filter leaves."""
    forbidden = forbid(request or make_request(), CATALOGUE)
    return [item for item in "abcd" if item not in forbidden]


@pytest.mark.parametrize(
    ("rule", "names", "items"),
    [
        (hidden_category, ["tea"], "bcd"),
        (other_category, ["tea"], "a"),
        (hidden_brand, ["oak"], "bcd"),
        (other_brand, ["oak", "elm"], "ab"),
        (flagged, ["adult"], "bcd"),
        (flagged, ["sale"], "abcd"),
    ],
)
def test_filter_by_a_list_of_names(rule: Callable[[Collection[str]], Forbid], names: list[str], items: str):
    assert shown(rule(names)) == list(items)


def on_page(item: str, price: float | None = None, kind: type[ItemEvent] = View) -> Request:
    event = kind(event_id="e", user_id="ann", ts=START, item_id=item, price=price)
    return msgspec.structs.replace(make_request("b"), event=event)


def test_price_band_is_around_the_item_on_screen():
    band = price_band(PriceBand(lowest=0.5, highest=1.5))
    assert shown(band, on_page("b")) == ["a", "b", "c", "d"]  # 10 to 30; the price of d is unknown
    assert shown(band, on_page("a")) == ["a", "d"]  # 5 to 15
    assert shown(band, on_page("a", price=20.0)) == ["a", "b", "c", "d"]  # the event knows better


def test_price_band_without_an_upper_end():
    assert shown(price_band(PriceBand(lowest=1.5)), on_page("a")) == ["b", "c", "d"]


def test_price_of_an_impression_is_not_the_price_on_screen():
    band = price_band(PriceBand(highest=1.0))
    assert shown(band, on_page("c", price=99.0, kind=Impression)) == ["a", "b", "d"]  # b is on screen


def test_price_band_says_nothing_without_a_price_on_screen():
    band = price_band(PriceBand(highest=0.1))
    search = msgspec.structs.replace(make_request("a"), event=Search(event_id="e", user_id="ann", ts=START))
    assert band(search, CATALOGUE) == ()
    assert band(on_page("d"), CATALOGUE) == ()


REGIONAL = make_catalogue(
    Item(item_id="n", regions=("north",)), Item(item_id="g", groups=("trade",)), Item(item_id="x")
)


def sold(**place: str) -> list[str]:
    request = make_request()
    request = msgspec.structs.replace(request, event=msgspec.structs.replace(request.event, **place))
    forbidden = unavailable(request, REGIONAL)
    return [item for item in "ngx" if item not in forbidden]


def test_item_of_some_regions_and_groups_is_sold_there_alone():
    assert sold(region="north") == ["n", "x"]
    assert sold(customer_group="trade") == ["g", "x"]
    assert sold(region="north", customer_group="trade") == ["n", "g", "x"]
    assert sold(region="south", customer_group="home") == ["x"]
    assert sold() == ["x"]


def test_catalogue_without_regions_is_not_tested():
    assert unavailable(make_request(), CATALOGUE) == ()


def test_policy_uses_the_rules_that_it_names():
    policy = plain()
    assert [rule.name for rule in make_item_filters(policy)] == ["unavailable"]
    everything = msgspec.structs.replace(
        policy,
        hide=Hide(unavailable=False, flags=("adult",), categories=("tin",), brands=("elm",)),
        only=Only(categories=("tea",), brands=("oak",)),
        price_band=PriceBand(lowest=0.5),
    )
    rules = make_item_filters(everything)
    assert [rule.name for rule in rules] == [
        "flagged",
        "hidden_category",
        "other_category",
        "hidden_brand",
        "other_brand",
        "price_band",
    ]
    assert all(rule.sentence for rule in rules)
    assert [name for name, items in forbidden_items(rules, make_request("a"), CATALOGUE) if "b" in items] == [
        "hidden_category",
        "other_category",
        "hidden_brand",
        "other_brand",
    ]


def test_only_a_text_is_an_item():
    assert 7 not in hidden_category(["tea"])(make_request(), CATALOGUE)
