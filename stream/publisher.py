"""Publisher: makes what batches came to durable, in the order that loses nothing and counts nothing twice.

A cycle takes the batches that are ready and publishes (1) decisions, closed sessions and dead letters, awaits their
acknowledgement, then (2) snapshots, the partition's own last, as one record batch a partition, awaits that, and only
then (3) marks the batches done, so that their offsets may be committed. So whatever the log holds as state has its
decisions in the log; and what was decided but not kept as state is decided again, byte for byte the same.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka.errors import KafkaError

from schemas.snapshots import OFFSET_HEADER
from schemas.topics import ADS, CLOSED_SESSIONS, DEAD_LETTERS, EVENTS, RECOMMENDATIONS, SNAPSHOTS
from stream.errors import BrokerError
from stream.monitoring import Metrics
from stream.pipeline import DeadLetter, Output
from stream.settings import Settings
from stream.state import Change

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes]]
Outgoing = tuple[bytes | None, bytes | None, Headers]

QUEUE = 8
"""Batches that may be ready and unpublished: enough to fill a cycle, few enough to stop the worker soon."""
CYCLE_RECORDS = 1024
CYCLE_CHANGE_BYTES = 4 * 1024 * 1024  # far enough below a record batch's limit that one more batch of records fits
SAY_AFTER_SECONDS = 3.0


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
    records: int
    generation: int
    """Of the consumer group, when the batch was fetched."""
    facts: Headers
    """Wall-clock facts, for the headers of its decisions."""
    done: Callable[[], None]
    """Allows its offset to be committed."""
    release: Callable[[], Awaitable[object]]
    """Tells the stream that the batch is out of our hands, published or given up."""


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

    async def put(self, work: Work) -> None:
        """Queue a batch; waits while the queue is full."""
        await self._ready.put(work)

    async def run(self, more: Callable[[], bool]) -> None:
        """Publish until cancelled.

        Args:
            more: Whether another batch is already on its way: it is then cheaper to wait and publish it in one cycle.

        Raises:
            BrokerError: Kafka refuses, or is gone for longer than `broker_wait_ms`. Nothing of the cycle is committed.
        """
        while True:
            works = [await self._ready.get()]
            while not self._ready.empty() or (more() and len(works) < QUEUE):
                if self._is_full(works):
                    break
                works.append(await self._ready.get())
            try:
                await self._cycle(works)
            finally:
                for work in works:
                    await work.release()

    @staticmethod
    def _is_full(works: list[Work]) -> bool:
        size = sum(len(change.value or b"") for work in works for change in work.output.changes)
        return sum(work.records for work in works) >= CYCLE_RECORDS or size >= CYCLE_CHANGE_BYTES

    async def _cycle(self, works: list[Work]) -> None:
        began = time.monotonic()
        live = [work for work in works if work.generation == self._generation()]
        for work in works:
            if work not in live:
                self._abandon(work)
        watch = asyncio.get_running_loop().call_later(SAY_AFTER_SECONDS, self._say_waiting)
        try:
            await self._publish_outputs(live)
            await self._publish_changes(live)
        except (KafkaError, ValueError) as exc:
            for work in live:
                self._abandon(work)
            message = (
                f"Kafka did not take what was published ({type(exc).__name__}: {exc}). Nothing of it is committed; "
                "check the topics with `clickscore topics list`, make missing ones with `clickscore topics create`, "
                "and start the worker again"
            )
            raise BrokerError(message) from exc
        finally:
            watch.cancel()
        for work in live:
            work.done()
            for outcome, count in work.output.outcomes.items():
                self._metrics.events.labels(outcome).inc(count)
        self._metrics.publish_seconds.observe(time.monotonic() - began)

    def _say_waiting(self) -> None:
        limit = self._settings.broker_wait_ms / 1000
        log.warning("waiting for Kafka to acknowledge what was published, for at most %.0f s", limit)

    async def _publish_outputs(self, works: list[Work]) -> None:
        outgoing: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for work in works:
            output, partition = work.output, work.partition
            for topic, messages in (
                (RECOMMENDATIONS, output.recommendations),
                (ADS, output.ads),
                (CLOSED_SESSIONS, output.closed_sessions),
            ):
                if messages:
                    outgoing[topic.name, partition] += [(key, value, work.facts) for key, value in messages]
            if output.dead_letters:
                letters = [dead_letter(self._settings, partition, letter) for letter in output.dead_letters]
                outgoing[DEAD_LETTERS.name, partition] += letters
        await self._send_all(outgoing)

    async def _publish_changes(self, works: list[Work]) -> None:
        changes: dict[int, list[Change]] = defaultdict(list)
        for work in works:
            changes[work.partition] += work.output.changes
        for partition, written in zip(
            changes, await asyncio.gather(*(self.write(*pair) for pair in changes.items())), strict=True
        ):
            self.written[partition] = written

    async def write(self, partition: int, changes: Sequence[Change]) -> int:
        """Store changes of a partition's state as one record batch; return the changelog offset after it."""
        messages = [snapshot_message(change) for change in changes]
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


def snapshot_message(change: Change) -> Outgoing:
    """Return a change as a record of `session-snapshots`; a tombstone says its offset in a header."""
    headers = [] if change.value is not None else [(OFFSET_HEADER, str(change.offset).encode())]
    return change.key, change.value, headers


def dead_letter(settings: Settings, partition: int, letter: DeadLetter) -> Outgoing:
    """Return a record that could not be used, as it came, with headers that say where it was and what is wrong."""
    headers = [
        ("topic", settings.topic(EVENTS.name).encode()),
        ("partition", str(partition).encode()),
        ("offset", str(letter.record.offset).encode()),
        ("error", letter.error.encode()),
    ]
    return letter.record.key, letter.record.value, headers
