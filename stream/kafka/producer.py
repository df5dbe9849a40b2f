"""Event sender: send records to a topic in batches, in the order of each key, and each record once."""

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from clickscore.schemas.topics import EVENTS
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, client_arguments, with_retry_backoff
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.kafka.topics import describe_missing_topic, list_topics
from clickscore.stream.settings import KafkaSettings

BATCH_BYTES = 128 * 1024
"""Size of a partition's record batch, bytes: larger batches were no faster, and smaller batches were slower."""

METADATA_MS = 10_000
"""Age at which the number of partitions is asked for again, ms."""

Headers = Sequence[tuple[str, bytes]]
"""Headers of a record."""

LOST_BROKER_STOP_SECONDS = 1.0
"""Timeout of stopping a producer without a broker."""


class EventSender:
    """Sends records to one topic: idempotent, `acks=all`, partitioned by murmur2 of the key, in the order of each key.

    A context manager. Leaving the context sends the remaining records and waits until they are acknowledged.

    Raises:
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached, or did not store a record.
    """

    def __init__(self, settings: KafkaSettings, topic: str = EVENTS.name) -> None:
        self.sent = 0
        """Number of acknowledged records."""
        self._settings = settings
        self._topic = settings.topic(topic)
        self._failure: BaseException | None = None
        self._batches: list[BatchBuilder] = []  # one a partition
        self._unacked: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        partitions = (await list_topics(self._settings, {self._topic: {"write"}})).get(self._topic)
        if partitions is None:
            raise TopicMissingError(describe_missing_topic(self._settings, self._topic))
        self._producer = with_retry_backoff(
            AIOKafkaProducer(
                **client_arguments(self._settings),
                acks="all",
                enable_idempotence=True,
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_REQUEST_BYTES,
                request_timeout_ms=self._settings.broker_wait_ms,
                metadata_max_age_ms=METADATA_MS,
            )
        )
        await self._producer.start()
        self._batches = [self._producer.create_batch() for _ in range(partitions)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._failure:
            with contextlib.suppress(BrokerError):  # `_failure` has the error
                await self.settle()
        if not self._failure:
            await self._producer.stop()
            return
        await self._stop_without_broker()
        if kind is None:
            self._raise_failure()

    async def settle(self) -> None:
        """Send the remaining records and wait for the acks, at most `broker_wait_ms`.

        An idempotent producer itself never gives up.

        Raises:
            BrokerError: The broker did not store a record.
        """
        try:
            async with asyncio.timeout(self._settings.broker_wait_ms / 1000):
                await self.flush()
                if self._unacked:
                    await asyncio.wait(self._unacked)
        except TimeoutError as exc:
            self._failure = exc
        self._raise_failure()

    async def check_partitions(self) -> None:
        """Check that the topic still has as many partitions as at the start, at the latest `METADATA_MS` ago.

        Raises:
            TopicMissingError: The topic has grown, so the partitions of its keys are no longer those of this sender.
        """
        partitions = len(await self._producer.partitions_for(self._topic))
        if partitions != len(self._batches):
            message = (
                f"topic {self._topic} had {len(self._batches)} partitions at the start and has {partitions} now: "
                "start the command again, so that it finds the partition of each user"
            )
            raise TopicMissingError(message)

    async def _stop_without_broker(self) -> None:
        """Stop a producer without a broker. The producer's own stop would wait for acks for ever."""
        producer: Any = self._producer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOST_BROKER_STOP_SECONDS):
                await producer.stop()
        producer._sender.sender_task.cancel()  # noqa: SLF001 (there is no public way to end it)
        await producer.client.close()

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic."""
        return len(self._batches)

    async def add(
        self, value: bytes, key: bytes | None = None, headers: Headers = (), *, partition: int | None = None
    ) -> None:
        """Add a record to the partition's batch. A full batch is sent at once, other batches by `flush`.

        Args:
            value: Value of the record.
            key: Key of the record, which decides the partition. A record without a key goes to the value's partition.
            headers: Headers of the record.
            partition: Partition of the record, whatever the key says.
        """
        if partition is None:
            partition = partition_of(value if key is None else key, len(self._batches))
        while self._batches[partition].append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
            await self._dispatch(partition)

    async def flush(self) -> None:
        """Send all added records without waiting for the acks."""
        for partition, batch in enumerate(self._batches):
            if batch.record_count():
                await self._dispatch(partition)

    async def _dispatch(self, partition: int) -> None:
        batch, self._batches[partition] = self._batches[partition], self._producer.create_batch()
        batch.close()
        self._raise_failure()
        records = batch.record_count()
        try:
            # The call waits while the partition's last batch is unsent, which bounds the memory.
            acked = await self._producer.send_batch(batch, self._topic, partition=partition)
        except KafkaError as exc:
            self._failure = exc
            self._raise_failure()
        else:
            self._unacked.add(acked)
            acked.add_done_callback(functools.partial(self._count_acked, records))

    def _count_acked(self, records: int, acked: "asyncio.Future[Any]") -> None:
        self._unacked.discard(acked)
        if acked.exception():
            self._failure = self._failure or acked.exception()
        else:
            self.sent += records

    def _raise_failure(self) -> None:
        if self._failure:
            message = (
                f"Kafka at {self._settings.bootstrap_servers} did not store what was sent "
                f"({str(self._failure) or type(self._failure).__name__}); {self.sent:,} records are acknowledged"
            )
            raise BrokerError(message) from self._failure
