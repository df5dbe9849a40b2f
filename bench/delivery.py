# pyright: basic
"""Delivery: measure what exactly once costs, beside at least once, as a reader of committed records sees it.

The two sides take turns. Each side gets a full topic for the throughput, then natural traffic for the latency.
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.child import WORKER, Child, child
from bench.environment import Environment, report_progress
from bench.load import fill
from bench.logs import PARTITIONS, natural_events
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import Settings

SIDES = ("at_least_once", "exactly_once")
RATE = 500
"""Events per second of the measurement of latency."""
EVENTS_IN_TOPIC = 30_000
WARM_SECONDS = 3.0
"""Beginning of a latency run that does not count."""
TIMEOUT_SECONDS = 120.0


class _Decision(msgspec.Struct, frozen=True):
    ts: int


_decode = msgspec.json.Decoder(_Decision).decode


class DeliveryRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a side."""

    side: str
    per_second: float
    """Decisions per second on a full topic, by their arrival at the reader."""
    p50: float
    """Median time from an event to its decision at the reader, ms."""
    p99: float


class CommittedReader:
    """Reads decisions as they become readable, in a thread, and notes the time of each."""

    def __init__(self, settings: Settings) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """Arrival, s since the epoch, and event time, ms, of each decision."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": f"{settings.worker.group}-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 5,
            }
        )
        topic = settings.kafka.topic(RECOMMENDATIONS.name)
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def wait(self, count: int, worker: Child) -> None:
        """Wait until this number of decisions has arrived.

        Args:
            count: Number of decisions.
            worker: Worker that must not end meanwhile.

        Raises:
            TimeoutError: The decisions did not arrive in time.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self.arrivals) < count:
            worker.check()
            if time.monotonic() > deadline:
                message = f"{len(self.arrivals)} of {count} decisions arrived in {TIMEOUT_SECONDS:.0f} s"
                raise TimeoutError(message)
            time.sleep(0.05)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            messages = self._consumer.consume(10_000, timeout=0.02)
            now = time.time()
            self.arrivals += [
                (now, _decode(message.value() or b"").ts) for message in messages if message.error() is None
            ]


def delivery(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure both sides once a round."""
    runs = [_measure(environment, budget, side) for _ in range(budget.rounds) for side in SIDES]
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    rows = [
        Row(
            title="Throughput of exactly once, relative to at least once",
            values=tuple(exactly.per_second / at_least.per_second for at_least, exactly in pairs),
            digits=".2f",
            goal=0.8,
            at_least=True,
            beside=", ".join(
                f"{exactly.per_second:,.0f} of {at_least.per_second:,.0f}/s" for at_least, exactly in pairs
            ),
        ),
        Row(
            title=f"Event to readable decision at {RATE} events/s, p50, exactly once",
            values=tuple(exactly.p50 for _, exactly in pairs),
            digits=".0f",
            unit=" ms",
            goal=30,
            at_least=False,
            beside="at least once " + ", ".join(f"{at_least.p50:.0f}" for at_least, _ in pairs),
        ),
        Row(
            title=f"Event to readable decision at {RATE} events/s, p99, exactly once",
            values=tuple(exactly.p99 for _, exactly in pairs),
            digits=".0f",
            unit=" ms",
            goal=100,
            at_least=False,
            beside="at least once " + ", ".join(f"{at_least.p99:.0f}" for at_least, _ in pairs),
        ),
    ]
    return Measurement(rows, runs)


def _measure(environment: Environment, budget: RunBudget, side: str) -> DeliveryRun:
    """Measure throughput and latency of a side.

    Args:
        environment: Broker, bundle and folder.
        budget: Duration of the latency run.
        side: Value of the setting `delivery`.
    """
    with _running(environment, side, full=True) as (reader, worker, _):
        reader.wait(EVENTS_IN_TOPIC, worker)
        first, last = reader.arrivals[0][0], reader.arrivals[-1][0]
        after_first = sum(arrived_at > first for arrived_at, _ in reader.arrivals)
        per_second = after_first / (last - first)
    with _running(environment, side, full=False) as (reader, worker, settings):
        time.sleep(WARM_SECONDS)
        arguments = ("bench.producer", str(RATE), str(budget.latency_seconds))
        with child(arguments, settings, environment.folder) as producer:
            producer.finish(budget.latency_seconds + TIMEOUT_SECONDS)
        reader.wait(int(RATE * budget.latency_seconds), worker)
        begin = reader.arrivals[0][1] + WARM_SECONDS * 1000
        waits = sorted(arrived_at * 1000 - ts for arrived_at, ts in reader.arrivals if ts >= begin)
    run = DeliveryRun(side=side, per_second=per_second, p50=waits[len(waits) // 2], p99=waits[int(len(waits) * 0.99)])
    report_progress(f"{side}: {run.per_second:,.0f} decisions/s, p50 {run.p50:.0f} ms, p99 {run.p99:.0f} ms")
    return run


@contextmanager
def _running(environment: Environment, side: str, *, full: bool) -> Generator[tuple[CommittedReader, Child, Settings]]:
    """Provide a reader, a running worker and the settings.

    Args:
        environment: Broker, bundle and folder.
        side: Value of the setting `delivery`.
        full: Whether the topic of events is full at the start.
    """
    with environment.topics() as fresh:
        settings = fresh.replace(delivery=side)
        if full:
            fill(settings, EVENTS, natural_events(EVENTS_IN_TOPIC, RATE))
        reader = CommittedReader(settings)
        reader.start()
        try:
            with child(WORKER, settings, environment.folder) as worker:
                yield reader, worker, settings
        finally:
            reader.close()
