"""Filters: the items that are never shown."""

from clickscore.schemas.catalogue import Item
from clickscore.stream.policy.filters import bought_already, forbidden_items, hidden, out_of_stock
from clickscore.stream.reference.catalogue import Catalogue
from tests.scored_requests import make_catalogue, make_request


def test_bought_is_forbidden():
    assert "a" in bought_already(make_request(bought=("a",)), Catalogue())


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


def test_item_that_comes_back_is_allowed():
    catalogue = make_catalogue(Item(item_id="a", stock=0, hidden=True), Item(item_id="a", stock=3))
    assert forbidden_items(make_request(), catalogue) == []


def test_filters_that_forbid_nothing_are_left_out():
    assert forbidden_items(make_request(bought=("a",)), Catalogue()) == [("bought", {"a"})]
