"""Click rates in the pipeline: outcomes change the probabilities of later decisions, the same in every replay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clickscore.schemas.catalogue import Campaign, encode
from clickscore.schemas.clients import Client
from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.schemas.events import AnyEvent, Click, encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.budgets.click_rates import ENOUGH_CLICKS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.policy.ads import payment_probability
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.explainer import ADS_GONE
from clickscore.stream.replay.reference_log import ReferenceLog
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.state.ledger import MAX_CLOSURES
from tests.bundles import small_bundle
from tests.events import MINUTE, START, Recorded, impression, records, view
from tests.scored_requests import make_campaign, plain
from tests.stream.replay.past import Past, campaign_record, epoch_record


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


SHARE = 0.1
"""Click probability of an ad before anything is learned: without a model, every next action is a click."""
LATER = 60.0
"""A minute by which the click windows are over."""


def campaigns() -> list[Campaign]:
    return [
        make_campaign("tea", "ad", 1.0, target_items=["kettle"]),
        make_campaign("mugs", "mug-ad", 1.0, target_items=["mug"]),
        make_campaign("show", "show-ad", 9.0, bid_per="thousand_impressions", target_items=["show"]),
    ]


def make_pipeline() -> Pipeline:
    values = Settings.of()
    made = Pipeline(
        values.sessions, values.policy, "events", Catalogue(), policy_file=plain(ads=Ads(share=SHARE, reserve=0.0))
    )
    for campaign in campaigns():
        made.catalogue.update_campaign(campaign.campaign_id.encode(), encode(campaign))
    return made


def shopper(number: int, *, item: str, is_clicked: bool, page_id: str, client: Client | None) -> list[AnyEvent]:
    """Return the events of a shopper who sees an ad.

    Args:
        number: Number of the shopper.
        item: Item on screen, which an ad targets.
        is_clicked: Whether the shopper clicks the ad.
        page_id: Id of the decision on the first event.
        client: Class of the shopper.
    """
    user, minute = f"user-{number}", number / 100
    page = msgspec.structs.replace(view(user, minute, item), client=client or msgspec.UNSET)
    campaign, ad = {"kettle": ("tea", "ad"), "mug": ("mugs", "mug-ad"), "show": ("show", "show-ad")}[item]
    names: dict[str, Any] = {"decision_id": page_id, "campaign_id": campaign, "item_id": ad}
    seen = msgspec.structs.replace(impression(user, minute + 0.01), **names)
    ts = START + round((minute + 0.1) * MINUTE)
    click = Click(event_id=f"{user}-clicks", user_id=user, ts=ts, **names)
    return [page, seen, click if is_clicked else view(user, minute + 0.1, "other")]


def log_of(*events: AnyEvent) -> list[Recorded]:
    return [Recorded(offset, -1, None, encode_event(event)) for offset, event in enumerate(events)]


def ads_of(pipeline: Pipeline, log: Sequence[Recorded], batch: int = 1_000) -> dict[str, Ad]:
    """Process a log in batches; return the decisions on ads."""
    ads: dict[str, Ad] = {}
    for start in range(0, len(log), batch):
        for message in pipeline.process(0, log[start : start + batch]).ads:
            ad = decode_decision(message.value or b"")
            assert isinstance(ad, Ad)
            ads[ad.decision_id] = ad
    return ads


def day_of_clicks(
    count: int = ENOUGH_CLICKS, *, source: str = "events-0", first: int = 0, client: Client | None = None
) -> list[AnyEvent]:
    """Return a day on which some shoppers click the ad `tea`, and as many do not click the ad `mugs`.

    Args:
        count: Number of clicks.
        source: Topic and partition of the log.
        first: Offset of the first event.
        client: Class of the shoppers.
    """
    events: list[AnyEvent] = []
    for number in range(2 * count):
        page_id = f"{source}-{first + len(events)}"
        is_clicked = number % 2 == 0
        item = "kettle" if is_clicked else "mug"
        events += shopper(number, item=item, is_clicked=is_clicked, page_id=page_id, client=client)
    events += [view(f"passer-{number}", LATER, "other") for number in range(1 + 2 * count // MAX_CLOSURES)]
    return [*events, view("ann", LATER, "kettle"), view("ann", LATER, "mug"), view("ann", LATER, "show")]


def test_probability_of_a_click_follows_from_outcomes_where_there_are_enough():
    events = day_of_clicks()
    ads = ads_of(make_pipeline(), log_of(*events))
    first, *_ = ads.values()
    assert first.click_factors is msgspec.UNSET
    assert first.slots[0].probability == SHARE
    kettle, both = (ads[f"events-0-{len(events) - number}-ad"] for number in (3, 2))
    assert kettle.click_factors == {"tea": pytest.approx((100 + 20) / (10 + 20 / 5))}
    assert kettle.slots[0].probability == pytest.approx(SHARE * 120 / 14, abs=1e-6)
    assert isinstance(both.click_factors, dict)
    assert both.click_factors["mugs"] == pytest.approx(20 / (10 + 20 / 5), abs=1e-6)
    assert both.slots[0].campaign_id == "tea", "the same bid and quality, but it is clicked more often"
    show = ads[f"events-0-{len(events) - 1}-ad"]
    assert "show" not in (show.click_factors or {}), "an impression is certain"


def test_learned_probability_is_1_at_most():
    tea, *_ = campaigns()
    assert payment_probability(tea, None, 0.5, 1.5) == 0.75
    assert payment_probability(tea, None, 0.5, 3.0) == 1.0


@pytest.mark.parametrize("fields", [{"client": "bot"}, {"count": ENOUGH_CLICKS - 1}])
def test_nothing_is_learned_from_machines_or_from_too_few_clicks(fields: dict[str, Any]):
    events = day_of_clicks(**fields)
    ads = ads_of(make_pipeline(), log_of(*events))
    assert ads[f"events-0-{len(events) - 3}-ad"].click_factors is msgspec.UNSET


def test_factors_are_the_same_in_any_batch_and_after_a_restart():
    events = day_of_clicks()
    log = log_of(*events)
    live, replay = make_pipeline(), make_pipeline()
    assert ads_of(live, log) == ads_of(replay, log, batch=7)
    contents = live.state(0).contents()
    assert contents == replay.state(0).contents()
    restarted = make_pipeline()
    changes = [ChangelogRecord(key, value, 0) for key, value in contents.items()]
    restarted.load({0: restore(changes, "events-0", Settings.of().sessions)})
    further = [Recorded(len(log), -1, None, encode_event(view("bob", LATER + 1)))]
    assert ads_of(restarted, further) == ads_of(live, further)


def test_explanation_takes_the_factors_from_the_decision_on_ads(bundle: Path):
    stored = [campaign_record(number, campaign) for number, campaign in enumerate(campaigns())]
    reference = ReferenceLog(records=stored, catalogue=0, campaigns=len(stored))
    events = day_of_clicks(source=f"{EVENTS.name}-0", first=1)
    past = Past(records(epoch_record(1, 0, len(stored)), *events), reference).decide(bundle)
    last = f"{EVENTS.name}-0-{len(events) - 2}-ad"
    assert b'"click_factors"' in past.published.values[last]
    (explanation,) = past.explain(last, bundle=bundle)
    assert explanation.verdict == "equal"
    assert ADS_GONE not in explanation.approximate
