"""Stage: the worker's parts around a log in memory, for tests that need no broker."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from clickscore.schemas.events import AnyEvent, PrivacyRecord, encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import Settings
from clickscore.stream.worker.compute import ComputeThread
from clickscore.stream.worker.outgoing import PublishJob
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics
from clickscore.stream.worker.publisher import Publisher
from tests.memory_kafka import MemoryBatch, MemoryGroup, MemoryLog, MemoryTransactions

BROKER_WAIT_MS = 5_000
"""How long the parts under test wait for an acknowledgement, ms: long enough for a busy machine to be in time."""


def make_settings(**changes: object) -> Settings:
    return Settings.of(**{"broker_wait_ms": BROKER_WAIT_MS, **changes})


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class NoScores:
    """Scores of a model that knows no item."""

    def __init__(self, count: int, order: list[str]) -> None:
        self._count = count
        self._order = order

    def results(self) -> list[tuple[int, Scores | None]]:
        self._order.append("results")
        return [(index, None) for index in range(self._count)]


class DullScorer:
    """A scorer that knows no item, and remembers its calls."""

    version = "dull"
    trained_until = 0
    popular = ()
    known_items = ()

    def __init__(self) -> None:
        self.calls: list[int] = []
        """Number of requests of each call."""
        self.order: list[str] = []
        """`submit` and `results`, in the order of the calls."""

    def item_vectors(self, items: Sequence[str]) -> np.ndarray:
        """Return zeros: no item has a vector."""
        return np.zeros((len(items), 1))

    def count_known(self, items: Iterable[str]) -> int:
        """Return 0: no item is known."""
        return 0

    def submit(self, requests: list[Request]) -> NoScores:
        self.calls.append(len(requests))
        self.order.append("submit")
        return NoScores(len(requests), self.order)


class Stage:
    """A group, a pipeline and a publisher around a log in memory."""

    def __init__(
        self,
        *partitions: int,
        log: MemoryLog | None = None,
        scorer: DullScorer | None = None,
        light_wait_s: float = 0.0,
        epochs: dict[int, int] | None = None,
        **changes: object,
    ) -> None:
        self.settings = make_settings(**changes)
        self.log = log or MemoryLog()
        self.group = MemoryGroup(self.log, EVENTS.name, partitions or (0,))
        self.pipeline = Pipeline(self.settings.sessions, self.settings.policy, EVENTS.name, Catalogue(), scorer)
        self.ownership = Ownership(self.group, self.pipeline)
        self.metrics = Metrics()
        self.transactions = MemoryTransactions(self.log, self.journal, epochs)
        self.publisher = Publisher(
            self.settings.kafka,
            self.group,
            self.ownership,
            self.metrics,
            max_event_bytes=self.settings.sessions.max_event_bytes,
            log_share=self.settings.worker.log_decisions,
            transactions=self.transactions if self.settings.worker.delivery == "exactly_once" else None,
            warn_after_s=0.01,
            light_wait_s=light_wait_s,
        )
        self.compute = ComputeThread()
        self.clock = Clock()

    @property
    def journal(self) -> list[str]:
        return self.group.journal

    def own(self) -> None:
        """Own the assigned partitions, as a restore would leave it."""
        self.ownership.own(self.group.assignment(), self.group.generation)

    def send(self, *events: AnyEvent | PrivacyRecord | bytes, partition: int = 0) -> None:
        for event in events:
            value = event if isinstance(event, bytes) else encode_event(event)
            timestamp = -1 if isinstance(event, bytes) else event.ts
            self.log.append(EVENTS.name, partition, None, value, timestamp=timestamp)

    def compute_job(self, *events: AnyEvent | PrivacyRecord | bytes, partition: int = 0) -> PublishJob:
        """Send events, fetch them as one batch and compute their output."""
        self.send(*events, partition=partition)
        batch = self.fetch(partition)
        return PublishJob(batch, self.pipeline.process(partition, batch.records), [("scored", b"{}")])

    def fetch(self, partition: int = 0, limit: int | None = None, *, ends_fetch: bool = True) -> MemoryBatch:
        """Fetch a batch that the worker holds until it is released."""
        batch = self.group.fetch(partition, limit, ends_fetch=ends_fetch)
        self.ownership.hold(batch)
        return batch

    @asynccontextmanager
    async def publishing(self) -> AsyncGenerator["asyncio.Future[list[None]]"]:
        """Run the loops of the publisher in a block; the future ends with the error of a loop."""
        async with background(*self.publisher.loops) as loops:
            yield loops

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def background(*loops: Callable[[], Awaitable[None]]) -> AsyncGenerator["asyncio.Future[list[None]]"]:
    """Run loops in a block, and cancel them at its end."""
    running = asyncio.gather(*(loop() for loop in loops))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (a test's condition sets no event)
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Let everything run that can run without waiting for time to pass."""
    for _ in range(50):
        await asyncio.sleep(0)
