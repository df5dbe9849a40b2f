"""Fuzz of a live worker: every value has an outcome, and a replay decides the same. `make fuzz` sends many more."""

import pytest

from tests.fuzz.live import Shares, fuzz_live

pytestmark = pytest.mark.kafka


def test_outcomes_of_a_live_worker_add_up_and_equal_the_replay(broker: str) -> None:
    reports = fuzz_live(broker, "tests", Shares(events=3_000, reference=400, requests=20))
    assert [report for report in reports if not report.is_good] == []
    events, reference, pages = reports
    assert all(events.outcomes[name] for name in ("decided", "dead", "late"))
    assert all(reference.outcomes[name] for name in ("applied", "refused"))
    assert pages.sent == pages.outcomes.total() == 20
