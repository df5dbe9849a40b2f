"""Line errors: a tally of the lines of a file that are no events, by reason."""

import re
from collections import Counter

MAX_REASONS = 100
"""Reasons that `Faults` keeps apart: one that repeats what stands in the line could be new each time."""

_PARTICULAR = re.compile(r" \(byte \d+\)")


class Faults:
    """What was wrong with lines: how many by reason, and the first numbers of each."""

    def __init__(self, show: int) -> None:
        self._show = show
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}

    def add(self, reason: str, number: int) -> None:
        """Count one line, by a reason without what is particular to it."""
        reason = _PARTICULAR.sub("", reason)
        if reason not in self._counts and len(self._counts) >= MAX_REASONS:
            reason = "other reasons"
        self._counts[reason] += 1
        first = self._first.setdefault(reason, [])
        if len(first) < self._show:
            first.append(number)

    @property
    def total(self) -> int:
        """How many lines were wrong."""
        return self._counts.total()

    def report(self) -> list[str]:
        """Return a line a reason, the most frequent first."""
        return [
            f"{count:,} x {reason} (line{'s' if count > 1 else ''} {', '.join(map(str, self._first[reason]))}"
            f"{', ...' if count > len(self._first[reason]) else ''})"
            for reason, count in self._counts.most_common()
        ]
