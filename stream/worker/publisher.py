"""Publisher: makes what batches came to durable, in the order that loses nothing and counts nothing twice.

Of a batch, (1) decisions, closed sessions and dead letters are published and acknowledged, then (2) its snapshots, the
partition's own last, as one record batch, and only then (3) it is marked done, so that its offset may be committed. So
whatever the log holds as state has its decisions in the log; and what was decided but not kept as state is decided
again, byte for byte the same. Each step takes all batches that wait for it at once, and works beside the other: the
decisions of batch n+1 need not wait for the snapshots of batch n.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka.errors import KafkaError

from clickscore.schemas.snapshots import OFFSET_HEADER
from clickscore.schemas.topics import (
    ADS,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    EVENTS,
    MAX_RECORD_BYTES,
    RECOMMENDATIONS,
    SNAPSHOTS,
)
from clickscore.stream.errors import BrokerError
from clickscore.stream.pipeline import DeadLetter, Output
from clickscore.stream.settings import Settings
from clickscore.stream.state.partition import ChangelogRecord
from clickscore.stream.worker.metrics import Metrics

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes]]
Outgoing = tuple[bytes | None, bytes | None, Headers]

QUEUE = 8
"""Batches that may wait for each step: enough to share a request, few enough to stop the worker soon."""
SHARED_BYTES = 4 * 1024 * 1024
"""Of snapshots, that share a record batch: far enough below its limit that one more batch of events fits."""
TRICKLE = 64
"""Snapshots, below which a write waits for more: as many requests as for decisions would double a trickle's cost."""
TRICKLE_SECONDS = 0.02
DECIDED = 256
"""Batches that may wait for their snapshots' write: all of a trickle's, so that no decision waits for it."""
SAY_AFTER_SECONDS = 3.0
DEAD_LETTER_BYTES = MAX_RECORD_BYTES // 2
"""Of a dead letter's value, at most: a compressed record may be larger than what a topic takes uncompressed."""


class Sender(Protocol):
    """What the publisher needs of a producer."""

    async def publish(self, topic: str, partition: int, messages: Sequence[Outgoing]) -> None:
        """Store messages."""
        ...

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[Outgoing]) -> int:
        """Store messages as one record batch and return the offset after it."""
        ...


@dataclass
class Work:
    """A batch that has been computed and is to be published."""

    partition: int
    output: Output
    generation: int
    """Of the consumer group, when the batch was fetched."""
    facts: Headers
    """Wall-clock facts, for the headers of its decisions."""
    done: Callable[[], None]
    """Allows its offset to be committed."""
    release: Callable[[], Awaitable[object]]
    """Tells the stream that the batch is out of our hands, published or given up."""

    @property
    def change_bytes(self) -> int:
        """Size of its snapshots."""
        return sum([len(change.value or b"") for change in self.output.changes])


class Publisher:
    """Publishes batches in cycles; `written` has, for each partition, the changelog offset after our own last write."""

    def __init__(
        self,
        settings: Settings,
        sender: Callable[[], Sender],
        generation: Callable[[], int],
        abandon: Callable[[Work], None],
        metrics: Metrics,
    ) -> None:
        """Publish with these.

        Args:
            settings: Names of topics.
            sender: The producer, once it runs.
            generation: The consumer group's generation now; a batch of another one may belong to another worker.
            abandon: Forgets the state in memory of a batch's partition, since it is ahead of what is published.
            metrics: What is counted.
        """
        self.written: dict[int, int] = {}
        self._settings = settings
        self._sender = sender
        self._generation = generation
        self._abandon = abandon
        self._metrics = metrics
        self._ready: asyncio.Queue[Work] = asyncio.Queue(QUEUE)
        self._decided: asyncio.Queue[Work] = asyncio.Queue(DECIDED)

    async def put(self, work: Work) -> None:
        """Queue a batch; waits while the queue is full."""
        await self._ready.put(work)

    async def publish_decisions(self) -> None:
        """Publish the outputs of batches as they are computed, until cancelled.

        Raises:
            BrokerError: Kafka refuses, or is gone for longer than `broker_wait_ms`. Nothing of it is committed.
        """
        while True:
            works = await _take(self._ready)
            live = await self._drop_stale(works)
            began = time.monotonic()
            async with self._patience(live):
                await self._send_all(self._outgoing(live))
            self._metrics.publish_seconds.observe(time.monotonic() - began)
            for work in live:
                await self._decided.put(work)

    async def publish_states(self) -> None:
        """Publish the snapshots of batches whose outputs are stored, and mark them done, until cancelled.

        Raises:
            BrokerError: As `publish_decisions`.
        """
        while True:
            works = await _take(self._decided, TRICKLE_SECONDS)
            live = await self._drop_stale(works)
            newest: dict[int, dict[bytes, ChangelogRecord]] = defaultdict(dict)
            for work in live:
                newest[work.partition] |= {change.key: change for change in work.output.changes}
            changes = {partition: list(found.values()) for partition, found in newest.items()}
            async with self._patience(live):
                ends = await asyncio.gather(*(self.write(*pair) for pair in changes.items()))
            self.written.update(zip(changes, ends, strict=True))
            for work in live:
                work.done()
                self._metrics.unscored.inc(work.output.unscored)
                for outcome, count in work.output.outcomes.items():
                    self._metrics.events.labels(outcome).inc(count)
                await work.release()

    async def _drop_stale(self, works: list[Work]) -> list[Work]:
        """Give up the batches of another generation, which may be another worker's by now; return the others."""
        live: list[Work] = []
        for work in works:
            if work.generation == self._generation():
                live.append(work)
            else:
                self._abandon(work)
                await work.release()
        return live

    @contextlib.asynccontextmanager
    async def _patience(self, works: list[Work]) -> AsyncGenerator[None]:
        """Wait for Kafka in a block, say so when it takes long, and give the works up when it refuses or is gone.

        Raises:
            BrokerError: It has refused, or has not acknowledged within `broker_wait_ms`.
        """
        limit = self._settings.broker_wait_ms / 1000
        watch = asyncio.get_running_loop().call_later(SAY_AFTER_SECONDS, self._say_waiting)
        try:
            async with asyncio.timeout(limit):  # aiokafka's own bound holds only while a partition has no leader
                yield
        except TimeoutError as exc:
            self._abandon_all(works)
            message = (
                f"Kafka has not acknowledged for {limit:.0f} s (broker_wait_ms) what was published. "
                "Nothing of it is committed; start the worker again once a broker answers"
            )
            raise BrokerError(message) from exc
        except (KafkaError, ValueError) as exc:
            self._abandon_all(works)
            message = (
                f"Kafka did not take what was published ({type(exc).__name__}: {exc}). Nothing of it is committed; "
                "check the topics with `clickscore topics list`, make missing ones with `clickscore topics create`, "
                "and start the worker again"
            )
            raise BrokerError(message) from exc
        finally:
            watch.cancel()

    def _abandon_all(self, works: list[Work]) -> None:
        for work in works:
            self._abandon(work)

    def _say_waiting(self) -> None:
        limit = self._settings.broker_wait_ms / 1000
        log.warning("waiting for Kafka to acknowledge what was published, for at most %.0f s", limit)

    def _outgoing(self, works: list[Work]) -> dict[tuple[str, int], list[Outgoing]]:
        """Return the records to publish, by topic and partition."""
        outgoing: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for work in works:
            output, partition = work.output, work.partition
            for topic, messages in (
                (RECOMMENDATIONS, output.recommendations),
                (ADS, output.ads),
                (CLOSED_SESSIONS, output.closed_sessions),
            ):
                if messages:
                    outgoing[topic.name, partition] += [
                        (message.key, message.value, work.facts) for message in messages
                    ]
            if output.dead_letters:
                letters = [dead_letter(self._settings, partition, letter) for letter in output.dead_letters]
                outgoing[DEAD_LETTERS.name, partition] += letters
        return outgoing

    async def write(self, partition: int, changes: Sequence[ChangelogRecord]) -> int:
        """Store changes of a partition's state as one record batch; return the changelog offset after it."""
        messages = [
            (change.key, change.value, tombstone_headers(change) if change.value is None else []) for change in changes
        ]
        if not messages:
            return self.written.get(partition, -1)
        topic = self._settings.topic(SNAPSHOTS.name)
        written = await self._sender().publish_whole(topic, partition, messages)
        self._metrics.published.labels(SNAPSHOTS.name).inc(len(messages))
        return written

    async def _send_all(self, outgoing: dict[tuple[str, int], list[Outgoing]]) -> None:
        sender = self._sender()
        await asyncio.gather(
            *(
                sender.publish(self._settings.topic(topic), partition, messages)
                for (topic, partition), messages in outgoing.items()
            )
        )
        for (topic, _), messages in outgoing.items():
            self._metrics.published.labels(topic).inc(len(messages))


async def _take(queue: asyncio.Queue[Work], trickle_s: float = 0.0) -> list[Work]:
    """Wait for a batch; return it and those that wait behind it, as far as their snapshots fit one record batch.

    Where few wait, `trickle_s` is the time that more may take to come.
    """
    works = [await queue.get()]
    if trickle_s and len(works[0].output.changes) + queue.qsize() < TRICKLE:
        await asyncio.sleep(trickle_s)
    size = works[0].change_bytes
    while not queue.empty() and size < SHARED_BYTES:
        works.append(queue.get_nowait())
        size += works[-1].change_bytes
    return works


def tombstone_headers(change: ChangelogRecord) -> Headers:
    """Return the headers of a tombstone, which has no value to say its offset in."""
    return [(OFFSET_HEADER, str(change.offset).encode())]


def dead_letter(settings: Settings, partition: int, letter: DeadLetter) -> Outgoing:
    """Return a record that could not be used, as it came, with headers that say where it was and what is wrong.

    A value that is too large for the topic is cut, and a header says how long it was.
    """
    value = letter.record.value
    headers = [
        ("topic", settings.topic(EVENTS.name).encode()),
        ("partition", str(partition).encode()),
        ("offset", str(letter.record.offset).encode()),
        ("error", letter.error.encode()),
    ]
    if value is not None and len(value) > DEAD_LETTER_BYTES:
        headers.append(("cut-from-bytes", str(len(value)).encode()))
        value = value[:DEAD_LETTER_BYTES]
    return letter.record.key, value, headers
