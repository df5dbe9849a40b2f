"""Ticks: records with the present time, to close the open sessions of idle partitions."""

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec
from aiokafka.errors import KafkaError

from clickscore.schemas.events import Tick
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

LIVE_MS = 3_600_000
"""Smallest age of the newest event of a backfill, ms. In a backfill no wall-clock time passes."""
CHECK_S = 1.0
"""Time between two looks for idle partitions, s."""


class IdleTicks:
    """Writes a tick into each idle live partition with open sessions, or with leases that return as time passes."""

    def __init__(
        self,
        pipeline: Pipeline,
        group: ConsumerGroup,
        *,
        topic: str,
        tick_after_ms: int,
        clock: Callable[[], float],
        metrics: Metrics,
        check_s: float = CHECK_S,
    ) -> None:
        """Build the writer of ticks.

        Args:
            pipeline: Knows each partition's open sessions and newest event.
            group: Has the producer.
            topic: Full name of the topic of events.
            tick_after_ms: Idle time before a tick, ms; 0 for never.
            clock: Returns the wall-clock time, s.
            metrics: Counts ticks that Kafka refused.
            check_s: Time between two looks for idle partitions, s.
        """
        self._pipeline = pipeline
        self._group = group
        self._topic = topic
        self._tick_after_ms = tick_after_ms
        self._clock = clock
        self._metrics = metrics
        self._check_s = check_s
        self._active_at: dict[int, float] = {}

    def assign(self, partitions: Iterable[int], retained: Iterable[int]) -> None:
        """Watch exactly these partitions.

        Args:
            partitions: Partitions of the new assignment; the idle time of a partition starts now.
            retained: Partitions with state kept in memory; the idle time goes on.
        """
        unchanged = {partition: self._active_at[partition] for partition in retained if partition in self._active_at}
        self._active_at = dict.fromkeys(partitions, self._clock()) | unchanged

    def note_batch(self, partition: int, now: float) -> None:
        """Note a batch of a partition.

        Args:
            partition: Partition of the batch.
            now: Wall-clock time, s.
        """
        self._active_at[partition] = now

    async def run(self) -> None:
        """Write due ticks until cancelled; return at once when ticks are switched off."""
        while self._tick_after_ms:
            await asyncio.sleep(self._check_s)
            await self.write_due()

    async def write_due(self) -> None:
        """Write a tick into each due partition."""
        now = self._clock()
        for partition in [partition for partition in self._active_at if self._is_due(partition, now)]:
            self._active_at[partition] = now
            await self._write(partition, int(now * 1000))

    async def _write(self, partition: int, ts: int) -> None:
        """Write a tick; a tick that Kafka refuses is counted, and the next tick is tried in its time."""
        value = msgspec.json.encode(Tick(ts=ts))
        try:
            await self._group.producer.publish(self._topic, partition, [(None, value, [])])
        except (KafkaError, ValueError) as exc:
            self._metrics.failed_ticks.inc()
            reason = str(exc) or type(exc).__name__
            log.warning(
                "no tick can be written into %s-%d, so its sessions stay open while no event comes: %s",
                self._topic,
                partition,
                reason,
            )

    def _is_due(self, partition: int, now: float) -> bool:
        state = self._pipeline.partitions.get(partition)
        if state is None or not (state.open_sessions or state.budgets.has_leases):
            return False
        idle = (now - self._active_at[partition]) * 1000 >= self._tick_after_ms
        return idle and now * 1000 - state.max_ts < LIVE_MS
