"""Losses: report events that Kafka removed before this worker decided on them."""

import logging
from collections.abc import Callable

from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)


class Losses:
    """Counts lost events, and writes a line for each lost range."""

    def __init__(self, topic: str, metrics: Metrics, on_cut_back: Callable[[int, int, int], None]) -> None:
        """Start without a loss.

        Args:
            topic: Full name of the topic of events.
            metrics: Counts lost events.
            on_cut_back: Stops the worker. Takes the partition, the last offset that was read, and the offset from which
                the log was read again.
        """
        self.events = 0
        """Number of lost offsets since the start."""
        self._topic = topic
        self._metrics = metrics
        self._on_cut_back = on_cut_back
        self._ends: dict[int, int] = {}  # end of the last reported range of each partition

    def report(self, partition: int, start: int, end: int) -> None:
        """Report a lost range once.

        Args:
            partition: Partition of the topic of events.
            start: First lost offset.
            end: Offset after the last lost offset.
        """
        start = max(start, self._ends.get(partition, 0))
        if start >= end:
            return
        self._ends[partition] = end
        self.events += end - start
        self._metrics.events.labels("lost").inc(end - start)
        log.error(
            "%s-%d: offsets %d to %d are lost, %d in all: the log no longer has them (retention, or an unclean leader "
            "election). Nothing was decided on them, and sessions of that time are incomplete",
            self._topic,
            partition,
            start,
            end - 1,
            end - start,
        )

    def report_cut_back(self, partition: int, offset: int, start: int) -> None:
        """Stop the worker: decided events are gone, and other events may have their offsets.

        Args:
            partition: Partition of the topic of events.
            offset: Last offset that was read.
            start: Offset from which the log was read again.
        """
        self._on_cut_back(partition, offset, start)
