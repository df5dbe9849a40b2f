"""Filters: the items that are never shown."""

import msgspec
import pytest

from clickscore.schemas.catalogue import Item
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import ACTION_OF, AnyEvent, Cart, Impression, ItemEvent, Purchase, RemoveFromCart, Search
from clickscore.stream.policy.filters import (
    BOUGHT,
    bought_already,
    bought_unless_again,
    forbidden_items,
    hidden,
    in_cart,
    make_filters,
    on_screen,
    out_of_stock,
)
from clickscore.stream.policy.policy_file import Hide
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import UNKNOWN_DAY, Request
from tests.events import START
from tests.scored_requests import make_catalogue, make_request


def test_bought_is_forbidden():
    assert "a" in bought_already(make_request(bought=("a",)), Catalogue())


def test_item_of_a_category_that_is_bought_again_returns_with_the_next_session():
    catalogue = make_catalogue(Item(item_id="a", category="coffee"), Item(item_id="b", category="mills"))
    forbid = bought_unless_again({"coffee"}, {})
    assert set(forbid(make_request(bought=("a", "b", "c")), catalogue)) == {"b", "c"}
    purchase = msgspec.structs.replace(make_request("a", bought=("a", "b")), actions=bytes([ACTION_OF[Purchase]]))
    assert set(forbid(purchase, catalogue)) == {"a", "b"}
    assert not forbid(make_request("a"), catalogue)
    (rule, *_) = make_filters(Hide(bought_again=("coffee",)))
    assert "a" not in rule.forbid(make_request(bought=("a",)), catalogue)


def test_item_of_a_category_with_an_interval_returns_after_it():
    catalogue = make_catalogue(*(Item(item_id=name, category="coffee") for name in "abcd"), Item(item_id="e"))
    forbid = bought_unless_again((), {"coffee": 10})
    bought = make_request("d", bought=("a", "b", "c", "d", "e"))
    today = bought.event.ts // DAY_MS
    days = {"a": today - 10, "b": today - 9, "c": UNKNOWN_DAY, "d": today - 20, "e": today - 20}
    request = msgspec.structs.replace(bought, purchases=days, actions=bytes([ACTION_OF[Purchase]]))
    assert set(forbid(request, catalogue)) == {"b", "c", "d", "e"}
    (rule, *_) = make_filters(Hide(again_after={"coffee": 10}))
    assert set(rule.forbid(request, catalogue)) == {"b", "c", "d", "e"}


def test_out_of_stock_is_forbidden():
    assert "a" in out_of_stock(make_request(), make_catalogue(Item(item_id="a", stock=0)))


def test_unsaid_stock_is_in_stock():
    assert "a" not in out_of_stock(make_request(), make_catalogue(Item(item_id="a")))


def test_hidden_is_forbidden():
    assert "a" in hidden(make_request(), make_catalogue(Item(item_id="a", hidden=True)))


def test_item_taken_out_of_the_catalogue_is_forbidden():
    catalogue = make_catalogue(Item(item_id="a"))
    catalogue.update_item(b"a", None)
    assert "a" in hidden(make_request(), catalogue)


def answer_to(event: AnyEvent, *items: str) -> Request:
    return msgspec.structs.replace(make_request(*items), event=event)


def event_of(kind: type[ItemEvent], item: str) -> ItemEvent:
    return kind(event_id="e", user_id="ann", ts=START, item_id=item)


@pytest.mark.parametrize("kind", [kind for kind in ACTION_OF if issubclass(kind, ItemEvent)])
def test_item_of_the_event_is_on_screen(kind: type[ItemEvent]):
    assert list(on_screen(answer_to(event_of(kind, "a"), "b", "a"), Catalogue())) == ["a"]


def test_page_of_search_results_has_no_item_on_screen():
    search = Search(event_id="e", user_id="ann", ts=START)
    assert not on_screen(answer_to(search, "a", ""), Catalogue())


def test_impression_leaves_the_page_as_it_is():
    impression = event_of(Impression, "shown")
    assert list(on_screen(answer_to(impression, "a", "b"), Catalogue())) == ["b"]
    assert not on_screen(answer_to(impression), Catalogue())


def cart_after(*events: tuple[type[ItemEvent], str]) -> set[str]:
    request = msgspec.structs.replace(
        make_request(*(item for _, item in events)), actions=bytes(ACTION_OF[kind] for kind, _ in events)
    )
    return set(in_cart(request, Catalogue()))


def test_what_is_put_into_the_cart_is_in_the_cart():
    assert cart_after((Cart, "a"), (Cart, "b")) == {"a", "b"}


@pytest.mark.parametrize("kind", [RemoveFromCart, Purchase])
def test_what_is_taken_out_or_bought_is_no_longer_in_the_cart(kind: type[ItemEvent]):
    assert cart_after((Cart, "a"), (Cart, "b"), (kind, "a")) == {"b"}


def test_what_is_put_back_is_in_the_cart():
    assert cart_after((Cart, "a"), (RemoveFromCart, "a"), (Cart, "a")) == {"a"}


def test_item_that_comes_back_is_allowed():
    catalogue = make_catalogue(Item(item_id="a", stock=0, hidden=True), Item(item_id="a", stock=3))
    filters = make_filters(Hide(on_screen=False))
    assert forbidden_items(filters, make_request(), catalogue) == []


def test_filters_that_forbid_nothing_are_left_out():
    filters = make_filters(Hide(on_screen=False))
    assert forbidden_items(filters, make_request(bought=("a",)), Catalogue()) == [("bought", {"a"})]


def test_policy_switches_filters_off():
    nothing = Hide(out_of_stock=False, bought=False, on_screen=False, in_cart=False)
    assert [rule.name for rule in make_filters(nothing)] == ["hidden"]
    assert BOUGHT in make_filters(Hide())
