"""Wheel: keys to look at again once event time has passed a minute."""

import heapq

from clickscore.schemas.durations import MINUTE_MS


class TimerWheel:
    """Keys in buckets of a minute, handed out by minute and then by name.

    A key whose time moved on is not sought and moved: it comes out at its old minute, and its owner adds it again. So
    what is really due comes out in an order that depends on the times alone, not on when keys were added: a restored
    wheel behaves like the old one.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._minutes: list[int] = []  # a heap
        self._head: list[str] = []  # the bucket that is being handed out, last name first
        self._head_minute = 0

    def add(self, key: str, at_ms: int) -> None:
        """Make a key due at the first full minute after `at_ms`."""
        minute = at_ms // MINUTE_MS + 1
        bucket = self._buckets.get(minute)
        if bucket is None:
            self._buckets[minute] = [key]
            heapq.heappush(self._minutes, minute)
        else:
            bucket.append(key)

    def pop(self, now_ms: int) -> str | None:
        """Take out and return the next key whose minute has been reached; none where there is none."""
        if not self._head:
            if not self.is_due(now_ms):
                return None
            self._head_minute = heapq.heappop(self._minutes)
            self._head = sorted(self._buckets.pop(self._head_minute), reverse=True)
        return self._head.pop()

    def is_later(self, at_ms: int) -> bool:
        """Return whether a time belongs to a later minute than the key that was handed out last."""
        return at_ms // MINUTE_MS + 1 > self._head_minute

    def is_due(self, now_ms: int) -> bool:
        """Return whether the minute of any key has been reached."""
        return bool(self._head) or (bool(self._minutes) and self._minutes[0] * MINUTE_MS <= now_ms)
