"""Timers: keys come due in event time, grouped in buckets of a minute."""

import heapq
from collections.abc import Set as AbstractSet

from clickscore.schemas.durations import MINUTE_MS
from clickscore.stream.reference.epoch_schedule import NEVER_MS


class TimerWheel:
    """A timer wheel with one-minute buckets of event time.

    Due keys come out by minute, then in alphabetical order. A key with a new, later time stays in the old bucket, comes
    out early, and is added again by the caller. So the order of really due keys follows from the times alone, not from
    the order of the calls of `add`, and a restored wheel behaves like the original.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._minutes: list[int] = []  # a heap of the minutes that have a bucket
        self._head: list[str] = []  # rest of the bucket that is being emptied, in reverse alphabetical order
        self._head_minute = 0

    def add(self, key: str, time_ms: int) -> None:
        """Make a key due at the first full minute after `time_ms`."""
        minute = time_ms // MINUTE_MS + 1
        bucket = self._buckets.get(minute)
        if bucket is None:
            self._buckets[minute] = [key]
            heapq.heappush(self._minutes, minute)
        else:
            bucket.append(key)

    def pop(self, now_ms: int) -> str | None:
        """Remove and return the next due key, if any."""
        if self._head and self._minutes and self._minutes[0] <= self._head_minute:
            self._return_head()
        if not self._head:
            if not self.is_due(now_ms):
                return None
            self._head_minute = heapq.heappop(self._minutes)
            self._head = sorted(self._buckets.pop(self._head_minute), reverse=True)
        return self._head.pop()

    def _return_head(self) -> None:
        """Put the rest of the bucket back: keys of the same or an earlier minute were added and come first."""
        bucket = self._buckets.setdefault(self._head_minute, [])
        if not bucket:
            heapq.heappush(self._minutes, self._head_minute)
        bucket.extend(self._head)
        self._head = []

    def is_later(self, time_ms: int) -> bool:
        """Return whether a time belongs to a later minute than the last popped key."""
        return time_ms // MINUTE_MS + 1 > self._head_minute

    @property
    def minute_ms(self) -> int:
        """Begin of the minute of the last popped key, ms: earlier times are due."""
        return self._head_minute * MINUTE_MS

    @property
    def next_ms(self) -> int:
        """Time from which on a key is due, ms; `NEVER_MS` without keys."""
        if self._head:
            return self.minute_ms
        return self._minutes[0] * MINUTE_MS if self._minutes else NEVER_MS

    def is_due(self, now_ms: int) -> bool:
        """Return whether any key is due."""
        return bool(self._head) or (bool(self._minutes) and self._minutes[0] * MINUTE_MS <= now_ms)

    def remove(self, keys: AbstractSet[str]) -> None:
        """Remove keys, wherever they are. This looks at all keys of the wheel."""
        for minute in [minute for minute, bucket in self._buckets.items() if not keys.isdisjoint(bucket)]:
            self._buckets[minute] = [key for key in self._buckets[minute] if key not in keys]
            if not self._buckets[minute]:
                del self._buckets[minute]
        self._minutes = sorted(self._buckets)  # sorted is a heap, too
        self._head = [key for key in self._head if key not in keys]
