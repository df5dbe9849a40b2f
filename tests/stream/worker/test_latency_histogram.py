"""Latency histogram: what Prometheus reads of many durations."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from clickscore.stream.worker.latency_histogram import BOUNDS_MS, LatencyHistogram

DURATIONS_MS = [0, 1, 2, 3, 3, 3, 500, 501, 60_000, 60_001, 10_000_000]


def test_samples_are_those_of_the_librarys_histogram():
    registry, other = CollectorRegistry(), CollectorRegistry()
    histogram = LatencyHistogram("wait_seconds", "A wait.", registry)
    expected = Histogram("wait_seconds", "A wait.", registry=other, buckets=[bound / 1000 for bound in BOUNDS_MS])
    histogram.observe(DURATIONS_MS[:4])
    histogram.observe(DURATIONS_MS[4:])
    for duration in DURATIONS_MS:
        expected.observe(duration / 1000)
    lines = [line for line in generate_latest(other).splitlines() if b"_created" not in line]
    assert generate_latest(registry).splitlines() == lines


def test_clocks_that_differ_count_as_no_time():
    registry = CollectorRegistry()
    LatencyHistogram("wait_seconds", "A wait.", registry).observe([-5, 10])
    assert registry.get_sample_value("wait_seconds_sum") == 0.01
    assert registry.get_sample_value("wait_seconds_bucket", {"le": "0.001"}) == 1
