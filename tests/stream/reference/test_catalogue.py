"""Catalogue: records that are refused, and records that remove."""

from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.stream.reference.campaigns import PageContext
from clickscore.stream.reference.catalogue import Catalogue
from tests.scored_requests import make_campaign, make_catalogue


def test_ended_campaign_is_gone():
    known = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    known.update_campaign(b"c", None)
    assert known.matching(PageContext(["x"])) == []


def test_catalogue_record_under_another_key_is_refused():
    assert Catalogue().update_item(b"b", encode(Item(item_id="a"))) == "the key says item 'b', the value 'a'"


def test_catalogue_record_that_cannot_be_read_is_refused():
    assert "JSON" in (Catalogue().update_item(b"a", b"rubbish") or "")


def test_catalogue_record_that_nests_too_deep_is_refused():
    deep = b'{"item_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert Catalogue().update_item(b"a", deep) == "JSON is nested deeper than 64 levels"


def test_empty_value_removes_like_a_tombstone():
    known = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    known.update_item(b"a", encode(Item(item_id="a", category="tea")))
    assert known.update_campaign(b"c", b"") is None
    assert known.update_item(b"a", b"") is None
    assert (known.campaigns, known.hidden, known.category_of("a")) == ({}, {"a"}, None)


TARGETS = st.fixed_dictionaries(
    {
        "target_items": st.frozensets(st.sampled_from("xyz"), max_size=2),
        "target_categories": st.frozensets(st.sampled_from(["tea", "mugs"]), max_size=2),
    }
)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | TARGETS), max_size=12), st.lists(st.sampled_from("xyz")))
def test_campaigns_match_as_if_they_were_indexed_anew(changes, session):
    known, campaigns = Catalogue(), {}
    known.update_item(b"x", encode(Item(item_id="x", category="tea")))
    for campaign_id, targets in changes:
        if targets is None:
            campaigns.pop(campaign_id, None)
            known.update_campaign(campaign_id.encode(), None)
        else:
            campaigns[campaign_id] = Campaign(campaign_id=campaign_id, item_id="i", bid=1.0, **targets)
            known.update_campaign(campaign_id.encode(), encode(campaigns[campaign_id]))
    category = known.category_of(session[-1]) if session else None
    expected = {
        campaign.campaign_id
        for campaign in campaigns.values()
        if campaign.target_items & set(session)
        or category in campaign.target_categories
        or not (campaign.target_items or campaign.target_categories)
    }
    assert {campaign.campaign_id for campaign in known.matching(PageContext(session))} == expected
