"""Exact outcomes of decisions, with corrections."""

from typing import Any

from clickscore.schemas.outcomes import LineOutcome, decode_outcome
from clickscore.stream.console.console_state import ConsoleState
from clickscore.stream.console.settled_outcomes import SettledOutcomes
from tests.stream.console.records import outcome


def line(placement: str = "list", **numbers: Any) -> LineOutcome:
    return LineOutcome(item_id="cup", placement=placement, **numbers)


def report_of(*records: Any) -> dict[str, Any]:
    state = ConsoleState()
    for record in records:
        state.receive(record)
    assert not state.rates.totals["unreadable records"]
    return state.settled.report()


def test_outcomes_are_summed_by_variant_and_placement() -> None:
    report = report_of(
        outcome(0, line(impressions=5, clicks=2, valid_clicks=1), line("beside", impressions=3)),
        outcome(1, line(impressions=2, clicks=1, valid_clicks=1, purchases=1, revenue=20.0), user_id="ben"),
        outcome(2),
    )
    counts = report["variants"]["model"]
    assert [counts[name] for name in ("decisions", "users", "impressions", "clicks", "valid_clicks", "purchases")] == [
        *(3, 2, 10, 3, 2, 1)
    ]
    assert counts["clicks_per_impression"].value == 0.2
    assert counts["revenue_per_decision"].value == 20 / 3
    assert report["placements"]["beside"]["impressions"] == 3
    assert report["placements"]["list"]["revenue"] == 20.0


def test_correction_replaces_the_earlier_record() -> None:
    first = outcome(0, line(impressions=5, clicks=2, valid_clicks=2, purchases=1, revenue=9.0))
    second = outcome(0, line(impressions=5, clicks=2, valid_clicks=1), revision=1)
    report = report_of(first, first, second, second, first)
    counts = report["variants"]["model"]
    assert (counts["decisions"], counts["impressions"], counts["valid_clicks"]) == (1, 5, 1)
    assert (counts["purchases"], counts["revenue"]) == (0, 0.0)
    assert counts["clicks_per_impression"].value == 0.2
    assert report["placements"]["list"]["purchases"] == 0


def test_correction_of_a_forgotten_decision_is_left_out() -> None:
    correction = outcome(0, line(impressions=5), revision=1)
    assert report_of(correction)["variants"] == {}
    settled = SettledOutcomes(max_settled=10)
    for offset in range(11):
        settled.add(decode_outcome(outcome(offset, line(impressions=1)).value or b""))
    settled.add(decode_outcome(correction.value or b""))
    settled.forget("anna")
    assert settled.report()["variants"]["model"]["impressions"] == 11
