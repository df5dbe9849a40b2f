"""Demo counts: measured, or none."""

from collections import Counter

import msgspec
import pytest

from clickscore.schemas.decisions import Ad, Choice, Recommendation
from clickscore.schemas.events import Impression, View
from clickscore.schemas.topics import ADS, RECOMMENDATIONS
from clickscore.stream.simulator.demo_metrics import DemoMetrics, Summary, percentile
from clickscore.stream.simulator.shop.live import Reactions
from clickscore.stream.simulator.shop.shop_events import Truth


def view(number: int, ts: int = 1_000) -> View:
    return View(event_id=f"e{number}", user_id="u", ts=ts, item_id="red-kettle")


def truth(event, **fields) -> Truth:
    return Truth(
        event_id=event.event_id,
        intent="browse",
        style="bright",
        need="Tea",
        stage="looking",
        fit="both",
        purchase=0.1,
        actions={},
        **fields,
    )


def recommendation(event) -> Recommendation:
    return Recommendation(
        decision_id="d",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=None,
        policy="1",
        variant="model",
        session_id="s",
        session_length=1,
        late=False,
        actions=None,
        purchase=None,
        items=(Choice(item_id="red-kettle", score=0.0, propensity=1.0, reason="model"),),
        filtered={},
    )


def ad(event) -> Ad:
    return Ad(
        decision_id="d-ad",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=None,
        policy="1",
        variant="model",
        session_id="s",
        campaign_id=None,
        item_id=None,
        bid=None,
        purchase=None,
        propensity=1.0,
        reason="",
    )


@pytest.fixture
def counts() -> DemoMetrics:
    return DemoMetrics(
        began_at=500, variants={"popular": Reactions(), "model": Reactions(impressions=3, clicks=1)}, shelves={}
    )


def send_and_decide(counts: DemoMetrics, event, appended_at: int, **fields) -> None:
    counts.sent(event, truth(event, **fields))
    counts.decided(RECOMMENDATIONS.name, recommendation(event), appended_at)


def test_what_was_not_seen_is_none(counts):
    assert counts.summary.first_decision_s is None
    assert (counts.latency.p50, counts.latency.p99) == (None, None)


def test_summary_has_the_keys_that_are_promised(counts):
    assert msgspec.to_builtins(counts.summary) == {
        "events": 0,
        "decisions": {"recommendation-decisions": 0, "ad-decisions": 0},
        "dead_letters": 0,
        "first_decision_s": None,
        "latency_ms": {"p50": None, "p99": None},
        "variants": {
            "model": {"impressions": 3, "clicks": 1, "purchases": 0},
            "popular": {"impressions": 0, "clicks": 0, "purchases": 0},
        },
        "shelves": {},
    }
    assert list(msgspec.to_builtins(counts.summary)) == [field.name for field in msgspec.structs.fields(Summary)]


def test_latency_is_from_the_event_to_the_broker_taking_its_recommendation(counts):
    send_and_decide(counts, view(1, ts=1_000), appended_at=1_007)
    assert counts.latency.p50 == 7
    assert counts.summary.first_decision_s == pytest.approx(0.507)


def test_event_that_was_sent_late_says_nothing_about_latency(counts):
    send_and_decide(counts, view(1), appended_at=9_000, delay_ms=7_000)
    assert counts.latency.p50 is None
    assert counts.decisions[RECOMMENDATIONS.name] == 1


def test_second_decision_about_an_event_is_counted_but_not_measured(counts):
    send_and_decide(counts, view(1), appended_at=1_005)
    counts.decided(RECOMMENDATIONS.name, recommendation(view(1)), 5_000)
    assert counts.decisions[RECOMMENDATIONS.name] == 2
    assert counts.latency.p99 == 5


def test_ads_are_counted_under_their_topic(counts):
    counts.sent(view(1), truth(view(1)))
    counts.decided(ADS.name, ad(view(1)), 1_004)
    assert counts.decisions == {RECOMMENDATIONS.name: 0, ADS.name: 1}
    assert counts.latency.p50 is None


def test_impressions_are_counted_as_events(counts):
    event = Impression(event_id="e", user_id="u", ts=0, item_id="red-kettle")
    counts.sent(event, truth(event))
    assert counts.events == 1


def test_dead_letters_are_counted(counts):
    counts.dead_lettered()
    assert counts.summary.dead_letters == 1


def test_memory_is_bounded_where_nobody_decides(counts):
    for number in range(20_010):
        counts.sent(view(number), truth(view(number)))
    counts.decided(RECOMMENDATIONS.name, recommendation(view(0)), 2_000)
    assert counts.latency.p50 is None
    counts.decided(RECOMMENDATIONS.name, recommendation(view(20_009)), 2_000)
    assert counts.latency.p50 == 1_000


def test_percentiles_are_values_that_occurred():
    hundred = Counter(range(1, 101))
    assert (percentile(hundred, 0.5), percentile(hundred, 0.99), percentile(hundred, 1.0)) == (50, 99, 100)
    assert percentile(Counter({7: 1}), 0.5) == 7
