"""Explanations as JSON."""

import msgspec

from clickscore.schemas.explanations import Explanation, FieldDifference


def test_explanation_comes_back_from_json() -> None:
    explanation = Explanation(
        decision_id="clickstream-events-0-7",
        verdict="different",
        differences=(FieldDifference("a", "1", "2"),),
    )
    assert msgspec.json.decode(msgspec.json.encode(explanation), type=Explanation) == explanation
