"""Ads: the campaign that wins, and the campaigns that are never shown."""

import msgspec
import pytest

from clickscore.schemas.ad_impressions import campaign_hash
from clickscore.schemas.catalogue import Campaign, Item, decode_campaign, encode
from clickscore.schemas.clients import CLIENT_CODES, ClientClass
from clickscore.schemas.decisions import SoldSlot, encode_decision
from clickscore.schemas.purposes import ADS, PERSONALISATION
from clickscore.schemas.topics import CAMPAIGNS
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.policy.ads import choose_ads, open_auction
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue_history import CatalogueHistory, Offsets
from clickscore.stream.request import Request, Scores
from tests.events import START, search, view
from tests.scored_requests import make_campaign, make_catalogue, make_request, make_scores, plain

POLICY = Policy(plain(), None, ())


def test_most_valuable_campaign_wins():
    catalogue = make_catalogue(campaigns=(make_campaign("low", "a", 1), make_campaign("high", "b", 2)))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "high"


def test_campaigns_of_equal_value_go_by_their_id():
    catalogue = make_catalogue(campaigns=(make_campaign("b", "a", 1), make_campaign("a", "a", 1)))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "a"


def test_campaign_for_another_item_does_not_match():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, target_items=["y"]),))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).reason == "no campaign matches"


def test_campaign_matches_the_newest_items_category():
    catalogue = make_catalogue(
        Item(item_id="x", category="tea"), campaigns=(make_campaign("c", "a", 1, target_categories=["tea"]),)
    )
    assert choose_ads(make_request("y", "x"), make_scores(), catalogue, POLICY).campaign_id == "c"


def test_campaign_does_not_run_at_its_end():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, ends_at=START),))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).campaign_id is None


def test_campaign_runs_from_its_start():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, starts_at=START),))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).campaign_id == "c"


def test_campaign_of_a_bought_item_is_not_shown():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    assert choose_ads(make_request("x", bought=("a",)), make_scores(), catalogue, POLICY).campaign_id is None


def test_nothing_is_shown_below_the_reserve():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    ad = choose_ads(make_request("x"), make_scores(), catalogue, Policy(plain(ads=Ads(reserve=0.0101)), None, ()))
    assert (ad.campaign_id, ad.reason) == (None, "no campaign that may be shown wins a slot")


def test_ad_is_named_after_its_event():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1),))
    assert choose_ads(make_request("x"), make_scores(), catalogue, POLICY).decision_id == "events-0-7-ad"


# What is paid for


def shown(campaign: Campaign, scores: Scores | None = None, request: Request | None = None, **ads: object) -> SoldSlot:
    """Return the slot that a campaign wins on its own."""
    policy = Policy(plain(ads=Ads(**ads)), None, ())  # pyright: ignore[reportArgumentType]
    return choose_ads(request or make_request("x"), scores, make_catalogue(campaigns=(campaign,)), policy).slots[0]


def test_click_has_a_share_of_the_next_views():
    scores = make_scores()._replace(actions={"view": 0.5, "click": 0.1, "leave": 0.4})
    assert shown(make_campaign("c", "a", 1), scores, share=0.5).probability == 0.3


def test_click_has_the_whole_share_without_a_prediction():
    assert shown(make_campaign("c", "a", 1), share=0.5).probability == 0.5
    assert shown(make_campaign("c", "a", 1), make_scores()._replace(actions=None), share=0.5).probability == 0.5


def test_order_has_a_share_of_the_purchases():
    campaign = make_campaign("c", "a", 1, bid_per="order")
    assert shown(campaign, make_scores(purchase=0.2), share=0.5).probability == 0.1
    assert shown(campaign, share=0.5).probability == 0.015
    assert shown(campaign, make_scores()._replace(purchase=None), share=0.5).probability == 0.015


def test_impression_is_always_paid_for():
    assert shown(make_campaign("c", "a", 1, bid_per="thousand_impressions"), make_scores()).probability == 1.0


def test_quality_is_relevance_to_the_power_of_the_weight():
    scores = make_scores("best", "a", "last")
    assert shown(make_campaign("c", "a", 1), scores, quality_weight=1.0).quality == 0.367879
    assert shown(make_campaign("c", "other", 1), scores, quality_weight=1.0).quality == 0.135335
    assert shown(make_campaign("c", "a", 1), scores).quality == 0.606531
    assert shown(make_campaign("c", "a", 1), scores, quality_weight=0.0).quality == 1.0


def test_fitting_ad_beats_a_higher_bid():
    catalogue = make_catalogue(campaigns=(make_campaign("fits", "a", 1), make_campaign("pays", "z", 1.5)))
    ad = choose_ads(make_request("x"), make_scores("a", "b", "c"), catalogue, POLICY)
    (slot,) = ad.slots
    assert (slot.campaign_id, slot.price, slot.runner_up) == ("fits", round(1.5 * 0.367879, 6), "pays")


def test_machine_is_served_and_not_charged():
    bot = msgspec.structs.replace(make_request("x"), client=CLIENT_CODES[ClientClass("bot", "declared")])
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1), make_campaign("d", "b", 2)))
    ad = choose_ads(bot, make_scores(), catalogue, POLICY)
    assert (ad.campaign_id, ad.slots[0].price, ad.client) == ("d", 0.0, "bot")
    assert ad.reason == "most valuable of 2 that match; a machine is not charged"


# Who takes part


def excluded(request: Request, *campaigns: Campaign, scores: Scores | None = None) -> object:
    return choose_ads(request, scores, make_catalogue(campaigns=campaigns), POLICY).excluded


def test_every_campaign_without_a_part_has_a_cause():
    request = msgspec.structs.replace(make_request("x", bought=("b",)), withheld=PERSONALISATION)
    campaigns = (
        make_campaign("late", "a", 1, ends_at=START),
        make_campaign("bought", "b", 1),
        make_campaign("weak", "c", 1, quality_floor=0.9),
        make_campaign("capped", "d", 1, frequency_cap=1),
        make_campaign("shown", "e", 1),
    )
    causes = {"not_running": 1, "item": 1, "quality": 1, "cap": 1}
    assert excluded(request, *campaigns, scores=make_scores("e", "c")) == causes
    assert excluded(request, campaigns[-1]) is msgspec.UNSET


def test_end_before_the_start_cancels_a_campaign():
    cancelled = decode_campaign(encode(make_campaign("c", "a", 1, starts_at=START - 1, ends_at=START - 2)))
    assert excluded(make_request("x"), cancelled, scores=make_scores("a", "c")) == {"not_running": 1}


def test_decision_is_the_same_once_the_table_has_moved_on():
    history, request = CatalogueHistory(), make_request("x")
    weak, over = make_campaign("a", "a", 1, quality_floor=0.9), make_campaign("b", "b", 1, ends_at=START)
    for offset, campaign in enumerate((weak, over, make_campaign("a", "a", 2))):
        assert history.add(CAMPAIGNS.name, offset, campaign.campaign_id.encode(), encode(campaign)) is None
    view_of_epoch, scores = history.view(Offsets(0, 2)), make_scores("y", "z")
    earlier = encode_decision(choose_ads(request, scores, view_of_epoch, POLICY))
    earlier_causes = open_auction(request, scores, view_of_epoch, POLICY)[0].excluded
    later = history.view(Offsets(0, 3))
    assert encode_decision(choose_ads(request, scores, view_of_epoch, POLICY)) == earlier
    assert open_auction(request, scores, view_of_epoch, POLICY)[0].excluded == earlier_causes
    assert choose_ads(request, scores, later, POLICY).campaign_id == "a"


def test_decision_does_not_depend_on_the_order_of_words():
    request = msgspec.structs.replace(make_request("x"), event=search("ann", 0, "kettle mug"))
    decisions: set[bytes] = set()
    for words in (("kettle", "mug"), ("mug", "kettle")):  # whatever the order of the set of words is, one is reversed
        weak = make_campaign("a", "a", 1, quality_floor=0.9, target_queries=[words[0]])
        over = make_campaign("b", "b", 1, ends_at=START, target_queries=[words[1]])
        catalogue = make_catalogue(campaigns=(weak, over))
        decisions.add(encode_decision(choose_ads(request, make_scores("y", "z"), catalogue, POLICY)))
    assert len(decisions) == 1


def seen(*campaigns: str) -> bytes:
    return b"".join(campaign_hash(campaign) + bytes(8) for campaign in campaigns)


def test_cap_counts_the_impressions_of_its_campaign():
    campaign = make_campaign("c", "a", 1, frequency_cap=2)
    for impressions, is_capped in ((seen("c", "d", "d"), False), (seen("c", "d", "c"), True)):
        request = msgspec.structs.replace(make_request("x"), ad_impressions=impressions)
        assert (excluded(request, campaign) == {"cap": 1}) is is_capped


def test_full_counts_let_no_campaign_with_a_cap_through():
    request = msgspec.structs.replace(make_request("x"), ad_impressions=seen(*["d"] * 128))
    assert excluded(request, make_campaign("c", "a", 1, frequency_cap=500)) == {"cap": 1}
    assert excluded(request, make_campaign("c", "a", 1)) is msgspec.UNSET


def test_campaign_for_a_group_needs_consent():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, groups=["gold"]),))
    event = msgspec.structs.replace(view("ann", 0), customer_group="gold")
    request = msgspec.structs.replace(make_request("x"), event=event)
    assert choose_ads(request, None, catalogue, POLICY).campaign_id == "c"
    request = msgspec.structs.replace(request, withheld=ADS)
    assert choose_ads(request, None, catalogue, POLICY).reason == "no campaign matches"


def test_campaign_for_a_word_follows_a_search():
    catalogue = make_catalogue(campaigns=(make_campaign("c", "a", 1, target_queries=["Kettle"]),))
    request = msgspec.structs.replace(make_request("x"), event=search("ann", 0, "a KETTLE please"))
    assert choose_ads(request, None, catalogue, POLICY).campaign_id == "c"
    assert choose_ads(make_request("x"), None, catalogue, POLICY).campaign_id is None


# Placements and limits

TWO = {"a": AdPlacement(exposure=(1.0, 0.5)), "b": AdPlacement(pricing="first_price", reserve=0.02)}


def test_placements_sell_in_the_order_of_their_names():
    catalogue = make_catalogue(
        campaigns=(
            make_campaign("1", "i", 4),
            make_campaign("2", "j", 3),
            make_campaign("3", "k", 2),
            make_campaign("4", "l", 9, placements=["b"]),
            make_campaign("5", "l", 5),
        )
    )
    ad = choose_ads(make_request("x"), None, catalogue, Policy(plain(ads=Ads(placements=TWO)), None, ()))
    assert [(slot.placement, slot.slot, slot.campaign_id, slot.price) for slot in ad.slots] == [
        ("a", 0, "5", 4.0),
        ("a", 1, "1", 3.0),
        ("b", 0, "2", 3.0),
    ]


@pytest.mark.parametrize(
    ("limits", "session_ads", "sold"),
    [
        ({}, 0, 3),
        ({"per_page": 2}, 0, 2),
        ({"per_page": 2, "per_session": 5}, 4, 1),
        ({"per_session": 5}, 5, 0),
        ({"per_session": 5}, 9, 0),
    ],
)
def test_page_and_session_have_an_ad_load(limits: dict[str, int], session_ads: int, sold: int):
    campaigns = tuple(make_campaign(f"c{number}", f"i{number}", 3 + number) for number in range(4))
    policy = Policy(plain(ads=Ads(placements=TWO, **limits)), None, ())
    request = msgspec.structs.replace(make_request("x"), session_ads=session_ads)
    ad = choose_ads(request, None, make_catalogue(campaigns=campaigns), policy)
    assert len(ad.slots) == sold
    assert (ad.reason == "the session has as many ads as the policy allows") is (sold == 0)


def test_session_that_may_not_be_counted_has_no_ad_under_a_limit():
    policy = Policy(plain(ads=Ads(per_session=5)), None, ())
    request = msgspec.structs.replace(make_request("x"), withheld=ADS)
    ad = choose_ads(request, None, make_catalogue(campaigns=(make_campaign("c", "a", 1),)), policy)
    reason = "the policy limits the ads of a session, which may not be counted without consent"
    assert (ad.slots, ad.reason) == ((), reason)
