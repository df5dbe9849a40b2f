"""Timers: keys that come due in event time, kept in one-minute buckets."""

import heapq

from clickscore.schemas.durations import MINUTE_MS


class TimerWheel:
    """A timer wheel whose buckets are minutes of event time.

    Due keys come out by minute, then in alphabetical order. A key whose time has moved on stays in its old bucket: it
    comes out early, and its owner adds it again. So the order of the keys that are really due follows from their times
    alone, not from when they were added, and a restored wheel behaves like the original.
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
        """Remove and return the next key whose minute has been reached; none where no key is due."""
        if not self._head:
            if not self.is_due(now_ms):
                return None
            self._head_minute = heapq.heappop(self._minutes)
            self._head = sorted(self._buckets.pop(self._head_minute), reverse=True)
        return self._head.pop()

    def is_later(self, time_ms: int) -> bool:
        """Return whether a time belongs to a later minute than the key that was popped last."""
        return time_ms // MINUTE_MS + 1 > self._head_minute

    def is_due(self, now_ms: int) -> bool:
        """Return whether any key is due."""
        return bool(self._head) or (bool(self._minutes) and self._minutes[0] * MINUTE_MS <= now_ms)
