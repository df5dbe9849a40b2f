"""Prometheus metrics: the counters and gauges of a worker. No metric contains a user id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of a worker, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.events = Counter(
            "clickscore_events",
            "Records of clickstream-events by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.published = Counter(
            "clickscore_published", "Records acknowledged by Kafka, by topic.", ["topic"], registry=registry
        )
        self.unscored = Counter("clickscore_unscored", "Decisions without scores of the model.", registry=registry)
        self.rebalances = Counter("clickscore_rebalances", "Assignments of partitions.", registry=registry)
        self.repaired = Counter(
            "clickscore_repaired_snapshots",
            "Snapshots that a stalled worker had overlaid, written again.",
            registry=registry,
        )
        self.failed_ticks = Counter("clickscore_failed_ticks", "Ticks that Kafka refused.", registry=registry)
        self.batch_records = Histogram(
            "clickscore_batch_records", "Records of a batch.", registry=registry, buckets=_RECORDS
        )
        self.compute_seconds = Histogram(
            "clickscore_compute_seconds", "Time from a batch to its decisions.", registry=registry, buckets=_SECONDS
        )
        self.publish_seconds = Histogram(
            "clickscore_publish_seconds",
            "Time from decisions to their acknowledgement.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.restore_seconds = Gauge(
            "clickscore_restore_seconds", "Duration of the last restore of state.", registry=registry
        )
        self.restored_users = Gauge(
            "clickscore_restored_users", "Users whose state the last restore read.", registry=registry
        )
        self.users = Gauge("clickscore_users", "Users remembered.", registry=registry)
        self.open_sessions = Gauge("clickscore_open_sessions", "Sessions that have not ended.", registry=registry)
        self.lag = Gauge("clickscore_lag_events", "Events not yet decided on.", ["partition"], registry=registry)
        self.watermark = Gauge("clickscore_watermark_ms", "Watermark in event time.", ["partition"], registry=registry)
        self.catalogue_version = Gauge(
            "clickscore_catalogue_updates",
            "Updates of the catalogue and of campaigns that are applied.",
            registry=registry,
        )
