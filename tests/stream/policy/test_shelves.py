"""Shelves: which shelves a page has, what is on each, and that no item is twice on a page."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.decisions import Ad, Recommendation, Shelf, page_items
from clickscore.schemas.events import Search, View
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.policy.experiments import CONTROL
from clickscore.stream.policy.pages import decide_page, trace_page
from clickscore.stream.policy.policy_file import Boost, Hide, Limit, Pin, PolicyFile, load_policy
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelf_policy import Pages, ShelfTable
from clickscore.stream.policy.shelf_sources import companion_anchors
from clickscore.stream.policy.shelves import main_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Reasons, Request, Scores
from clickscore.stream.settings import PolicySettings, SessionSettings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from tests.events import Recorded, purchase, records, view
from tests.integration.event_log import event_log
from tests.scored_requests import make_campaign, make_catalogue, make_request, make_scores, plain

TEA = tuple(Item(item_id=name, category="tea", price=price) for name, price in (("a", 1.0), ("b", 2.0), ("t", 3.0)))
MUGS = tuple(Item(item_id=name, category="mugs") for name in ("m", "n"))


def on_page_of(item: str, *session: str, placements: Sequence[str] = ()) -> Request:
    """Return a request for the page of an item, after a session."""
    event = View(event_id="e", user_id="ann", ts=1_767_603_600_000, item_id=item)
    if placements:
        event = msgspec.structs.replace(event, placements=tuple(placements))
    return msgspec.structs.replace(make_request(*session, item, popular=("p", "t", "m")), event=event)


def decide(
    names: Sequence[str],
    request: Request,
    scores: Scores | None = None,
    campaigns: tuple[Campaign, ...] = (),
    **fields: object,
) -> tuple[Recommendation, Ad | None]:
    """Return the decision of a policy with shelves on the pages of views."""
    fields = {"k": 3, "hide": Hide(in_cart=False)} | fields
    policy = Policy(plain(pages=Pages(view=tuple(names)), **fields), "bundle", ("u", "n"))
    page, ad = decide_page(policy, request, scores, make_catalogue(*TEA, *MUGS, campaigns=campaigns))
    return msgspec.json.decode(page.value, type=Recommendation), ad


def shelves_of(decision: Recommendation) -> dict[str, str]:
    """Return the items of each shelf by name; an ad in capitals."""
    assert decision.shelf
    lists = {decision.shelf: decision.items} | {shelf.name: shelf.items for shelf in decision.shelves or ()}
    return {
        name: "".join(choice.item_id.upper() if choice.sponsored else choice.item_id for choice in items)
        for name, items in lists.items()
    }


def other_shelf(decision: Recommendation) -> Shelf:
    """Return the first shelf behind the main one."""
    assert decision.shelves
    return decision.shelves[0]


def test_page_without_shelves_is_a_plain_list():
    decision, _ = decide((), on_page_of("x"), make_scores("a", "b", "c", "d"))
    assert [choice.item_id for choice in decision.items] == ["a", "b", "c"]
    assert b"shel" not in msgspec.json.encode(decision)


def test_main_shelf_is_the_list_and_the_others_follow():
    decision, _ = decide(("for_you", "similar"), on_page_of("a"), make_scores("c", "d", "e", "t", "b"))
    assert shelves_of(decision) == {"for_you": "cde", "similar": "tb"}
    assert [shelf.job for shelf in decision.shelves or ()] == ["similar"]


def test_no_item_is_on_two_shelves():
    names = ("for_you", "similar", "popular_in_category", "recently_viewed")
    decision, _ = decide(names, on_page_of("a", "b", "z"), make_scores("b", "c", "t"))
    items = [choice.item_id for choice in page_items(decision)]
    assert len(items) == len(set(items))
    assert shelves_of(decision) == {"for_you": "bct", "similar": "", "popular_in_category": "", "recently_viewed": "z"}
    assert other_shelf(decision).filtered == {"on_page": 5}


def test_similar_items_are_those_of_the_model_in_the_category_then_those_by_price():
    decision, _ = decide(("similar",), on_page_of("a"), make_scores("c", "t"))
    assert shelves_of(decision) == {"similar": "tb"}
    assert [choice.reason for choice in decision.items] == ["model", "similar"]


def test_similar_items_without_a_model_are_the_nearest_in_price():
    decision, _ = decide(("similar",), on_page_of("b"))
    assert shelves_of(decision) == {"similar": "ta"}


@pytest.mark.parametrize("name", ["similar", "popular_in_category"])
def test_shelf_of_an_unknown_item_is_empty(name: str):
    decision, _ = decide(("for_you", name), on_page_of("x"))
    assert shelves_of(decision) == {"for_you": "ptm", name: ""}


def test_popular_items_of_the_category_come_from_the_partition_then_from_training():
    decision, _ = decide(("popular_in_category",), on_page_of("x"), None)
    assert shelves_of(decision) == {"popular_in_category": ""}
    page = on_page_of("k")
    catalogue = make_catalogue(*TEA, *MUGS, Item(item_id="k", category="mugs"))
    policy = Policy(plain(pages=Pages(view=("popular_in_category",))), "bundle", ("u", "n"))
    decision = msgspec.json.decode(decide_page(policy, page, None, catalogue)[0].value, type=Recommendation)
    assert [choice.item_id for choice in decision.items] == ["m", "n"]


def test_viewed_items_are_the_newest_first_and_no_reminder_cap_counts():
    decision, _ = decide(
        ("for_you", "recently_viewed"), on_page_of("x", "y", "z", "y"), make_scores("y", "c"), limit=Limit(reminders=0)
    )
    assert shelves_of(decision) == {"for_you": "cpt", "recently_viewed": "yz"}


def test_rules_hold_on_every_shelf():
    decision, _ = decide(
        ("for_you", "similar"), on_page_of("a"), make_scores("c", "t"), hide=Hide(categories=("tea",)), k=2
    )
    assert shelves_of(decision) == {"for_you": "cp", "similar": ""}
    assert other_shelf(decision).filtered["hidden_category"] == 4


def test_limit_of_a_category_leaves_shelves_of_one_category_alone():
    names, limit = ("for_you", "similar", "popular_in_category"), Limit(category=1)
    decision, _ = decide(names, on_page_of("a"), make_scores("m", "n"), limit=limit, k=2)
    assert shelves_of(decision) == {"for_you": "mp", "similar": "bt", "popular_in_category": ""}
    request = msgspec.structs.replace(on_page_of("b"), popular=["a", "t"])
    decision, _ = decide(("popular_in_category",), request, limit=limit)
    assert shelves_of(decision) == {"popular_in_category": "at"}


def test_shelf_has_its_own_size_and_pins_stay_in_the_list():
    shelves = {"tea": ShelfTable(job="similar", size=1)}
    decision, _ = decide(
        ("for_you", "tea"), on_page_of("a"), make_scores("c"), shelves=shelves, k=2, pin=(Pin(place=1, item="q"),)
    )
    assert shelves_of(decision) == {"for_you": "qc", "tea": "b"}


def test_event_names_the_shelves_of_its_page():
    request = on_page_of("a", placements=("similar", "unknown", "similar", "for_you"))
    decision, _ = decide(("for_you",), request, make_scores("c"))
    assert shelves_of(decision) == {"similar": "bt", "for_you": "cpm"}
    decision, _ = decide((), request, make_scores("c"))
    assert shelves_of(decision) == {"similar": "bt", "for_you": "cpm"}
    decision, _ = decide(("for_you",), on_page_of("a", placements=("unknown",)), make_scores("c"))
    assert not decision.shelf


def test_reasons_are_stated_on_every_shelf():
    scores = make_scores("c", "d", "t")._replace(reasons=Reasons(np.array([[0.25], [0.5], [0.75]]), range(1)))
    decision, _ = decide(("for_you", "similar"), on_page_of("a"), scores, k=2, reasons=1)
    assert [choice.because[0].contribution for choice in page_items(decision) if choice.because] == [0.25, 0.5, 0.75]


def test_counts_of_a_page_are_those_of_all_its_shelves():
    policy = Policy(plain(k=2, pages=Pages(view=("for_you", "recently_viewed"))), "bundle", ())
    page, _ = decide_page(policy, on_page_of("a", "b"), make_scores("b", "c"), make_catalogue())
    assert page.origins == {"model": 2, "viewed": 1}
    assert page.filtered == {"on_page": 1}


def test_boosts_move_items_of_any_origin():
    boosts = Boost(items={"y": 3.0})
    decision, _ = decide(("for_you", "recently_viewed"), on_page_of("x", "y", "z"), make_scores("c"), boost=boosts)
    assert shelves_of(decision)["recently_viewed"] == "yz"
    assert other_shelf(decision).moved == {"boost": 2}


CAMPAIGNS = make_campaign("c", "c", 2), make_campaign("t", "t", 1)


def test_ads_have_a_shelf_and_are_on_no_other():
    names = ("sponsored", "for_you", "similar")
    decision, ad = decide(names, on_page_of("a"), make_scores("c", "d"), CAMPAIGNS)
    assert shelves_of(decision) == {"for_you": "dpt", "sponsored": "C", "similar": "b"}
    plain_decision, same_ad = decide((), on_page_of("a"), make_scores("c", "d"), CAMPAIGNS)
    assert plain_decision.items[0].item_id == "c"
    assert ad is not None
    assert same_ad is not None
    assert ad.slots == same_ad.slots


def test_ad_within_the_list_leaves_no_item_twice():
    ads = Ads(placements={"beside": AdPlacement(), "list": AdPlacement(places=(1,))})
    decision, ad = decide(("for_you", "sponsored"), on_page_of("a"), make_scores("c", "d"), CAMPAIGNS, ads=ads)
    assert ad is not None
    assert shelves_of(decision) == {"for_you": "Cdp", "sponsored": "T"}


def test_event_that_names_two_shelves_of_ads_gets_the_first():
    request = on_page_of("a", placements=("for_you", "paid", "sponsored"))
    decision, _ = decide((), request, make_scores("d"), CAMPAIGNS, shelves={"paid": ShelfTable(job="sponsored")})
    assert shelves_of(decision) == {"for_you": "dpt", "paid": "C"}


def test_item_of_the_session_is_not_similar_to_itself():
    search = Search(event_id="e", user_id="ann", ts=1, placements=("similar",))
    request = msgspec.structs.replace(on_page_of("t"), event=search)
    assert shelves_of(decide((), request, None)[0]) == {"similar": "ba"}
    assert shelves_of(decide((), request, make_scores("t", "a"))[0]) == {"similar": "ab"}


def test_shelf_of_ads_is_empty_without_campaigns():
    decision, ad = decide(("for_you", "sponsored"), on_page_of("a"), make_scores("c"))
    assert shelves_of(decision) == {"for_you": "cpt", "sponsored": ""}
    assert ad is None


def test_event_that_names_ads_alone_gets_the_list_too():
    decision, _ = decide((), on_page_of("a", placements=("sponsored",)), make_scores("d"), CAMPAIGNS)
    assert shelves_of(decision) == {"for_you": "dpt", "sponsored": "C"}


def test_control_gets_popular_items_and_the_other_shelves():
    request = msgspec.structs.replace(on_page_of("a"), variant=CONTROL)
    decision, _ = decide(("for_you", "similar"), request, make_scores("c", "t"))
    assert shelves_of(decision) == {"for_you": "ptm", "similar": "b"}


def test_label_of_every_shelf_is_that_of_the_policy():
    file: PolicyFile = plain(pages=Pages(view=("recently_viewed",)))
    page, _ = decide_page(Policy(file, None, ()), on_page_of("x"), None, make_catalogue())
    assert msgspec.json.decode(page.value)["policy"] == file.label


def decide_one(
    name: str, request: Request, *, items: tuple[Item, ...] = (), placements: tuple[str, ...] = (), **fields: object
) -> list[tuple[str, str]]:
    """Return item and reason of each place of a page's main shelf."""
    policy = Policy(plain(pages=Pages(view=(name,)), **fields), "bundle", ())
    page, _ = decide_page(policy, request, make_scores("c"), make_catalogue(*TEA, *items))
    decision = msgspec.json.decode(page.value, type=Recommendation)
    return [(choice.item_id, choice.reason) for choice in decision.items]


def test_complements_are_the_companions_of_the_request():
    request = msgspec.structs.replace(on_page_of("a"), companions=["n", "b"])
    assert decide_one("complement", request) == [("n", "together"), ("b", "together")]
    assert decide_one("complement", on_page_of("a")) == []


def test_companions_are_those_of_the_items_on_screen_and_in_the_cart():
    in_cart = msgspec.structs.replace(on_page_of("a", "y", "x"), actions=bytes((2, 2, 1)))
    assert companion_anchors(in_cart, make_catalogue()) == ["a", "x", "y"]
    search = Search(event_id="e", user_id="ann", ts=1)
    assert companion_anchors(msgspec.structs.replace(on_page_of("a"), event=search), make_catalogue()) == ["a"]
    nothing = msgspec.structs.replace(on_page_of("a"), event=search, items=[], actions=b"")
    assert companion_anchors(nothing, make_catalogue()) == []


def buyer_of(**days: int) -> Request:
    return msgspec.structs.replace(
        on_page_of("x", "z"), actions=bytes((5, 1)), bought=frozenset((*days, "z")), purchases=days | {"z": TODAY}
    )


TODAY = 1_767_603_600_000 // 86_400_000


def test_items_to_buy_again_are_those_of_earlier_sessions_the_oldest_first():
    request = buyer_of(b=TODAY - 9, a=TODAY - 20)
    assert decide_one("buy_again", request) == [("b", "bought"), ("a", "bought")]


def test_items_to_buy_again_have_returned_where_the_policy_says_when():
    request = buyer_of(b=TODAY - 9, a=TODAY - 20, q=TODAY - 20)
    assert decide_one("buy_again", request, hide=Hide(again_after={"tea": 10})) == [("a", "bought")]


def test_new_items_are_the_newest_first_until_they_are_not_fresh_any_more():
    day = 86_400_000
    ages = {"now": 0, "old": 3 * day, "new": day, "tomorrow": -day}
    items = tuple(Item(item_id=name, listed_at=1_767_603_600_000 - age) for name, age in ages.items())
    shown = decide_one("new_in", on_page_of("x"), items=items, boost=Boost(fresh_days=3))
    assert shown == [("now", "new"), ("new", "new")]


def test_only_a_page_with_complements_reads_companions():
    policy = Policy(
        plain(pages=Pages(view=("for_you", "gifts")), shelves={"gifts": ShelfTable(job="complement")}), None, ()
    )
    search = Search(event_id="e", user_id="ann", ts=1)
    assert policy.reads_companions(on_page_of("a").event)
    assert not policy.reads_companions(on_page_of("a", placements=("for_you",)).event)
    assert not policy.reads_companions(search)


def test_companions_of_a_request_are_counted_up_to_its_event():
    file = plain(pages=Pages(view=("complement",)))
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue(), policy_file=file)
    sold = [purchase(user, 0, item) for user in ("ann", "bob") for item in ("x", "y")]
    output = pipeline.process(0, records(*sold[:3], view("cid", 1, "x"), sold[3], view("cid", 2, "x")))
    decisions = [msgspec.json.decode(message.value or b"", type=Recommendation) for message in output.recommendations]
    assert [[choice.item_id for choice in decision.items] for decision in decisions if decision.shelf] == [[], ["y"]]


def test_rules_of_each_shelf_are_traced_by_name():
    policy = Policy(plain(pages=Pages(view=("for_you", "recently_viewed"))), "bundle", ())
    traced = list(trace_page(policy, on_page_of("a", "b"), make_scores("b"), make_catalogue()))
    assert [(name, [effect.rule for effect in effects]) for name, _, effects in traced] == [
        ("for_you", []),
        ("recently_viewed", ["on_page"]),
    ]
    ((name, plain_policy, _),) = trace_page(Policy(plain(), None, ()), on_page_of("a"), None, make_catalogue())
    assert (name, plain_policy.shelf) == ("", None)


def test_page_is_judged_by_its_main_shelf():
    policy = Policy(plain(pages=Pages(view=("sponsored", "similar"))), "bundle", ())
    main = main_policy(policy, on_page_of("a"))
    assert main.shelf is not None
    assert main.shelf.name == "similar"
    search = Search(event_id="e", user_id="ann", ts=1)
    assert main_policy(policy, msgspec.structs.replace(on_page_of("a"), event=search)) is policy


def test_shelves_of_a_visitor_without_an_item_are_empty():
    search = Search(event_id="e", user_id="ann", ts=1, placements=("similar", "popular_in_category"))
    decision, _ = decide((), msgspec.structs.replace(on_page_of("a"), event=search, items=[], actions=b""))
    assert shelves_of(decision) == {"similar": "", "popular_in_category": ""}


def test_pages_are_the_same_in_any_batches_and_after_a_restart():
    sent = enumerate(event_log(700, seed=5, users=12, privacy=0.03))
    log = [Recorded(offset, -1, record.key, record.value) for offset, record in sent]

    def decide_all(size: int, restart_at: int) -> list[bytes | None]:
        values: list[bytes | None] = []
        changes: list[ChangelogRecord] = []
        shop = Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue(), policy_file=load_policy("shelves"))
        for start in range(0, len(log), size):
            output = shop.process(0, log[start : start + size])
            values += [message.value for message in output.recommendations]
            changes += output.changes
            if start == restart_at:
                shop.load({0: restore(changes, "events-0", SessionSettings())})
        return values

    values = decide_all(1, -1)
    assert values == decide_all(100, 400)
    assert sum(b'"shelves":[' in (value or b"") for value in values) > 100


def test_trace_of_the_control_has_the_ads_of_the_page():
    policy = Policy(plain(pages=Pages(view=("for_you", "similar")), ads=Ads(quality_weight=1.0)), "bundle", ())
    catalogue = make_catalogue(*TEA, Item(item_id="d", stock=0), campaigns=CAMPAIGNS)
    request, scores = msgspec.structs.replace(on_page_of("a"), variant=CONTROL), make_scores("t", "d", "e", "c")
    _, ad = decide_page(policy, request, scores, catalogue)
    assert ad is not None
    assert ad.item_id == "t"
    effects = [
        (shelf, *effect[:2]) for shelf, _, each in trace_page(policy, request, scores, catalogue) for effect in each
    ]
    assert effects == [("for_you", "t", "on_page"), ("similar", "t", "on_page")]
