"""Decisions: the variant for which a decision counts."""

import pytest

from clickscore.schemas.decisions import Choice, Recommendation, compared_variant


def recommendation(variant: str, *reasons: str) -> Recommendation:
    items = tuple(Choice(item_id=reason, score=0.0, propensity=1.0, reason=reason) for reason in reasons)
    return Recommendation(
        decision_id="d",
        user_id="u",
        event_id="e",
        ts=0,
        bundle=None,
        policy="1",
        variant=variant,
        session_id="s",
        session_length=1,
        late=False,
        actions=None,
        purchase=None,
        items=items,
        filtered={},
    )


@pytest.mark.parametrize(
    ("variant", "reasons", "expected"),
    [
        ("model", ("popular", "model"), "model"),
        ("model", ("popular",), "fallback"),
        ("model", (), "fallback"),
        ("popular", ("popular",), "popular"),
    ],
)
def test_decision_without_an_item_of_the_model_does_not_count_for_the_model(variant, reasons, expected) -> None:
    assert compared_variant(recommendation(variant, *reasons)) == expected
