"""Group: protocols for the worker's view of Kafka: the consumer group, fetched batches and the producer.

`transport.py` and `faust_group.py` implement the protocols over Faust. The other files of the worker do not know Faust,
and run in tests with plain doubles.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from clickscore.stream.pipeline_records import Record

Headers = Sequence[tuple[str, bytes]]


class FetchedRecord(Record, Protocol):
    """A record of the topic of events, as the client has fetched it."""

    @property
    def headers(self) -> Headers:
        """Headers in the order of the record."""
        ...


OutgoingRecord = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record to publish."""


class FetchedBatch(Protocol):
    """Consecutive records of a partition from a single fetch."""

    @property
    def partition(self) -> int:
        """Partition of the records."""
        ...

    @property
    def records(self) -> Sequence[FetchedRecord]:
        """Records in offset order."""
        ...

    @property
    def generation(self) -> int:
        """Generation of the consumer group at the time of the fetch."""
        ...

    @property
    def ends_fetch(self) -> bool:
        """Whether this batch is the last batch of the fetch."""
        ...

    def mark_committable(self) -> None:
        """Allow the group to commit the batch's offset: the broker has acknowledged all output of the batch."""
        ...

    def ack(self) -> None:
        """Report the batch to the group as finished; a rebalance and a shutdown wait for this call."""
        ...


class Producer(Protocol):
    """Stores records in Kafka."""

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int | None:
        """Store records in order, and return the append time (ms) once all replicas have stored the records.

        The append time is None for a topic that keeps the producer's time (`message.timestamp.type=CreateTime`).

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.

        Raises:
            KafkaError: The broker refused a record, or did not answer in time.
        """
        ...

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        """Store records as a single record batch, whole or not at all, and return the offset after the batch.

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.

        Raises:
            KafkaError: The broker refused the batch, or did not answer in time.
            ValueError: The records are too large for a record batch.
        """
        ...


class LossReporter(Protocol):
    """Takes what a log has lost."""

    def report(self, partition: int, start: int, end: int) -> None:
        """Report lost events.

        Args:
            partition: Partition of the topic of events.
            start: First lost offset.
            end: Offset after the last lost offset.
        """
        ...

    def report_cut_back(self, partition: int, offset: int, start: int) -> None:
        """Report a log that has lost its end: the events that were already decided on.

        Args:
            partition: Partition of the topic of events.
            offset: Last offset that was read.
            start: Offset from which the log was read again.
        """
        ...


class Transactions(Protocol):
    """Transactions of partitions of events; a new owner of a partition fences the earlier one."""

    async def take_over(self, partitions: Collection[int]) -> None:
        """Fence every earlier owner of the partitions, and give up all other partitions.

        Args:
            partitions: All partitions of this worker from now on.

        Raises:
            BrokerError: Kafka did not answer in time, or refuses transactions.
        """
        ...

    def begin(self, partition: int) -> AbstractAsyncContextManager[Producer]:
        """Provide a producer whose records become readable together, at the end of the block.

        Args:
            partition: Partition of the events, whose output is stored.

        Raises:
            ProducerFenced: Another worker has taken over the partition; nothing of the block is readable, ever.
            KafkaError: The broker refused, or did not answer in time.
        """
        ...


class ConsumerGroup(Protocol):
    """A member of the consumer group of the topic of events."""

    @property
    def generation(self) -> int:
        """Current generation of the group; each rebalance starts a new generation."""
        ...

    @property
    def rebalancing(self) -> bool:
        """Whether a rebalance is under way."""
        ...

    @property
    def producer(self) -> Producer:
        """Producer of this worker, for use after the start of the worker."""
        ...

    def assignment(self) -> list[int]:
        """Return this member's partitions of the topic of events, in order; empty before the start."""
        ...

    def highwater(self, partition: int) -> int | None:
        """Return the offset after a partition's last readable record, or no offset before the first fetch."""
        ...

    def partition_count(self) -> int | None:
        """Return the number of partitions of the topic of events; None while it is unknown."""
        ...

    def expect(self, offsets: Mapping[int, int], losses: LossReporter) -> None:
        """Set the latest offset to start each assigned partition from, to notice a gap or a log that was cut back.

        Args:
            offsets: Offset by partition.
            losses: Takes lost ranges.
        """
        ...

    async def crash(self, exc: BaseException) -> None:
        """Stop the worker because of an error, without waiting for unfinished batches."""
        ...
