"""Pins: items in fixed places."""

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Recommendation
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import Pin
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import PolicySettings, SessionSettings
from tests.events import records, view
from tests.scored_requests import make_catalogue, make_request, make_scores, plain

PINS = (Pin(place=2, item="z"), Pin(place=4, item="c"))


def decide(*items: str, pins: tuple[Pin, ...] = PINS, catalogue: Catalogue | None = None) -> Recommendation:
    policy = Policy(plain(k=4, pin=pins), "bundle", ())
    return policy.recommend(make_request("x"), make_scores(*items), catalogue or Catalogue())


def order(decision: Recommendation) -> str:
    return "".join(choice.item_id for choice in decision.items)


def test_pinned_items_have_their_places_and_the_others_move_back():
    decision = decide("a", "b", "c", "d", "e")
    assert order(decision) == "azbc"
    assert [choice.reason for choice in decision.items] == ["model", "pinned", "model", "pinned"]
    assert decision.moved == {"pin": 3}


def test_pinned_item_passes_the_filters():
    assert order(decide("a", "b", "c", "d", catalogue=make_catalogue(Item(item_id="z", stock=0)))) == "abdc"


def test_short_list_keeps_its_pins():
    decision = decide("a")
    assert order(decision) == "azc"
    assert decision.moved == {"pin": 2}
    assert decide().moved == {"pin": 2}


def test_pinned_items_count_as_neither_model_nor_fallback():
    policy = Policy(plain(k=4, pin=PINS), "bundle", ())
    encoded = policy.encoded(make_request("x", popular=("p",)), make_scores("a"), Catalogue())
    assert encoded.origins == {"model": 1, "popular": 1}


def test_pipeline_counts_the_places_that_pins_moved():
    policy = plain(k=2, pin=(Pin(place=1, item="z"),))
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "events", Catalogue(), policy_file=policy)
    output = pipeline.process(0, records(view("ann", 0, "a"), view("bob", 1, "b")))  # ann's page: z, a; bob's: z, a
    assert output.moved == {"pin": 4}
