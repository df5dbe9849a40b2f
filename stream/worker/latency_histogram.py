"""Latency histogram: count many durations at once, at a fraction of the cost of a call for each."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000)
"""Upper bounds of the buckets, ms."""


class LatencyHistogram(Collector):
    """A histogram of durations in milliseconds, shown to Prometheus in seconds."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        """Register the histogram.

        Args:
            name: Name of the metric; Prometheus' unit is the second.
            documentation: Meaning in a sentence.
            registry: Registry of the worker's metrics.
        """
        self._name = name
        self._documentation = documentation
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self._sum_ms = 0
        registry.register(self)

    def observe(self, durations_ms: Iterable[int]) -> None:
        """Count durations, ms. Clocks of two brokers may differ, so a duration below 0 counts as 0."""
        for duration, count in Counter(durations_ms).items():
            self._counts[bisect_left(BOUNDS_MS, duration)] += count
            self._sum_ms += max(0, duration) * count

    def describe(self) -> Iterator[Metric]:
        """Yield the metric without samples, for tables of metrics."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric with its samples."""
        total, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip((*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets, self._sum_ms / 1000)
        yield family
