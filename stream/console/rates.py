"""Rates: counts by second, and latencies, over the last minutes."""

import math
from collections import Counter, deque

WINDOW_SECONDS = 120
"""Number of seconds that are remembered."""
RATE_SECONDS = 5
"""Number of seconds over which a rate is averaged: short enough to see a change, long enough to be steady."""


class _Second:
    """Counts of a second."""

    def __init__(self, second: int) -> None:
        self.second = second
        self.counts: Counter[str] = Counter()
        self.latencies: Counter[int] = Counter()


class Rates:
    """Counts and latencies of the last `WINDOW_SECONDS` seconds."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_SECONDS)
        self.totals: Counter[str] = Counter()
        """Counts since the start, by name."""

    def count(self, name: str, now_s: float) -> None:
        """Count an occurrence.

        Args:
            name: Name of the count.
            now_s: Time, s.
        """
        self._second(now_s).counts[name] += 1
        self.totals[name] += 1

    def measure(self, latency_ms: int, now_s: float) -> None:
        """Note a latency.

        Args:
            latency_ms: Latency, ms.
            now_s: Time, s.
        """
        self._second(now_s).latencies[_rounded(max(0, latency_ms))] += 1

    def per_second(self, name: str, now_s: float) -> float:
        """Return the number of occurrences a second over the last finished seconds.

        Args:
            name: Name of the count.
            now_s: Time, s.
        """
        end = int(now_s)
        total = sum(part.counts[name] for part in self._seconds if end - RATE_SECONDS <= part.second < end)
        return total / RATE_SECONDS

    def series(self, name: str, now_s: float, length: int = 60) -> list[int]:
        """Return the counts of the last finished seconds, the oldest first.

        Args:
            name: Name of the count.
            now_s: Time, s.
            length: Number of seconds.
        """
        counts = {part.second: part.counts[name] for part in self._seconds}
        return [counts.get(second, 0) for second in range(int(now_s) - length, int(now_s))]

    def percentiles(self, *shares: float) -> list[int | None]:
        """Return percentiles of the remembered latencies, ms; absent without latencies."""
        merged: Counter[int] = Counter()
        for part in self._seconds:
            merged.update(part.latencies)
        total, values = merged.total(), sorted(merged)
        results: list[int | None] = []
        for share in shares:
            passed, rank = 0, math.ceil(share * total)
            result: int | None = None
            for value in values:
                passed += merged[value]
                if passed >= rank:
                    result = value
                    break
            results.append(result)
        return results

    def _second(self, now_s: float) -> _Second:
        second = int(now_s)
        if not self._seconds or second > self._seconds[-1].second:
            self._seconds.append(_Second(second))
        return self._seconds[-1]


def _rounded(latency_ms: int) -> int:
    """Return a latency with two digits, so that the number of different values is bounded."""
    digits = len(str(latency_ms))
    return latency_ms if digits <= 2 else round(latency_ms, 2 - digits)
