"""Rule trace: every removal and move is noted, by the very stages that decide."""

from clickscore.schemas.catalogue import Item
from clickscore.stream.policy.policy_file import Limit, Pin, PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.rule_trace import RuleEffect
from clickscore.stream.policy.rules import Reranker
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request
from tests.scored_requests import make_catalogue, make_request, make_scores, plain


def tea_first(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
    del request, catalogue
    return sorted(slate, key=lambda choice: choice.item_id != "tea")


def drop_last(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
    del request, catalogue
    return slate[:-1]


RERANKERS = [Reranker("tea_first", "tea comes first", tea_first), Reranker("drop_last", "the last goes", drop_last)]


def policy(reminders: int = 1, **options: object) -> Policy:
    file = PolicyFile(version="test-1", owner="tests", k=3, limit=Limit(reminders=reminders))
    return Policy(file, "bundle", (), **options)  # pyright: ignore[reportArgumentType]


def test_filters_and_caps_are_noted_in_the_order_of_the_candidates_and_no_further_than_the_list():
    catalogue = make_catalogue(Item(item_id="b", stock=0), Item(item_id="z", stock=0))
    request = make_request("a", "c", bought=("d",), popular=("b", "d", "y"))
    scores = make_scores("a", "b", "c", "d", "e", "f", "z")
    assert policy().trace(request, scores, catalogue) == [
        RuleEffect("b", "out_of_stock"),
        RuleEffect("c", "reminders"),
        RuleEffect("d", "bought"),
    ]


def test_item_that_several_sources_offer_is_noted_once():
    catalogue = make_catalogue(Item(item_id="b", stock=0))
    request = make_request("x", popular=("b", "p"))
    decision = policy().recommend(request, make_scores("b"), catalogue)
    assert decision.filtered == {"out_of_stock": 2}
    assert policy().trace(request, make_scores("b"), catalogue) == [RuleEffect("b", "out_of_stock")]


def test_without_a_rule_in_effect_nothing_is_noted():
    assert policy().trace(make_request("x"), make_scores("a", "b", "c", "d"), Catalogue()) == []


def test_rerankers_are_noted_with_the_ranks_before_and_after_within_the_list():
    catalogue = make_catalogue(Item(item_id="b", stock=0))
    scores = make_scores("a", "b", "c", "tea", "f", "g")
    assert policy(rerankers=RERANKERS).trace(make_request("a", "c"), scores, catalogue) == [
        RuleEffect("b", "out_of_stock"),
        RuleEffect("a", "tea_first", 1, 2),
        RuleEffect("c", "tea_first", 2, 3),
        RuleEffect("tea", "tea_first", 3, 1),
        RuleEffect("c", "reminders"),
    ]


def test_item_that_a_reranker_leaves_out_has_no_rank_after():
    effects = policy(rerankers=RERANKERS[1:]).trace(make_request("x"), make_scores("a", "b"), Catalogue())
    assert effects == [RuleEffect("b", "drop_last", 2, None)]


def test_pinned_item_is_noted_with_its_place():
    effects = Policy(plain(k=2, pin=(Pin(place=1, item="z"),)), "bundle", ()).trace(
        make_request("x"), make_scores("a", "b"), Catalogue()
    )
    assert effects == [
        RuleEffect("a", "pin", 1, 2),
        RuleEffect("b", "pin", 2, None),
        RuleEffect("z", "pin", None, 1),
    ]
