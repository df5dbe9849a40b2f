"""Traffic shape: the share of a day's pages that comes before a time of day, learned from past days.

The shape counts pages with a matching campaign, in event time: pages where no ad can be shown say nothing of when money
can be spent.
"""

from itertools import accumulate

import msgspec

from clickscore.schemas.durations import DAY_MS, HOUR_MS

BIN_MS = DAY_MS // 96
"""Length of a bin, ms: a quarter of an hour."""
BINS = DAY_MS // BIN_MS
MIN_PAGES = 1_000
"""Pages of a day at least, for a shape: about ten in each bin."""
NEW_DAY_WEIGHT = 0.5
"""Weight of the newest day; a shop's week is not kept apart."""
EVEN_SHARE = 0.02
"""Share of the shape that is even, so that no part of the day counts for nothing."""


class TrafficShape(msgspec.Struct, array_like=True):
    """The shape of past days, and the counts of the present day."""

    shares: list[float] = []
    """Share of a day's pages before the end of each bin; empty before a whole day: then the day counts as even."""
    day: int = -1
    """Present day, days since 1970; -1 before the first page."""
    counts: list[int] = []
    """Pages of the present day by bin."""
    is_whole: bool = False
    """Whether the present day has been counted from its beginning."""

    def count(self, ts: int, pages: int) -> None:
        """Count pages at an event time; the first page of a new day ends the day before. Earlier days do not count.

        Args:
            ts: Event time, ms.
            pages: Number of pages.
        """
        day = ts // DAY_MS
        if day < self.day:
            return
        if day > self.day:
            self._learn()
            self.is_whole = self.day >= 0 or ts % DAY_MS < HOUR_MS
            self.day, self.counts = day, [0] * BINS
        self.counts[ts % DAY_MS // BIN_MS] += pages

    def _learn(self) -> None:
        """Blend the day that ends into the shape, unless it says too little."""
        total = sum(self.counts)
        if not self.is_whole or total < MIN_PAGES:
            return
        today = [
            (1 - EVEN_SHARE) * pages / total + EVEN_SHARE * (number + 1) / BINS
            for number, pages in enumerate(accumulate(self.counts))
        ]
        if self.shares:
            today = [
                NEW_DAY_WEIGHT * share + (1 - NEW_DAY_WEIGHT) * former_share
                for share, former_share in zip(today, self.shares, strict=True)
            ]
        self.shares = today

    def share_before(self, time_of_day: int) -> float:
        """Return the share of a day's pages before a time of the day (ms), 0 to 1."""
        position = min(max(time_of_day, 0), DAY_MS) / BIN_MS
        if not self.shares:
            return position / BINS
        whole = int(position)
        base = self.shares[whole - 1] if whole else 0.0
        return base + (self.shares[whole] - base) * (position - whole) if whole < BINS else base

    def share_between(self, begin: int, end: int, time_of_day: int) -> float:
        """Return the share of the pages of a part of the day that comes before a time of day, 0 to 1.

        Args:
            begin: Beginning of the part, ms after midnight.
            end: End of the part, ms after midnight; after the beginning.
            time_of_day: The time, ms after midnight.
        """
        first, last = self.share_before(begin), self.share_before(end)
        share = (self.share_before(time_of_day) - first) / (last - first)
        return min(1.0, max(0.0, share))
