"""Campaign history: every page of a campaign is counted once, by what became of the campaign."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.decisions import ExclusionCause
from clickscore.schemas.events import AnyEvent, Impression
from clickscore.stream.due_decisions import DecidedPage, DueDecision
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.ad_policy import AdPlacement, Ads
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.ad_text import CAUSE_WORDS, UNPLACED_WORDS, describe_history
from clickscore.stream.replay.campaign_history import CampaignHistory, CampaignWatch
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import Settings
from tests.events import START, impression, records, view
from tests.scored_requests import make_campaign, plain

TEA = [view("ann", minute, "kettle") for minute in range(4)]
"""Four pages of the category tea."""


def history(
    *campaigns: Campaign,
    events: Sequence[AnyEvent] = TEA,
    pacing: Mapping[str, float] = MappingProxyType({}),
    **ads: object,
) -> CampaignHistory:
    """Return the history of the campaign `a`; pacing is the factor on the bid of each campaign with a budget."""
    values = Settings.of()
    policy = plain(ads=Ads(**ads))  # pyright: ignore[reportArgumentType]
    pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue(), policy_file=policy)
    for name, fields in (("kettle", {"category": "tea"}), ("gone", {"stock": 0})):
        item = Item(item_id=name, **fields)  # pyright: ignore[reportArgumentType]
        pipeline.catalogue.update_item(name.encode(), encode(item))
    for campaign in campaigns:
        pipeline.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    watch = CampaignWatch("a")

    def watch_paced(due: DueDecision, scores: Scores | None, page: DecidedPage) -> None:
        request: Request = msgspec.structs.replace(due.request, find_multiplier=pacing.get)
        _, ad = due.decider.decide(request, scores, due.catalogue)
        watch(msgspec.structs.replace(due, request=request), scores, msgspec.structs.replace(page, ad=ad))

    pipeline.watch = watch_paced
    pipeline.process(0, [record._replace(timestamp=-1) for record in records(*events)])
    return watch.history()


def test_winner_pays_the_price_and_its_pages_add_up():
    result = history(make_campaign("a", "x", 2.0), make_campaign("b", "y", 1.0))
    assert (result.pages, result.entered, result.won, result.lost) == (4, 4, 4, 0)
    assert result.mean_price == pytest.approx(1.0)
    assert result.expected_spend == pytest.approx(4 * 1.0 * 0.01)
    assert result.placements == {"beside": 4}


def test_loser_learns_to_whom_at_which_price_and_which_bid_would_have_won():
    result = history(make_campaign("a", "x", 1.0), make_campaign("b", "y", 3.0), make_campaign("c", "z", 2.0))
    (rival,) = result.lost_to
    assert (rival.campaign_id, rival.times, rival.share, rival.mean_price) == ("b", 4, 1.0, 2.0)
    assert (result.lost, result.mean_bid, result.winning_bid) == (4, 1.0, pytest.approx(3.0))


def test_price_of_the_winner_leaves_out_machines():
    machine = msgspec.structs.replace(view("bot", 5, "kettle"), client="bot")
    result = history(make_campaign("a", "x", 1.0), make_campaign("b", "y", 3.0), events=[*TEA, machine])
    assert [(rival.times, rival.mean_price) for rival in result.lost_to] == [(5, 1.0)]


def test_scores_and_the_bid_that_would_have_won_count_the_pacing():
    rivals = make_campaign("a", "x", 1.0, daily_budget=9.0), make_campaign("b", "y", 10.0, daily_budget=9.0)
    lost = history(*rivals, pacing={"a": 0.5, "b": 0.1})
    assert (lost.lost, lost.mean_bid, lost.winning_bid) == (4, 1.0, pytest.approx(2.0))
    assert history(*rivals, pacing={"a": 0.5, "b": 0.04}).won == 4
    assert history(*rivals, pacing={"b": 0.1}).excluded == {"budget": 4}


def test_campaign_of_the_same_item_takes_the_item():
    slots = {"top": AdPlacement(exposure=(1.0, 1.0))}
    rivals = make_campaign("b", "x", 3.0), make_campaign("c", "z", 2.0)
    result = history(make_campaign("a", "x", 1.0), *rivals, placements=slots)
    assert [rival.campaign_id for rival in result.lost_to] == ["b"]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"starts_at": START + 10**9}, "not_running"),
        ({"item": "gone"}, "item"),
        ({"quality_floor": 1.0, "frequency_cap": 1}, "cap"),
    ],
)
def test_campaign_that_does_not_enter_is_counted_by_cause(fields: dict[str, object], cause: ExclusionCause):
    shown: Impression = msgspec.structs.replace(impression("ann", 0), campaign_id="a")
    item = str(fields.pop("item", "x"))
    result = history(make_campaign("a", item, 1.0, **fields), events=[TEA[0], shown, *TEA[1:]])
    assert result.excluded[cause] >= 3
    assert result.pages == result.entered + sum(result.excluded.values())


def test_page_of_another_target_is_no_match():
    result = history(make_campaign("a", "x", 1.0, target_categories=["coffee"]), make_campaign("b", "y", 1.0))
    assert (result.pages, result.no_match) == (4, 4)
    assert list(describe_history(result))[-1].startswith("It matched no page")


def test_page_without_a_campaign_of_this_id_is_counted_as_such():
    result = history(make_campaign("b", "y", 1.0))
    assert (result.pages, result.absent, result.no_match) == (4, 4, 0)
    words = list(describe_history(result))
    assert words[1].endswith("100.0%  no campaign had this id at the time (absent)")
    assert words[-1].startswith("Look whether the id is right.")


@pytest.mark.parametrize(
    ("fields", "ads", "cause"),
    [
        ({}, {"reserve": 0.5}, "reserve"),
        ({"placements": ["top"]}, {}, "placement"),
        ({}, {"placements": {"list": AdPlacement(places=(9,))}}, "position"),
    ],
)
def test_campaign_that_enters_without_a_rival_and_gets_no_slot(
    fields: dict[str, object], ads: dict[str, object], cause: str
):
    result = history(make_campaign("a", "x", 1.0, **fields), **ads)  # pyright: ignore[reportArgumentType]
    assert result.unplaced == {cause: 4}


def test_ad_load_of_the_session_is_a_cause():
    shown: Impression = msgspec.structs.replace(impression("ann", 0), campaign_id="z")
    result = history(make_campaign("a", "x", 1.0), events=[TEA[0], shown, *TEA[1:]], per_session=1)
    assert result.unplaced["ad_load"] >= 3
    assert result.won >= 1


def test_machine_is_not_charged():
    bot: list[AnyEvent] = [msgspec.structs.replace(event, client="bot") for event in TEA]
    result = history(make_campaign("a", "x", 1.0), make_campaign("b", "y", 0.5), events=bot)
    assert (result.won, result.mean_price, result.expected_spend) == (4, None, 0.0)


def test_pages_without_an_ad_decision_are_counted_apart():
    result = history()
    assert (result.pages, result.other_pages) == (0, 4)


def test_every_cause_of_a_decision_has_words():
    assert set(CAUSE_WORDS) == set(ExclusionCause.__args__)


def test_text_names_every_count():
    won = "\n".join(describe_history(history(make_campaign("a", "x", 2.0), make_campaign("b", "y", 1.0))))
    assert "100.0%  it won a slot (won)" in won
    assert "Mean price 1; expected spend 0.04; placements: beside 4." in won
    lost = "\n".join(describe_history(history(make_campaign("a", "x", 1.0), make_campaign("b", "y", 3.0))))
    assert "a mean bid of 3 would have reached the winners' scores" in lost
    assert "to b, which paid 1 on average" in lost
    assert UNPLACED_WORDS["reserve"] in "\n".join(describe_history(history(make_campaign("a", "x", 1.0), reserve=0.5)))
    assert "had no ad decision" in "\n".join(describe_history(history()))
