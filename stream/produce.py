"""Produce: put a file's events on a topic, fast, in order for every user, none twice."""

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.topics import EVENTS
from stream.adapters import EventFile, Faults, Line
from stream.errors import BrokerError, TopicMissingError
from stream.kafka import MAX_REQUEST_BYTES, be_patient, connection
from stream.partitioner import partition_of
from stream.settings import Settings
from stream.topics import list_topics

BATCH_BYTES = 128 * 1024
"""Of one partition's records in a request: larger ones were no faster, smaller ones were."""
AHEAD_SECONDS = 0.005
"""How far ahead of its time an event may be sent, when sending is paced: a sleep is not finer."""

ABANDON_SECONDS = 1.0
"""How long a producer may take to end once its broker is lost."""


class EventSender:
    """Sends records to one topic: idempotent, `acks=all`, by murmur2 of the key, in the order of each key.

    A context manager. Leaving it sends what is left and waits for the acks.

    Raises:
        TopicMissingError: The topic is not there.
        BrokerError: The broker cannot be reached, or did not take what was sent.
    """

    def __init__(self, settings: Settings, topic: str = EVENTS.name) -> None:
        self.sent = 0
        """Records that the broker has acknowledged."""
        self._settings = settings
        self._topic = settings.topic(topic)
        self._failure: BaseException | None = None
        self._batches: list[BatchBuilder] = []  # one a partition
        self._unacked: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        partitions = (await list_topics(self._settings)).get(self._topic)
        if partitions is None:
            message = f"topic {self._topic} is missing. Make it with `clickscore topics create`"
            raise TopicMissingError(message)
        self._producer = be_patient(
            AIOKafkaProducer(
                **connection(self._settings),
                acks="all",
                enable_idempotence=True,
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_REQUEST_BYTES,
                request_timeout_ms=self._settings.broker_wait_ms,
            )
        )
        await self._producer.start()
        self._batches = [self._producer.create_batch() for _ in range(partitions)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._failure:
            await self._settle()
        if not self._failure:
            await self._producer.stop()
            return
        await self._abandon()
        if kind is None:
            self._raise_failure()

    async def _settle(self) -> None:
        """Send what is left and wait for the acks, within bounds: an idempotent producer itself never gives up."""
        try:
            async with asyncio.timeout(self._settings.broker_wait_ms / 1000):
                await self.flush()
                if self._unacked:
                    await asyncio.wait(self._unacked)
        except TimeoutError as exc:
            self._failure = exc
        except BrokerError:
            return  # it is noted already

    async def _abandon(self) -> None:
        """Leave a broker that is gone. A producer's own end waits for acks that never come."""
        producer: Any = self._producer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_SECONDS):
                await producer.stop()
        producer._sender.sender_task.cancel()  # noqa: SLF001 (there is no public way to end it)
        await producer.client.close()

    async def add(self, value: bytes, key: bytes | None = None) -> None:
        """Add a record; it leaves when its partition's batch is full, or with `flush`.

        Without a key its partition is chosen by its value.
        """
        partition = partition_of(value if key is None else key, len(self._batches))
        while self._batches[partition].append(timestamp=None, key=key, value=value) is None:
            await self._dispatch(partition)

    async def flush(self) -> None:
        """Send what has been added; not waiting for the acks."""
        for partition, batch in enumerate(self._batches):
            if batch.record_count():
                await self._dispatch(partition)

    async def _dispatch(self, partition: int) -> None:
        batch, self._batches[partition] = self._batches[partition], self._producer.create_batch()
        batch.close()
        self._raise_failure()
        records = batch.record_count()
        try:
            # Waits while the partition's batch before is unsent: that bounds what is in memory.
            acked = await self._producer.send_batch(batch, self._topic, partition=partition)
        except KafkaError as exc:
            self._failure = exc
            self._raise_failure()
        else:
            self._unacked.add(acked)
            acked.add_done_callback(functools.partial(self._book, records))

    def _book(self, records: int, acked: "asyncio.Future[Any]") -> None:
        self._unacked.discard(acked)
        if acked.exception():
            self._failure = self._failure or acked.exception()
        else:
            self.sent += records

    def _raise_failure(self) -> None:
        if self._failure:
            message = (
                f"Kafka at {self._settings.bootstrap_servers} did not take what was sent "
                f"({str(self._failure) or type(self._failure).__name__}); {self.sent:,} records are acknowledged"
            )
            raise BrokerError(message) from self._failure


class Tally:
    """How far producing has come, and what was skipped. Filled while it goes on, so that an interruption has it too."""

    def __init__(self, show: int = 5) -> None:
        self.read = 0
        """Lines read."""
        self.sent = 0
        """Records that the broker has acknowledged."""
        self.skipped = Faults(show)


async def produce(
    settings: Settings,
    file: EventFile,
    tally: Tally,
    *,
    topic: str = EVENTS.name,
    pace: Callable[[Line], float] | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Send a file's lines, and fill `tally`. Lines that are no records are skipped and counted.

    Args:
        settings: Where the broker is.
        file: What to send.
        tally: Is filled.
        topic: Where to, without the prefix.
        pace: Seconds after the first line at which a line is due; none for as fast as it goes.
        on_progress: Is called every few thousand lines.

    Raises:
        InputFileError: The file cannot be read on.
        TopicMissingError: The topic is not there.
        BrokerError: The broker cannot be reached, or did not take what was sent.
    """
    sender = EventSender(settings, topic)

    def progress() -> None:
        tally.sent = sender.sent
        on_progress()

    try:
        async with sender:
            began = time.monotonic()
            chunks = file.chunks()
            # Read in a thread, so that batches leave and acks arrive meanwhile.
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                for line in chunk:
                    tally.read += 1
                    if line.error is not None:
                        tally.skipped.add(line.error, line.number)
                        continue
                    if pace and (ahead := began + pace(line) - time.monotonic()) > AHEAD_SECONDS:
                        await sender.flush()
                        progress()
                        await asyncio.sleep(ahead)
                    await sender.add(line.value, line.key)
                if file.live:
                    await sender.flush()
                progress()
    finally:
        progress()


def at_rate(per_second: float) -> Callable[[Line], float]:
    """Return a pace of so many events a second."""
    sent = itertools.count()
    return lambda _: next(sent) / per_second


def at_speed(factor: float) -> Callable[[Line], float]:
    """Return a pace by event time: 1 as it happened, 60 an hour in a minute. Lines out of order are due at once."""
    first: list[int] = []

    def due(line: Line) -> float:
        if line.ts is None:
            return 0.0
        if not first:
            first.append(line.ts)
        return (line.ts - first[0]) / 1000 / factor

    return due
