"""Catalogue: records that are refused, and records that remove."""

from clickscore.schemas.catalogue import Item, encode
from clickscore.stream.reference.catalogue import Catalogue
from tests.scored_requests import make_campaign, make_catalogue


def test_ended_campaign_is_gone():
    known = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    known.update_campaign(b"c", None)
    assert known.matching(["x"]) == []


def test_catalogue_record_under_another_key_is_refused():
    assert Catalogue().update_item(b"b", encode(Item(item_id="a"))) == "the key says item 'b', the value 'a'"


def test_catalogue_record_that_cannot_be_read_is_refused():
    assert "JSON" in (Catalogue().update_item(b"a", b"rubbish") or "")


def test_catalogue_record_that_nests_too_deep_is_refused():
    deep = b'{"item_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "recursion" in (Catalogue().update_item(b"a", deep) or "").lower()
