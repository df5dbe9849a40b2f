"""Notices: log lines on wrong clocks and on users in foreign partitions, at most one of a kind in a minute."""

import logging
import time
from collections.abc import Callable

from clickscore.schemas.durations import MINUTE_MS
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.pipeline_records import Message, Output, WatermarkJump
from clickscore.stream.worker.group import ConsumerGroup
from clickscore.stream.worker.logs import user_hash, with_fields
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

NOTICE_S = 60.0
"""Time between two lines of a kind, s."""
CHECKED_USERS = 128
"""Users of a batch whose partition is checked, at most. A first check takes 5 us, and a full batch about 30 ms."""
REMEMBERED_USERS = 100_000
"""Hashes of foreign users that are remembered, at most, to count a user once: about 10 MB."""


class Notices:
    """Looks at published outputs for what a shop should know: wrong clocks and mixed partitioners."""

    def __init__(
        self, topic: str, group: ConsumerGroup, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without notices.

        Args:
            topic: Full name of the topic of events.
            group: Knows the number of partitions.
            metrics: Counts foreign users.
            monotonic: Returns a time that never goes back, s.
        """
        self._topic = topic
        self._group = group
        self._metrics = metrics
        self._monotonic = monotonic
        self._foreign: set[int] = set()
        self._jump_lines = RateLimit(monotonic)
        self._foreign_lines = RateLimit(monotonic)

    def note(self, partition: int, output: Output) -> None:
        """Look at the output of a batch of a partition."""
        for jump in output.jumps:
            self._note_jump(partition, jump)
        self._check_partitions(partition, output.recommendations)

    def _note_jump(self, partition: int, jump: WatermarkJump) -> None:
        dropped = self._jump_lines.admit()
        if dropped is None:
            return
        append_time = (
            "" if jump.ahead_ms is None else f", {abs(jump.ahead_ms):,} ms {_side(jump.ahead_ms)} its append time"
        )
        log.warning(
            "%s-%d, offset %d: event %r of the user with the hash %s moves the newest event time by %.0f minutes%s. "
            "If its clock is wrong, events of others are late until time has caught up%s",
            self._topic,
            partition,
            jump.offset,
            jump.event_id,
            user_hash(jump.user_id.encode()),
            jump.moved_ms / MINUTE_MS,
            append_time,
            f" (and {dropped} more jumps since the last line)" if dropped else "",
            extra=with_fields(
                decision_id=f"{self._topic}-{partition}-{jump.offset}", user=user_hash(jump.user_id.encode())
            ),
        )

    def _check_partitions(self, partition: int, decisions: list[Message]) -> None:
        """Count the users of decisions that the partitioner would send to another partition."""
        partitions = self._group.partition_count()
        if not partitions:
            return
        users = list(dict.fromkeys(message.key for message in decisions if message.key))[:CHECKED_USERS]
        for user in users:
            expected = partition_of(user, partitions)
            if expected == partition or hash(user) in self._foreign:
                continue
            if len(self._foreign) >= REMEMBERED_USERS:
                self._foreign.clear()
            self._foreign.add(hash(user))
            self._metrics.foreign.inc()
            dropped = self._foreign_lines.admit()
            if dropped is not None:
                log.warning(
                    "%s-%d: the user with the hash %s belongs to partition %d by murmur2 of the user id. Do producers "
                    "use the user id as key, and one partitioner? docs/integration.md lists the partitioners%s",
                    self._topic,
                    partition,
                    user_hash(user),
                    expected,
                    f" (and {dropped} more users since the last line)" if dropped else "",
                    extra=with_fields(partition=partition, user=user_hash(user)),
                )


class RateLimit:
    """Admits an occurrence now and then, and counts the dropped ones."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._admitted_at: float | None = None
        self._dropped = 0

    def admit(self) -> int | None:
        """Return the number of dropped occurrences since the last admission; None for a dropped occurrence."""
        now = self._monotonic()
        if self._admitted_at is not None and now - self._admitted_at < NOTICE_S:
            self._dropped += 1
            return None
        self._admitted_at, dropped, self._dropped = now, self._dropped, 0
        return dropped


def _side(ahead_ms: int) -> str:
    return "after" if ahead_ms >= 0 else "before"
