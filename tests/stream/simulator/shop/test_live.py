"""The shop while it is open: the same for the same times and decisions, and shoppers who click what fits."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from clickscore.schemas.decisions import Ad, Choice, Recommendation, Shelf, SoldSlot
from clickscore.schemas.events import Click, Impression, ItemEvent, View, decode_record, encode_event
from clickscore.stream.simulator.shop.live import LiveShop
from clickscore.stream.simulator.shop.shoppers import make_shop

pytestmark = pytest.mark.slow

SHOP = make_shop(7)
ROWS = {item.item_id: row for row, item in enumerate(SHOP.assortment.items)}
POPULAR = [SHOP.assortment.items[row].item_id for row in np.argsort(-SHOP.assortment.weights)[:10]]


def like(event) -> list[str]:
    """Ten items of the same category and style: what a good model would show."""
    first = ROWS[event.item_id] // 16 * 16 if isinstance(event, ItemEvent) else 0
    return [SHOP.assortment.items[row].item_id for row in range(first, first + 10)]


def recommend(event, variant: str, items: list[str]) -> Recommendation:
    return Recommendation(
        decision_id=f"d-{event.event_id}",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=None,
        policy="1",
        variant=variant,
        session_id=event.session_id,
        session_length=1,
        late=False,
        actions=None,
        purchase=None,
        items=tuple(Choice(item_id=item, score=0.0, propensity=1.0, reason=variant) for item in items),
        filtered={},
    )


def advertise(event, item: str) -> Ad:
    return Ad(
        decision_id=f"d-{event.event_id}-ad",
        user_id=event.user_id,
        event_id=event.event_id,
        ts=event.ts,
        bundle=None,
        policy="1",
        variant="model",
        session_id=event.session_id,
        campaign_id="campaign-00",
        item_id=item,
        bid=1.0,
        purchase=None,
        propensity=1.0,
        reason="",
        slots=(
            SoldSlot(
                placement="beside",
                slot=0,
                position=None,
                campaign_id="campaign-00",
                item_id=item,
                bid=1.0,
                bid_per="click",
                probability=1.0,
                quality=1.0,
                exposure=1.0,
                price=1.0,
                runner_up=None,
            ),
        ),
    )


def run(decide, *, seconds: int = 20, rate: float = 200.0):
    """Keep the shop open; `decide` returns the decisions about an event, which arrive one step later."""
    live = LiveShop(SHOP, "t", rate=rate)
    sent, malformed, items, decisions = [], [], [], []
    for at in range(0, seconds * 1_000, 20):
        for decision in decisions:
            live.receive(decision)
        out = live.advance(at)
        decisions = [
            decision for event, _ in out.events if not isinstance(event, Impression) for decision in decide(event)
        ]
        sent += out.events
        malformed += out.malformed
        items += out.items
    return live, sent, malformed, items


def half_and_half(event):
    model = ROWS.get(getattr(event, "item_id", ""), 0) % 2  # any split that has nothing to do with the shopper
    yield recommend(event, "model", like(event)) if model else recommend(event, "popular", POPULAR)


@pytest.fixture(scope="module")
def evening():
    return run(half_and_half)


def test_same_times_and_decisions_give_the_same_records(evening):
    _, again, _, _ = run(half_and_half)
    assert [encode_event(event) for event, _ in again] == [encode_event(event) for event, _ in evening[1]]


def test_records_come_at_the_rate_that_was_asked_for(evening):
    assert 0.9 < len(evening[1]) / (20 * 200 * 1.15) < 1.1  # at nine in the morning it is a little busier than average


def test_no_event_lies_in_the_future(evening):
    assert all(event.ts + truth.delay_ms >= event.ts for event, truth in evening[1])
    assert max(event.ts for event, _ in evening[1]) < 20_000


def test_event_ids_are_repeated_only_on_purpose(evening):
    counts = Counter(event.event_id for event, truth in evening[1] if not truth.repeat)
    assert max(counts.values()) == 1
    assert any(truth.repeat for _, truth in evening[1])


def test_items_that_fit_earn_more_clicks(evening):
    model, popular = evening[0].variants["model"], evening[0].variants["popular"]
    assert model.clicks / model.impressions > 2 * popular.clicks / popular.impressions


def test_counts_are_those_of_the_events(evening):
    live, sent, _, _ = evening
    ids = {event.event_id for event, truth in sent if isinstance(event, Click) and not truth.repeat}
    held_back = sum(answers.clicks for answers in live.variants.values()) - len(ids)
    assert 0 <= held_back < 5


def test_click_is_followed_by_the_view_of_the_same_item_from_the_same_decision(evening):
    sent = sorted((event for event, truth in evening[1] if not truth.repeat), key=lambda event: event.event_id)
    clicks = [(at, event) for at, event in enumerate(sent[:-1]) if isinstance(event, Click)]
    followed = 0
    for at, click in clicks:
        after = sent[at + 1]
        if after.session_id == click.session_id:
            assert isinstance(after, View)
            assert (after.item_id, after.decision_id, after.position) == (
                click.item_id,
                click.decision_id,
                click.position,
            )
            followed += 1
    assert followed > 20


def test_impressions_state_the_true_probability_of_a_click(evening):
    impressions = [truth.click for event, truth in evening[1] if isinstance(event, Impression) and not truth.repeat]
    clicks = sum(isinstance(event, Click) and not truth.repeat for event, truth in evening[1])
    expected = sum(impressions)
    assert abs(clicks - expected) < 4 * expected**0.5


def test_decision_is_answered_once():
    _, sent, _, _ = run(lambda event: [recommend(event, "model", like(event))] * 2, seconds=5)
    seen = Counter(
        (event.decision_id, event.position) for event, t in sent if isinstance(event, Impression) and not t.repeat
    )
    assert max(seen.values()) == 1


def test_decision_about_an_older_event_is_not_answered():
    older = {}

    def decide(event):
        before, older[event.user_id] = older.get(event.user_id), event
        return [recommend(before, "model", like(before))] if before and before.ts < event.ts else []

    assert run(decide, seconds=5)[0].variants == {}


def test_ads_are_answered_and_counted_apart():
    live, _, _, _ = run(lambda event: [advertise(event, POPULAR[0])], seconds=10)
    assert live.ads.impressions > 100
    assert live.variants == {}


def test_items_of_another_shop_are_not_shown():
    live, _, _, _ = run(lambda event: [recommend(event, "model", ["unknown"])], seconds=3)
    assert live.variants["model"].impressions == 0


def test_spoiled_records_are_few_and_no_schema_takes_them():
    _, sent, malformed, _ = run(lambda _: [], seconds=10, rate=1_000)
    assert 0 < len(malformed) < 0.01 * len(sent)
    for _, record in malformed:
        with pytest.raises(msgspec.DecodeError):
            decode_record(record)


def test_what_is_sold_leaves_the_stock_and_comes_back_when_it_has_sold_out():
    _, _, _, items = run(lambda _: [], seconds=60, rate=1_000)
    before = {item.item_id: item.stock for item in SHOP.assortment.items}
    sold_out = set()
    for item in items:
        assert item.stock < before[item.item_id] or item.item_id in sold_out
        before[item.item_id] = item.stock
        if item.stock == 0:
            sold_out.add(item.item_id)
    assert any(before[item_id] > 0 for item_id in sold_out)


def on_two_shelves(event):
    first, *others = recommend(event, "model", like(event)).items
    shelves = (
        Shelf(name="more", job="similar", items=tuple(others)),
        Shelf(name="ads", job="sponsored", items=(first,)),
    )
    decision = recommend(event, "model", [first.item_id])
    yield msgspec.structs.replace(decision, shelf="main", shelves=shelves)


def test_shoppers_look_at_one_shelf_after_the_other_until_a_click():
    live, sent, _, _ = run(on_two_shelves)
    assert set(live.shelves) == {"main", "more"}
    assert live.shelves["main"] == live.variants["model"]
    assert 0 < live.shelves["more"].clicks < live.shelves["more"].impressions
    clicks = sum(isinstance(event, Click) for event, _ in sent)
    assert clicks == sum(shelf.clicks for shelf in live.shelves.values())
