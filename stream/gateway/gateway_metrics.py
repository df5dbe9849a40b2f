"""Gateway metrics: the counters and gauges of a gateway. No metric contains a user id or a key."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class GatewayMetrics:
    """The metrics of a gateway, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "clickscore_gateway_requests",
            "Answered requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "clickscore_gateway_request_seconds",
            "Time from a request's headers to the answer, by route.",
            ["route"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.events = Counter("clickscore_gateway_events", "Events that Kafka has stored.", registry=registry)
        self.decisions = Counter(
            "clickscore_gateway_decisions",
            "Requests with decide=true by outcome: answered or timeout.",
            ["outcome"],
            registry=registry,
        )
        self.pending = Gauge(
            "clickscore_gateway_pending_decisions", "Events whose decision a request waits for.", registry=registry
        )
        self.users = Gauge("clickscore_gateway_users", "Users whose newest decision is remembered.", registry=registry)
        self.redis_waiting = Gauge(
            "clickscore_gateway_redis_waiting_decisions", "Decisions that Redis does not have yet.", registry=registry
        )
        self.redis_errors = Counter(
            "clickscore_gateway_redis_errors", "Reads and writes that Redis did not answer.", registry=registry
        )
        self.connections = Gauge(
            "clickscore_gateway_connections",
            "Open connections of clients. Requests over gateway_connections are answered with 503 and not counted.",
            registry=registry,
        )
        self.lag = Gauge(
            "clickscore_gateway_lag_decisions", "Published decisions that are not read yet.", registry=registry
        )
