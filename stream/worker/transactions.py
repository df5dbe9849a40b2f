"""Transactions: one transactional producer a partition, so that a partition's new owner fences the earlier one.

Kafka gives each transactional id an epoch. The new owner of a partition raises the epoch of the partition's id: Kafka
then aborts the unfinished transaction of the earlier owner, and refuses everything that the earlier owner still sends
(KIP-98). A stalled worker that wakes up can therefore write nothing.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced, TransactionalIdAuthorizationFailed

from clickscore.schemas.topics import EVENTS, MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, client_arguments, with_retry_backoff
from clickscore.stream.settings import Settings
from clickscore.stream.worker.group import OutgoingRecord
from clickscore.stream.worker.whole_batches import send_batches, send_whole_batch

RETRY_MS = 5
"""Pause before another attempt, ms: Kafka begins no transaction while it still writes the markers of the one before."""
STOP_SECONDS = 1.0
"""Time limit of closing a producer: the client would wait for a lost broker for ever."""


class PartitionProducer:
    """A producer inside the open transaction of a partition."""

    def __init__(self, client: AIOKafkaProducer) -> None:
        self._client = client

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int | None:
        """Send records in order and return the append time once all are stored, as in `group.Producer`.

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.
        """
        return await send_batches(self._client, topic, partition, messages)

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        """Send records as a single record batch and return the offset after the batch, as in `group.Producer`.

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.
        """
        return await send_whole_batch(self._client, topic, partition, messages)


class KafkaTransactions:
    """The transactional producers of the partitions of this worker."""

    def __init__(self, settings: Settings) -> None:
        """Start without partitions.

        Args:
            settings: Connection, names of topics and group, and how long to wait for a broker.
        """
        self._settings = settings
        self._clients: dict[int, AIOKafkaProducer] = {}
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def take_over(self, partitions: Collection[int]) -> None:
        """Fence every earlier owner of the partitions, and give up all other partitions.

        Args:
            partitions: All partitions of this worker from now on.

        Raises:
            BrokerError: Kafka did not answer within `broker_wait_ms`, or refuses the transactional id.
        """
        asyncio.get_running_loop().set_exception_handler(_log_unless_fenced)
        others = [partition for partition in self._clients if partition not in partitions]
        await asyncio.gather(*(self._close(partition) for partition in others))
        await asyncio.gather(*(self._open(partition) for partition in partitions))

    @contextlib.asynccontextmanager
    async def begin(self, partition: int) -> AsyncGenerator[PartitionProducer]:
        """Provide a producer whose records become readable together, at the end of the block.

        After an error in the block the transaction stays open. The next owner of the partition aborts it, or Kafka does
        after `broker_wait_ms`.

        Args:
            partition: Partition of the events, whose output is stored.

        Raises:
            ProducerFenced: Another worker has taken over the partition; nothing of the block is readable, ever.
            KafkaError: The broker refused, or did not answer in time.
        """
        async with self._locks[partition]:
            client = self._clients.get(partition)
            if client is None:
                raise ProducerFenced
            try:
                await client.begin_transaction()
                yield PartitionProducer(client)
                await client.commit_transaction()
            except ProducerFenced:
                await self._discard(partition)
                raise

    async def _open(self, partition: int) -> None:
        """Replace the producer of a partition; the start of the new one raises the epoch."""
        async with self._locks[partition]:
            await self._discard(partition)
            limit = self._settings.kafka.broker_wait_ms
            kafka, transactional_id = self._settings.kafka, self._transactional_id(partition)
            client = with_retry_backoff(
                AIOKafkaProducer(
                    **client_arguments(kafka),
                    transactional_id=transactional_id,
                    transaction_timeout_ms=max(limit, 1),
                    max_batch_size=MAX_RECORD_BYTES,
                    max_request_size=MAX_REQUEST_BYTES,
                    retry_backoff_ms=RETRY_MS,
                    request_timeout_ms=limit + 5_000,  # the publisher gives up earlier, with a better message
                )
            )
            self._clients[partition] = client
            try:
                async with asyncio.timeout(limit / 1000):
                    await client.start()
            except TransactionalIdAuthorizationFailed as exc:
                message = (
                    f"Kafka at {kafka.bootstrap_servers}: this client lacks rights: describe, write on transactional "
                    f"id {transactional_id}. Grant these (docs/operations.md, Rights), or set delivery=at_least_once"
                )
                raise BrokerError(message) from exc
            except (KafkaError, TimeoutError) as exc:
                message = (
                    f"Kafka at {kafka.bootstrap_servers} does not open transactions for {transactional_id} within "
                    f"{limit / 1000:.0f} s (broker_wait_ms): {str(exc) or type(exc).__name__}"
                )
                raise BrokerError(message) from exc

    async def _close(self, partition: int) -> None:
        async with self._locks[partition]:
            await self._discard(partition)

    async def _discard(self, partition: int) -> None:
        """Close the producer of a partition, if there is one."""
        client = self._clients.pop(partition, None)
        if client is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await client.stop()

    def _transactional_id(self, partition: int) -> str:
        """Return the id of a partition: the same for every worker of the group."""
        return f"{self._settings.kafka.topic(EVENTS.name)}-{self._settings.worker.group}-{partition}"


def _log_unless_fenced(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody has taken, unless the publisher has said it already.

    The client also keeps the error of a fenced transaction in futures of its own, which nobody awaits.
    """
    if not isinstance(context.get("exception"), ProducerFenced):
        loop.default_exception_handler(context)
