"""Ownership: which partitions' state in memory is valid, and which fetched batches the worker still holds."""

from collections import Counter
from collections.abc import Iterable

from clickscore.stream.pipeline import Pipeline
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch


class Ownership:
    """Compares batches with the group's generation: a batch of an earlier one may belong to another worker by now."""

    def __init__(self, group: ConsumerGroup, pipeline: Pipeline) -> None:
        self._group = group
        self._pipeline = pipeline
        self._joined = False  # an empty assignment before the first rebalance does not mean that all is restored
        self._restored_in: dict[int, int] = {}  # generation of the group in which a partition's state was restored
        self._held: Counter[int] = Counter()  # batches of a partition that are put in and not released

    def own(self, partitions: Iterable[int], generation: int) -> None:
        """Note that exactly these partitions are restored in a generation of the group."""
        self._restored_in = dict.fromkeys(partitions, generation)
        self._joined = True

    def hold(self, batch: FetchedBatch) -> None:
        """Note that the worker holds a batch; `release` ends this."""
        self._held[batch.partition] += 1

    def release(self, batch: FetchedBatch) -> None:
        """Let go of a batch, published or given up, and tell the group."""
        self._held[batch.partition] -= 1
        batch.ack()

    def is_current(self, batch: FetchedBatch) -> bool:
        """Return whether a batch was fetched in the present generation, and its state was restored in it."""
        return batch.generation == self._group.generation == self._restored_in.get(batch.partition)

    def is_settled(self, partition: int) -> bool:
        """Return whether a partition's state is in memory and everything computed from it is published."""
        return partition in self._restored_in and not self._held[partition]

    def is_restored(self, partitions: Iterable[int]) -> bool:
        """Return whether the worker has joined the group and these partitions have their state."""
        return self._joined and all(partition in self._restored_in for partition in partitions)

    def discard_state(self, batch: FetchedBatch) -> None:
        """Forget the state of a partition whose batch is given up: it is ahead of the log. A restore brings it back."""
        if self._restored_in.get(batch.partition) == batch.generation:
            del self._restored_in[batch.partition]
            self._pipeline.drop([batch.partition])
