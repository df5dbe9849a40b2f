"""Wheel: keys to look at again once event time has passed a minute."""

import heapq

MINUTE_MS = 60_000


class TimeWheel:
    """Keys in buckets of a minute.

    A key whose time moved on is not sought and moved: it comes due at its old minute, and its owner adds it again.
    So what is due depends on the times alone, not on when keys were added: a restored wheel behaves like the old one.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._minutes: list[int] = []  # a heap

    def add(self, key: str, at_ms: int) -> None:
        """Make a key due at the first full minute after `at_ms`."""
        minute = at_ms // MINUTE_MS + 1
        bucket = self._buckets.get(minute)
        if bucket is None:
            self._buckets[minute] = [key]
            heapq.heappush(self._minutes, minute)
        else:
            bucket.append(key)

    def due(self, now_ms: int) -> list[str]:
        """Take out and return the keys whose minute has been reached."""
        keys: list[str] = []
        while self._minutes and self._minutes[0] * MINUTE_MS <= now_ms:
            keys += self._buckets.pop(heapq.heappop(self._minutes))
        return keys
