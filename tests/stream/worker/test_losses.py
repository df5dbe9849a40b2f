"""Losses: what Kafka removed before it was decided on is counted and named."""

import pytest

from clickscore.stream.worker.losses import Losses
from clickscore.stream.worker.prometheus_metrics import Metrics


def test_lost_range_is_counted_and_named(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    losses = Losses("events", metrics, lambda *_: None)
    losses.report(2, 10, 13)
    assert losses.events == 3
    assert metrics.registry.get_sample_value("clickscore_events_total", {"outcome": "lost"}) == 3
    assert "events-2: offsets 10 to 12 are lost, 3 in all" in caplog.text


def test_range_is_reported_once(caplog: pytest.LogCaptureFixture):
    losses = Losses("events", Metrics(), lambda *_: None)
    losses.report(0, 10, 13)
    losses.report(0, 10, 13)
    losses.report(0, 10, 15)
    losses.report(1, 10, 13)
    assert losses.events == 8
    assert "events-0: offsets 13 to 14 are lost" in caplog.text


def test_log_that_was_cut_back_is_no_loss_and_stops_the_worker():
    stops: list[tuple[int, int, int]] = []
    losses = Losses("events", Metrics(), lambda *cut: stops.append(cut))
    losses.report_cut_back(2, 99, 0)
    assert (stops, losses.events) == ([(2, 99, 0)], 0)
