"""Caps: how many places a group of items may take."""

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Choice
from clickscore.stream.policy.caps import apply_caps, count_places, make_caps, session_items
from clickscore.stream.policy.policy_file import Limit
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.rules import Cap
from clickscore.stream.reference.catalogue import Catalogue
from tests.scored_requests import make_catalogue, make_request, plain


def capped(*items: str, met: str, limit: int) -> tuple[list[str], dict[str, int]]:
    choices = [Choice(item_id=item, score=0.0, propensity=1.0, reason="model") for item in items]
    removed: dict[str, int] = {}
    cap = Cap("reminders", "it is a repeat", limit, session_items)
    kept = apply_caps(choices, count_places([cap], make_request(*met), Catalogue()), removed)
    return [choice.item_id for choice in kept], removed


def test_items_of_the_session_take_the_allowed_places():
    assert capped("a", "x", "b", "y", "c", met="abc", limit=2) == (["a", "x", "b", "y"], {"reminders": 1})


def test_items_of_the_session_take_no_place_where_none_is_allowed():
    assert capped("a", "x", "b", met="ab", limit=0) == (["x"], {"reminders": 2})


def test_items_that_the_user_has_not_met_are_not_limited():
    assert capped("x", "y", "z", met="a", limit=0) == (["x", "y", "z"], {})


def test_cap_that_a_list_cannot_exceed_is_left_out():
    assert make_caps(Limit(reminders=3), 3) == ()
    assert [cap.limit for cap in make_caps(Limit(reminders=2), 3)] == [2]


def test_cap_says_why():
    assert make_caps(Limit(reminders=0), 3)[0].sentence == "the user has met it"
    assert make_caps(Limit(reminders=2), 3)[0].sentence == "2 places already repeat items of this session"


def test_items_of_a_category_a_brand_or_a_seller_share_their_places():
    catalogue = make_catalogue(
        *(Item(item_id=item, category="tea", brand="oak", seller="shop") for item in "abc"), Item(item_id="d")
    )
    choices = [Choice(item_id=item, score=0.0, propensity=1.0, reason="model") for item in "abcd"]
    for cap in make_caps(Limit(reminders=1_000, category=2, brand=2, seller=2), 4):
        removed: dict[str, int] = {}
        kept = apply_caps(choices, count_places([cap], make_request(), catalogue), removed)
        assert [choice.item_id for choice in kept] == ["a", "b", "d"]
        assert removed == {cap.name: 1}
        assert cap.sentence == f"the list has 2 items of this {cap.name} already"


def test_first_full_group_removes_an_item():
    catalogue = make_catalogue(*(Item(item_id=item, category="tea", brand=item) for item in "ab"))
    policy = Policy(plain(k=3, limit=Limit(category=1, brand=1)), None, ())
    decision = policy.recommend(make_request("x", popular=("a", "b", "c")), None, catalogue)
    assert [choice.item_id for choice in decision.items] == ["a", "c"]
    assert decision.filtered == {"category": 1}
