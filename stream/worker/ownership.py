"""Ownership: the partitions with valid state in memory, and the fetched batches that are not yet released."""

from collections import Counter
from collections.abc import Iterable

from clickscore.stream.pipeline import Pipeline
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch


class Ownership:
    """Compares batches with the group's generation: another worker may own a batch of an earlier generation."""

    def __init__(self, group: ConsumerGroup, pipeline: Pipeline) -> None:
        self._group = group
        self._pipeline = pipeline
        self._joined = False  # an empty assignment before the first rebalance does not mean that all is restored
        self._restored_in: dict[int, int] = {}  # generation of the group in which a partition's state was restored
        self._held: Counter[int] = Counter()  # batches of a partition that are put in and not released

    def own(self, partitions: Iterable[int], generation: int) -> None:
        """Own exactly these partitions, restored in a generation of the group."""
        self._restored_in = dict.fromkeys(partitions, generation)
        self._joined = True

    def disown(self, partitions: Iterable[int]) -> None:
        """Give up partitions before their restore: a batch of an earlier generation no longer discards their state."""
        for partition in partitions:
            self._restored_in.pop(partition, None)

    def hold(self, batch: FetchedBatch) -> None:
        """Note a batch as held until `release`."""
        self._held[batch.partition] += 1

    def release(self, batch: FetchedBatch) -> None:
        """Let go of a batch, published or given up, and tell the group."""
        self._held[batch.partition] -= 1
        batch.ack()

    def is_current(self, batch: FetchedBatch) -> bool:
        """Return whether the fetch of a batch and the restore of the state belong to the present generation."""
        return batch.generation == self._group.generation == self._restored_in.get(batch.partition)

    def is_settled(self, partition: int) -> bool:
        """Return whether a partition's state is in memory and all output of the partition is published."""
        return partition in self._restored_in and not self._held[partition]

    def is_restored(self, partitions: Iterable[int]) -> bool:
        """Return whether the worker has joined the group and these partitions have their state."""
        return self._joined and all(partition in self._restored_in for partition in partitions)

    def discard_state(self, batch: FetchedBatch) -> None:
        """Forget a partition's state after an abandoned batch: the state is ahead of the log. A restore follows."""
        if self._restored_in.get(batch.partition) == batch.generation:
            del self._restored_in[batch.partition]
            self._pipeline.drop([batch.partition])
