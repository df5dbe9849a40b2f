"""Group: the small protocols through which the worker sees its Kafka consumer group, its batches and its producer.

`transport.py` and `faust_group.py` implement the protocols over Faust. The other files of the worker know nothing of
Faust, and tests drive them with plain doubles.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from clickscore.stream.pipeline import Record

Headers = Sequence[tuple[str, bytes]]
OutgoingRecord = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record to publish."""


class FetchedBatch(Protocol):
    """Consecutive records of one partition that one fetch returned."""

    @property
    def partition(self) -> int:
        """Partition of the records."""
        ...

    @property
    def records(self) -> Sequence[Record]:
        """Records in offset order."""
        ...

    @property
    def generation(self) -> int:
        """Generation of the consumer group in which the records were fetched."""
        ...

    @property
    def ends_fetch(self) -> bool:
        """Whether this batch is the last one of its fetch."""
        ...

    def mark_committable(self) -> None:
        """Allow the group to commit the batch's offset: the broker has acknowledged all output of the batch."""
        ...

    def ack(self) -> None:
        """Tell the group that the worker has let go of the batch; a rebalance and a shutdown wait for this call."""
        ...


class Producer(Protocol):
    """Stores records in Kafka."""

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> None:
        """Store records in order, and return once all replicas have them.

        Args:
            topic: Name of the topic, with its prefix.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.

        Raises:
            KafkaError: The broker refused a record, or did not answer in time.
        """
        ...

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        """Store records as one record batch, all or nothing, and return the offset after the batch.

        Args:
            topic: Name of the topic, with its prefix.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.

        Raises:
            KafkaError: The broker refused the batch, or did not answer in time.
            ValueError: The records are larger than a record batch may be.
        """
        ...


class ConsumerGroup(Protocol):
    """One member of the consumer group that reads the topic of events."""

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
        """Producer of this worker; it can be used once the worker has started."""
        ...

    def assignment(self) -> list[int]:
        """Return the partitions of the topic of events that this member owns, in order; empty before the start."""
        ...

    def highwater(self, partition: int) -> int | None:
        """Return the offset after the last readable record of a partition of events; None while it is not known."""
        ...

    def expect(self, offsets: Mapping[int, int]) -> None:
        """Set the offset from which each assigned partition must be read at the latest, so that a gap is noticed."""
        ...

    async def crash(self, exc: BaseException) -> None:
        """Stop the worker because of an error. Batches that are not acknowledged are not waited for."""
        ...
