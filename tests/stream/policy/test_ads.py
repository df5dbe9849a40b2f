"""Ads: the campaign that wins, and the campaigns that are never shown."""

from clickscore.schemas.catalogue import Item
from clickscore.stream.policy.ads import choose_ad
from clickscore.stream.policy.policy_file import Ads
from clickscore.stream.policy.recommend import Policy
from tests.events import START
from tests.scored_requests import make_campaign, make_catalogue, make_request, make_scores, plain

POLICY = Policy(plain(), None, ())


def test_most_valuable_campaign_wins():
    catalogue = make_catalogue(campaigns=(make_campaign("low", "a", 1), make_campaign("high", "b", 2)))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "high"


def test_campaigns_of_equal_value_go_by_their_id():
    catalogue = make_catalogue(campaigns=(make_campaign("b", "a", 1), make_campaign("a", "a", 1)))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "a"


def test_campaign_for_another_item_does_not_match():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, target_items=["y"]),))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).reason == "no campaign matches"


def test_campaign_matches_the_newest_items_category():
    catalogue = make_catalogue(
        Item(item_id="x", category="tea"), campaigns=(make_campaign("c", "a", 1, target_categories=["tea"]),)
    )
    assert choose_ad(make_request("y", "x"), make_scores(), catalogue, POLICY).campaign_id == "c"


def test_campaign_does_not_run_at_its_end():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, ends_at=START),))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).campaign_id is None


def test_campaign_runs_from_its_start():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, starts_at=START),))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "c"


def test_campaign_of_a_bought_item_is_not_shown():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    assert choose_ad(make_request("x", bought=("a",)), make_scores(), catalogue, POLICY).campaign_id is None


def test_nothing_is_shown_below_the_reserve():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    ad = choose_ad(
        make_request("x"), make_scores(purchase=0.1), catalogue, Policy(plain(ads=Ads(reserve=0.2)), None, ())
    )
    assert (ad.campaign_id, ad.reason) == (None, "no campaign that matches reaches the reserve")


def test_ad_is_named_after_its_event():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    assert choose_ad(make_request("x"), make_scores(), catalogue, POLICY).decision_id == "events-0-7-ad"
