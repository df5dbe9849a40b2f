"""Sponsored items: where ads are in the list, and that each is marked."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.decisions import Ad, Choice, Recommendation
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.policy.experiments import CONTROL
from clickscore.stream.policy.pages import decide_page
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.settings import PolicySettings
from tests.scored_requests import make_campaign, make_catalogue, make_request, make_scores, plain

ITEMS = tuple("abcdef")


def decide(*campaigns: Campaign, items: tuple[str, ...] = ITEMS, k: int = 4, **placement: object) -> Recommendation:
    """Return the list of a page with an ad placement in the list."""
    table = AdPlacement(**placement)  # pyright: ignore[reportArgumentType]
    policy = Policy(plain(k=k, ads=Ads(placements={"list": table})), None, ())
    page, _ = decide_page(policy, make_request("x"), make_scores(*items), make_catalogue(campaigns=campaigns))
    return msgspec.json.decode(page.value, type=Recommendation)


def names(decision: Recommendation) -> str:
    """Return the items in order; an advertised item in capitals."""
    return "".join(choice.item_id.upper() if choice.sponsored else choice.item_id for choice in decision.items)


def test_ad_moves_the_items_behind_it_back():
    decision = decide(make_campaign("c", "z", 1), places=(2,))
    assert names(decision) == "aZbc"
    ad = decision.items[1]
    assert (ad.reason, ad.campaign_id, ad.score, ad.propensity) == ("sponsored", "c", 0.0, 1.0)


def test_recommended_item_that_is_advertised_is_shown_once():
    decision = decide(make_campaign("c", "b", 1), places=(1,))
    assert names(decision) == "Bacd"
    assert decision.items[0].score == -1.0


def test_items_beside_an_ad_are_not_marked():
    decision = decide(make_campaign("c", "z", 1), places=(2,))
    assert b"sponsored" not in msgspec.json.encode(decision.items[0])


def test_list_without_a_winner_has_no_ad():
    assert names(decide(make_campaign("c", "z", 1, target_items=["y"]), places=(2,))) == "abcd"


def test_ads_of_several_slots_are_at_their_places():
    campaigns = make_campaign("c", "y", 2), make_campaign("d", "z", 1)
    assert names(decide(*campaigns, places=(1, 3), exposure=(1.0, 1.0))) == "YaZb"


def test_ad_that_fits_less_than_the_displaced_item_is_left_out():
    campaign = make_campaign("c", "d", 1)
    assert names(decide(campaign, places=(1,), relevance=0.9)) == "abcd"
    assert names(decide(campaign, places=(1,), relevance=0.2)) == "Dabc"


def test_ad_beside_the_list_displaces_no_item():
    """The floor of an ad in the list counts against the item that stands there, whatever is advertised beside."""
    placements = {"beside": AdPlacement(), "list": AdPlacement(places=(2,), relevance=0.8)}
    policy = Policy(plain(k=4, ads=Ads(placements=placements)), None, ())
    campaigns = make_campaign("c", "a", 9, placements=["beside"]), make_campaign("d", "c", 1, placements=["list"])
    page, ad = decide_page(policy, make_request("x"), make_scores(*ITEMS), make_catalogue(campaigns=campaigns))
    assert ad is not None
    assert [slot.campaign_id for slot in ad.slots] == ["c"]
    assert names(msgspec.json.decode(page.value, type=Recommendation)) == "abcd"


def test_floating_ad_goes_to_the_first_place_where_it_fits():
    assert names(decide(make_campaign("c", "d", 1), places=(1,), relevance=0.6, floating=True)) == "abDc"


def test_floating_ads_do_not_take_the_same_place():
    campaigns = make_campaign("c", "d", 2), make_campaign("e", "e", 1)
    decision = decide(*campaigns, places=(1, 2), exposure=(1.0, 1.0), relevance=0.3, floating=True)
    assert names(decision) == "aDbE"


def test_ad_may_follow_the_last_item_but_leaves_no_hole():
    campaign = make_campaign("c", "z", 1)
    assert names(decide(campaign, items=("a",), places=(2,))) == "aZ"
    assert names(decide(campaign, items=("a",), places=(3,))) == "a"


def test_slot_behind_the_end_of_the_list_is_left_out():
    policy = Policy(plain(ads=Ads(placements={"list": AdPlacement(places=(99,))})), None, ())
    page, ad = decide_page(policy, make_request("x"), None, make_catalogue(campaigns=(make_campaign("c", "z", 1),)))
    assert (page.origins, ad and ad.slots) == ({}, ())


def test_control_gets_popular_items_and_the_same_ads():
    policy = Policy(plain(k=2, ads=Ads(placements={"list": AdPlacement(places=(1,))})), None, ())
    request = msgspec.structs.replace(make_request("x", popular=("p", "q")), variant=CONTROL)
    page, _ = decide_page(policy, request, make_scores(*ITEMS), make_catalogue(campaigns=(make_campaign("c", "a", 1),)))
    assert names(msgspec.json.decode(page.value, type=Recommendation)) == "Ap"
    assert page.origins == {"popular": 1}


# No unmarked ad


@st.composite
def placements(draw: st.DrawFn) -> AdPlacement:
    places = draw(st.lists(st.integers(1, 8), unique=True, max_size=3).map(sorted))
    return AdPlacement(
        exposure=(1.0,) * max(1, len(places)),
        places=tuple(places),
        floating=bool(places) and draw(st.booleans()),
        relevance=draw(st.sampled_from((0.0, 0.5, 1.0))) if places else 0.0,
        pricing=draw(st.sampled_from(("second_price", "first_price"))),
    )


@given(
    items=st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8),
    popular=st.lists(st.sampled_from("defghijk"), unique=True, max_size=6),
    campaigns=st.lists(st.tuples(st.sampled_from("abghxyz"), st.integers(1, 8)), max_size=5),
    placement=placements(),
    k=st.integers(1, 8),
    per_page=st.none() | st.integers(1, 2),
)
def test_every_ad_in_a_list_is_marked_and_every_other_item_is_not(
    *,
    items: list[str],
    popular: list[str],
    campaigns: list[tuple[str, int]],
    placement: AdPlacement,
    k: int,
    per_page: int | None,
):
    per_page = per_page and min(per_page, len(placement.exposure))
    ads = Ads(placements={"list": placement}, per_page=per_page)
    made = tuple(make_campaign(f"c{number}", item, bid) for number, (item, bid) in enumerate(campaigns))
    policy = Policy(plain(ads=ads), None, (), PolicySettings(k=k))
    request, scores = make_request("w", popular=tuple(popular)), make_scores(*items)
    page, ad = decide_page(policy, request, scores, make_catalogue(campaigns=made))
    plain_list = policy.recommend(request, scores, make_catalogue()).items
    check_marks(msgspec.json.decode(page.value, type=Recommendation), ad, plain_list, k)


def check_marks(decision: Recommendation, ad: Ad | None, plain_list: tuple[Choice, ...], k: int) -> None:
    """Check the ads of a list against the slots that were sold, and the other items against a list without ads."""
    sold = {slot.position: slot for slot in ad.slots if slot.position is not None} if ad else {}
    marked = {position: choice for position, choice in enumerate(decision.items) if choice.sponsored}
    assert {position: slot.campaign_id for position, slot in sold.items()} == {
        position: choice.campaign_id for position, choice in marked.items()
    }
    assert [sold[position].item_id for position in marked] == [choice.item_id for choice in marked.values()]
    others = [choice for choice in decision.items if not choice.sponsored]
    advertised = {slot.item_id for slot in sold.values()}
    expected = [choice for choice in plain_list if choice.item_id not in advertised]
    assert others == expected[: k - len(sold)]
    assert all(choice.campaign_id is None for choice in others)
