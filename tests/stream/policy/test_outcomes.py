"""Outcomes: which event counts as the outcome of which decision."""

import math

import pytest

from clickscore.schemas.decisions import Choice, Recommendation
from clickscore.schemas.events import AnyEvent
from clickscore.schemas.outcome_counts import PartitionReport, RatioSums, VariantCounts, decode_report, encode_report
from clickscore.stream.policy.outcomes import WINDOW_MS, OutcomeCounter
from tests.events import MINUTE, impression, purchase, search, view


def decision(event: AnyEvent, *items: str, variant: str = "model", **more: object) -> Recommendation:
    fields = {
        "decision_id": "events-0-1",
        "user_id": event.user_id,
        "event_id": event.event_id,
        "ts": event.ts,
        "bundle": "b",
        "policy": "p",
        "variant": variant,
        "session_id": "",
        "session_length": 1,
        "late": False,
        "actions": {"view": 0.5, "cart": 0.1, "purchase": 0.15, "leave": 0.25},
        "purchase": 0.2,
        "items": tuple(Choice(item_id=item, score=0.1, propensity=1.0, reason="model") for item in items),
        "filtered": {},
    }
    return Recommendation(**(fields | more))  # pyright: ignore[reportArgumentType]


def count(*steps: tuple[AnyEvent, Recommendation], users: int = 10) -> OutcomeCounter:
    counter = OutcomeCounter(users=users)
    for event, made in steps:
        counter.add(event, made)
    return counter


def step(event: AnyEvent, *items: str, **more: object) -> tuple[AnyEvent, Recommendation]:
    return event, decision(event, *items, **more)  # pyright: ignore[reportArgumentType]


def test_event_on_a_recommended_item_is_a_click():
    counter = count(step(view("ann", 0), "mug", "pot"), step(view("ann", 1, "pot"), "mug"))
    assert counter.champion.clicks == RatioSums(users=1, base=2, value=1, base_base=4, base_value=2, value_value=1)
    assert (counter.champion.decisions, counter.champion.model_items) == (2, 3)


def test_event_on_another_item_is_none():
    assert count(step(view("ann", 0), "mug"), step(view("ann", 1, "pot"), "mug")).champion.clicks.value == 0


def test_first_event_of_a_user_has_no_outcome():
    counter = count(step(view("ann", 0), "mug"))
    assert (counter.champion.clicks.value, counter.champion.action_scores.users) == (0, 0)


def test_late_answer_counts_no_more():
    minutes = WINDOW_MS / MINUTE + 1
    counter = count(step(view("ann", 0), "mug"), step(view("ann", minutes, "mug"), "pot"))
    assert (counter.champion.clicks.value, counter.champion.decisions) == (0, 2)


def test_challenger_counts_for_itself():
    counter = count(step(view("ann", 0), "mug", variant="challenger"), step(view("bob", 0), "mug"))
    assert (counter.champion.decisions, counter.challenger.decisions) == (1, 1)


def test_user_who_changes_the_variant_begins_anew():
    counter = count(step(view("ann", 0), "mug"), step(view("ann", 1, "mug"), "mug", variant="challenger"))
    assert (counter.champion.clicks.value, counter.challenger.clicks.value) == (0, 0)


def test_purchases_and_the_log_probability_of_the_next_action_are_counted():
    counter = count(step(view("ann", 0), "mug"), step(purchase("ann", 1), "mug"), step(search("ann", 2), "mug"))
    counts = counter.champion
    assert (counts.purchases.value, counts.purchases.base) == (1, 3)
    assert counts.action_scores.value == pytest.approx(math.log(0.15 / 0.75))
    assert counts.purchase_predictions.value == pytest.approx(0.6)


def test_bundle_without_heads_has_no_predictions():
    counter = count(*(step(view("ann", minute), "mug", actions=None, purchase=None) for minute in (0, 1)))
    assert (counter.champion.action_scores.users, counter.champion.purchase_predictions.users) == (0, 0)


@pytest.mark.parametrize(
    "left_out",
    [
        step(impression("ann", 0), "mug"),
        step(view("ann", 0), "mug", variant="popular"),
        step(view("ann", 0), "mug", late=True),
        step(view("ann", 0), "mug", client="bot"),
        step(view("ann", 0), "mug", withheld=("personalisation",)),
    ],
)
def test_who_does_not_count(left_out: tuple[AnyEvent, Recommendation]):
    counter = count(left_out)
    assert (len(counter), counter.champion, counter.challenger) == (0, VariantCounts(), VariantCounts())


def test_user_who_withholds_another_purpose_counts():
    assert count(step(view("ann", 0), "mug", withheld=("ads",))).champion.decisions == 1


def test_oldest_user_is_forgotten_first():
    counter = count(*(step(view(user, 0), "mug") for user in ("ann", "bob", "eve")), users=2)
    counter.add(*step(view("ann", 1, "mug"), "pot"))
    assert (len(counter), counter.champion.clicks.value, counter.champion.decisions) == (2, 0, 4)


def test_erased_user_is_forgotten():
    counter = count(step(view("ann", 0), "mug"))
    counter.forget(["ann", "bob"])
    assert len(counter) == 0


def test_counts_of_partitions_add_up_and_travel():
    one, two = (count(step(view(user, 0), "mug"), step(view(user, 1, "mug"), "pot")).champion for user in "ab")
    both = count(*(step(view(user, minute, "mug"), "mug") for user in "ab" for minute in (0, 1))).champion
    one.add(two)
    assert one.clicks == both.clicks
    report = PartitionReport(changed_at=1, champion=one)
    assert decode_report(encode_report(report)) == report
