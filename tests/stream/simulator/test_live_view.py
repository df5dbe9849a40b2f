"""Live view: words and numbers of a demo."""

import dataclasses
import io
import re

import msgspec
import pytest
from rich.console import Console

from clickscore.schemas.decisions import Choice, Shelf
from clickscore.schemas.events import Cart, Click, Favourite, Purchase, RemoveFromCart, Search, View
from clickscore.stream.simulator.demo_metrics import Latency
from clickscore.stream.simulator.live_view import Frame, line, pseudonym, render, sentence
from clickscore.stream.simulator.shop.live import Reactions
from clickscore.stream.terminal_text import safe_text
from tests.stream.simulator.test_demo_metrics import recommendation

TITLES = {"red-kettle": "Red kettle"}
UNKNOWN = Frame(
    seconds=0.0,
    events_per_s=0.0,
    decisions_per_s=0.0,
    latency=Latency(p50=None, p99=None),
    open_sessions=None,
    lag=None,
    dead_letters=0,
    variants={},
    shelves={},
    sentences=[],
)
BUSY = Frame(
    seconds=61.2,
    events_per_s=203.4,
    decisions_per_s=1_234.0,
    latency=Latency(p50=7, p99=1_300),
    open_sessions=412,
    lag=3,
    dead_letters=2,
    variants={"popular": Reactions(400, 8, 1), "model": Reactions(410, 41, 5)},
    shelves={"similar": Reactions(300, 9, 2)},
    sentences=["Anna-3f2a looked at Red kettle → we show Coral teapot"],
)


def deed(kind, **fields):
    return kind(event_id="e", user_id="shopper-1", ts=0, **fields)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (View, "looked at Red kettle"),
        (Cart, "put Red kettle into the cart"),
        (RemoveFromCart, "took Red kettle out of the cart"),
        (Favourite, "wishes for Red kettle"),
        (Purchase, "bought Red kettle"),
        (Click, "clicked on Red kettle"),
    ],
)
def test_sentence_says_what_was_done_with_the_item(kind, words):
    event = deed(kind, item_id="red-kettle")
    assert sentence(event, recommendation(event), TITLES) == f"{pseudonym('shopper-1')} {words} → we show Red kettle"


@pytest.mark.parametrize("query", ["\x1b[2J", "\x1b]0;title\x07", "\u202eevil", "\x9b31m", "[/bold]"])
def test_query_and_item_id_command_no_terminal(query):
    for event in (deed(Search, query=query), deed(View, item_id=query)):  # the id has no title
        text = sentence(event, recommendation(event), {"i": query})
        assert text == safe_text(text)
        console = Console(width=100, force_terminal=True, color_system=None)
        with console.capture() as capture:
            console.print(render("demo", dataclasses.replace(BUSY, sentences=[text])))
        assert safe_text(capture.get(), lines=True) == capture.get()


def test_sentence_says_what_was_searched_for():
    event = deed(Search, query="tea")
    assert "searched for “tea”" in sentence(event, recommendation(event), TITLES)


def test_item_without_a_title_is_named_by_its_id():
    event = deed(View, item_id="unknown-thing")
    assert "unknown-thing" in sentence(event, recommendation(event), TITLES)


def test_pseudonym_is_always_the_same_and_holds_no_id():
    assert pseudonym("shopper-1") == pseudonym("shopper-1") != pseudonym("shopper-2")
    assert "shopper" not in pseudonym("shopper-1")


def test_plain_line_has_the_numbers():
    assert line(BUSY) == (
        "  61 s  203 events/s  1,234 decisions/s  p50 7 ms  p99 1,300 ms  open sessions 412  lag 3  dead letters 2  "
        "model 41/410 clicked, 5 bought, popular 8/400 clicked, 1 bought"
    )


def test_what_is_not_known_yet_is_a_dash():
    assert "p50 -  p99 -  open sessions -  lag -" in line(UNKNOWN)


@pytest.mark.parametrize("frame", [UNKNOWN, BUSY])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_live_view_fits_terminals_of_any_width(frame, width):
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(render("Clickscore demo", frame))
    assert "events/s" in captured.get()


def test_live_view_shows_reactions_by_variant():
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render("Clickscore demo", BUSY))
    shown = captured.get()
    assert "10.0" in shown  # clicks per 100 impressions of the model's
    assert "Anna-3f2a looked at Red kettle" in shown


def test_sentence_names_the_shelves_that_have_items():
    event = deed(View, item_id="red-kettle")
    items = (Choice(item_id="red-kettle", score=0.0, propensity=1.0, reason="viewed"),)
    shelves = Shelf(name="again", job="recently_viewed", items=items), Shelf(name="similar", job="similar", items=())
    decision = msgspec.structs.replace(recommendation(event), shelf="for_you", shelves=shelves)
    assert sentence(event, decision, TITLES).endswith("we show Red kettle; again: Red kettle, ...")


def test_frame_shows_the_shelves_by_name():
    shown = Console(width=200, record=True, file=io.StringIO())
    shown.print(render("title", BUSY))
    assert re.search(r"similar +300 +9 +3\.0 +2", shown.export_text())


def test_sentence_marks_ads_in_the_list_and_on_shelves():
    event = deed(View, item_id="red-kettle")
    ad = Choice(item_id="red-kettle", score=0.0, propensity=1.0, reason="sponsored", sponsored=True, campaign_id="c")
    shelves = (Shelf(name="partners", job="sponsored", items=(ad,)),)
    decision = msgspec.structs.replace(recommendation(event), items=(ad,), shelf="for_you", shelves=shelves)
    assert sentence(event, decision, TITLES).endswith("we show Red kettle (ad); partners: Red kettle (ad), ...")
