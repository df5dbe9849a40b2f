"""Policy and ads: what is shown, and what never is."""

import msgspec
import numpy as np
import pytest

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import Recommendation, encode_decision
from clickscore.schemas.events import ACTIONS
from clickscore.stream.policy.ads import choose_ad
from clickscore.stream.policy.experiments import CONTROL, MODEL, assign_variant
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.filters import FILTERS, bought_already, hidden, out_of_stock
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Reasons, Request, Scores
from clickscore.stream.settings import PolicySettings
from tests.events import START, view


def request(*items: str, bought: tuple[str, ...] = (), popular: tuple[str, ...] = ()) -> Request:
    return Request(
        decision_id="events-0-7",
        event=view("ann", 0),
        session_id="s",
        session_length=len(items),
        items=list(items),
        actions=b"\1" * len(items),
        bought=frozenset(bought),
        variant=MODEL,
        late=False,
        popular=list(popular),
    )


def scores(*items: str, purchase: float = 0.5) -> Scores:
    ranks = list(range(len(items)))
    return Scores(ranks, [float(-rank) for rank in ranks], {"view": 1.0}, purchase, items)


def catalogue(*items: Item, campaigns: tuple[Campaign, ...] = ()) -> Catalogue:
    made = Catalogue()
    for item in items:
        assert made.update_item(item.item_id.encode(), encode(item)) is None
    for campaign in campaigns:
        assert made.update_campaign(campaign.campaign_id.encode(), encode(campaign)) is None
    return made


def shown(asked: Request, answer: Scores | None, prior: tuple[str, ...] = ()) -> list[str]:
    policy = Policy(PolicySettings(k=3), Catalogue(), "bundle", prior)
    return [choice.item_id for choice in policy.recommend(asked, answer).items]


def test_bought_is_forbidden():
    assert "a" in bought_already(request(bought=("a",)), Catalogue())


def test_out_of_stock_is_forbidden():
    assert "a" in out_of_stock(request(), catalogue(Item(item_id="a", stock=0)))


def test_unsaid_stock_is_in_stock():
    assert "a" not in out_of_stock(request(), catalogue(Item(item_id="a")))


def test_hidden_is_forbidden():
    assert "a" in hidden(request(), catalogue(Item(item_id="a", hidden=True)))


def test_item_taken_out_of_the_catalogue_is_forbidden():
    known = catalogue(Item(item_id="a"))
    known.update_item(b"a", None)
    assert "a" in hidden(request(), known)


def test_item_that_comes_back_is_allowed():
    known = catalogue(Item(item_id="a", stock=0, hidden=True), Item(item_id="a", stock=3))
    assert not any("a" in forbid(request(), known) for forbid in FILTERS.values())


def test_best_candidates_come_in_their_order():
    assert shown(request("x"), scores("a", "b", "c", "d")) == ["a", "b", "c"]


def test_forbidden_candidates_give_way_to_the_next():
    assert shown(request("x", bought=("a",)), scores("a", "b", "c", "d")) == ["b", "c", "d"]


def test_rules_say_how_many_they_removed():
    policy = Policy(PolicySettings(k=2), catalogue(Item(item_id="b", stock=0)), None, ())
    assert policy.recommend(request(bought=("a",)), scores("a", "b", "c")).filtered == {"bought": 1, "out_of_stock": 1}


def test_popular_items_fill_what_the_model_leaves():
    assert shown(request("x", popular=("a", "p")), scores("a")) == ["a", "p"]


def test_popular_items_stand_in_where_the_model_is_silent():
    assert shown(request("x", popular=("p", "q")), None) == ["p", "q"]


def test_training_popularity_comes_after_the_present_one():
    assert shown(request("x", popular=("p",)), None, prior=("p", "t")) == ["p", "t"]


def test_popular_shelf_follows_the_stock():
    known = catalogue(Item(item_id="p", stock=1))
    policy = Policy(PolicySettings(k=1), known, None, ())
    asked = request("x", popular=("p", "q"))
    assert policy.recommend(asked, None).items[0].item_id == "p"
    known.update_item(b"p", encode(Item(item_id="p", stock=0)))
    assert policy.recommend(asked, None).items[0].item_id == "q"


@pytest.mark.parametrize("bought", [(), ("p",)])
@pytest.mark.parametrize("answer", [None, scores("a", "b")])
def test_encoded_decision_is_the_recommendation(answer: Scores | None, bought: tuple[str, ...]):
    known = catalogue(Item(item_id="p", stock=1), Item(item_id="r", stock=0))
    policy = Policy(PolicySettings(k=3), known, "bundle", ("t",))
    asked = request("x", bought=bought, popular=("p", "q", "r"))
    assert policy.encoded(asked, answer) == encode_decision(policy.recommend(asked, answer))
    known.update_item(b"p", encode(Item(item_id="p", stock=0)))
    assert policy.encoded(asked, answer) == encode_decision(policy.recommend(asked, answer))


def test_every_user_keeps_a_variant():
    assert {assign_variant("ann", "test", 0.5) for _ in range(3)} == {assign_variant("ann", "test", 0.5)}


def test_control_share_is_kept():
    control = sum(assign_variant(f"user-{number}", "test", 0.3) == CONTROL for number in range(10_000))
    assert 2_800 < control < 3_200  # 4 standard deviations are 183


def test_without_a_control_share_all_get_the_model():
    assert assign_variant("ann", "test", 0.0) == MODEL


def campaign(name: str, item: str, bid: float, **more: object) -> Campaign:
    return msgspec.convert({"campaign_id": name, "item_id": item, "bid": bid, **more}, Campaign)


def test_most_valuable_campaign_wins():
    known = catalogue(campaigns=(campaign("low", "a", 1), campaign("high", "b", 2)))
    assert choose_ad(request("x"), scores(), known, 0, None).campaign_id == "high"


def test_campaigns_of_equal_value_go_by_their_id():
    known = catalogue(campaigns=(campaign("b", "a", 1), campaign("a", "a", 1)))
    assert choose_ad(request("x"), scores(), known, 0, None).campaign_id == "a"


def test_campaign_for_another_item_does_not_match():
    known = catalogue(campaigns=(campaign("c", "a", 1, target_items=["y"]),))
    assert choose_ad(request("x"), scores(), known, 0, None).reason == "no campaign matches"


def test_campaign_matches_the_newest_items_category():
    known = catalogue(Item(item_id="x", category="tea"), campaigns=(campaign("c", "a", 1, target_categories=["tea"]),))
    assert choose_ad(request("y", "x"), scores(), known, 0, None).campaign_id == "c"


def test_campaign_does_not_run_at_its_end():
    known = catalogue(campaigns=(campaign("c", "a", 1, ends_at=START),))
    assert choose_ad(request("x"), scores(), known, 0, None).campaign_id is None


def test_campaign_runs_from_its_start():
    known = catalogue(campaigns=(campaign("c", "a", 1, starts_at=START),))
    assert choose_ad(request("x"), scores(), known, 0, None).campaign_id == "c"


def test_campaign_of_a_bought_item_is_not_shown():
    known = catalogue(campaigns=(campaign("c", "a", 1),))
    assert choose_ad(request("x", bought=("a",)), scores(), known, 0, None).campaign_id is None


def test_nothing_is_shown_below_the_reserve():
    known = catalogue(campaigns=(campaign("c", "a", 1),))
    ad = choose_ad(request("x"), scores(purchase=0.1), known, 0.2, None)
    assert (ad.campaign_id, ad.reason) == (None, "no campaign that matches reaches the reserve")


def test_ad_is_named_after_its_event():
    known = catalogue(campaigns=(campaign("c", "a", 1),))
    assert choose_ad(request("x"), scores(), known, 0, None).decision_id == "events-0-7-ad"


def test_ended_campaign_is_gone():
    known = catalogue(campaigns=(campaign("c", "a", 1),))
    known.update_campaign(b"c", None)
    assert known.matching(["x"]) == []


def test_catalogue_record_under_another_key_is_refused():
    assert Catalogue().update_item(b"b", encode(Item(item_id="a"))) == "the key says item 'b', the value 'a'"


def test_catalogue_record_that_cannot_be_read_is_refused():
    assert "JSON" in (Catalogue().update_item(b"a", b"rubbish") or "")


def test_catalogue_record_that_nests_too_deep_is_refused():
    deep = b'{"item_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "recursion" in (Catalogue().update_item(b"a", deep) or "").lower()


def explained(most: int, brought: list[list[float]], bought: tuple[str, ...] = ()) -> Recommendation:
    """Decide on candidates a, b, ... to whose scores the events on x, y and z brought these."""
    asked = msgspec.structs.replace(request("x", "y", "z", bought=bought, popular=("p",)), actions=bytes((1, 2, 1)))
    answer = scores(*"abcd"[: len(brought)])._replace(reasons=Reasons(np.array(brought), range(3)))
    return Policy(PolicySettings(k=3, reasons=most), Catalogue(), None, ()).recommend(asked, answer)


def because(decision: Recommendation) -> list[list[tuple[str, str, float]]]:
    return [[(of.item_id, of.action, of.contribution) for of in choice.because] for choice in decision.items]


def test_item_names_the_events_that_spoke_most_for_it():
    found = because(explained(2, [[1.0, 3.0, 2.0], [0.5, 0.25, 0.125]]))
    assert found == [[("y", ACTIONS[2], 3.0), ("z", "view", 2.0)], [("x", "view", 0.5), ("y", ACTIONS[2], 0.25)], []]


def test_events_that_spoke_against_an_item_are_not_named():
    assert because(explained(3, [[-1.0, 0.0, 2.0]]))[0] == [("z", "view", 2.0)]


def test_of_equal_contributions_the_newer_event_comes_first():
    assert [item for item, _, _ in because(explained(2, [[1.0, 1.0, 1.0]]))[0]] == ["z", "y"]


def test_reasons_are_those_of_the_item_that_is_shown():
    assert because(explained(1, [[1.0, 0, 0], [0, 1.0, 0]], bought=("a",)))[0] == [("y", ACTIONS[2], 1.0)]


def test_contributions_are_rounded_as_scores_are():
    assert because(explained(1, [[0.12345678, 0, 0]]))[0][0][2] == 0.123457


@pytest.mark.parametrize("most", [0, 1])
def test_decision_without_reasons_says_nothing_of_them(most: int):
    policy = Policy(PolicySettings(k=2, reasons=most), Catalogue(), None, ())
    assert b"because" not in encode_decision(policy.recommend(request("x", popular=("p",)), scores("a")))


def test_decision_says_why_where_it_is_asked_to():
    assert b'"because":[{"item_id":"z","action":"view","contribution":2.0}]' in encode_decision(
        explained(1, [[0, 0, 2.0]])
    )
