# pyright: basic
"""Faust group: the worker's protocols of `group.py`, implemented over a Faust app with the batch transport."""

import warnings
from collections.abc import Mapping
from typing import Any

import faust
from faust.exceptions import AlreadyConfiguredWarning, ConsumerNotStarted
from faust.types import TP

from clickscore.stream.worker.group import LossReporter
from clickscore.stream.worker.transport import Batch, BatchProducer


class FaustBatch:
    """A batch of records behind an event of Faust's agent."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self.partition: int = event.message.partition
        self.records: Batch = event.message.value
        self.generation: int = event.message.generation_id
        self.ends_fetch: bool = event.message.ends_fetch

    def mark_committable(self) -> None:
        """Allow the transport to commit the offset of the batch."""
        self._event.message.committable = True

    def ack(self) -> None:
        """Report the batch to Faust as finished: rebalance and shutdown wait for this call."""
        self._event.ack()


class FaustGroup:
    """The consumer group of a Faust app, reduced to the topic of events."""

    def __init__(self, app: faust.App, topic: str) -> None:
        """Wrap an app.

        Args:
            app: App with the batch transport.
            topic: Full name of the topic of events.
        """
        self._app = app
        self._topic = topic

    @property
    def generation(self) -> int:
        """Current generation of the consumer group."""
        return self._app.consumer_generation_id

    @property
    def rebalancing(self) -> bool:
        """Whether a rebalance is under way."""
        return bool(self._app.rebalancing)

    @property
    def producer(self) -> BatchProducer:
        """The transport's producer."""
        return self._app.producer  # pyright: ignore[reportReturnType]  (the transport builds this class)

    def assignment(self) -> list[int]:
        """Return the assigned partitions in order; empty before the consumer starts, when /health is already served."""
        try:
            assignment = self._app.consumer.assignment()
        except ConsumerNotStarted:
            return []
        return sorted(tp.partition for tp in assignment if tp.topic == self._topic)

    def highwater(self, partition: int) -> int | None:
        """Return the offset after a partition's last readable record, or no offset before the first fetch."""
        consumer: Any = self._app.consumer  # the transport's BatchConsumer
        return consumer.readable_end(TP(self._topic, partition))

    def partition_count(self) -> int | None:
        """Return the number of partitions in the newest metadata of the client; None before the first metadata."""
        consumer: Any = self._app.consumer  # the transport's BatchConsumer
        return consumer.partition_count(self._topic)

    def expect(self, offsets: Mapping[int, int], losses: LossReporter) -> None:
        """Tell the consumer the latest offset to start each partition from, and who takes lost ranges."""
        expected = {TP(self._topic, partition): offset for partition, offset in offsets.items()}
        self._app.consumer.expect(expected, losses)  # pyright: ignore[reportAttributeAccessIssue]  (BatchConsumer.expect)

    async def crash(self, exc: BaseException) -> None:
        """Stop the app. Faust must not wait for the unpublished batches."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)  # Faust reads this setting as it stops
            self._app.conf.stream_wait_empty = False
        await self._app.crash(exc)
