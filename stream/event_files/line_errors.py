"""Line errors: count the broken lines of a file, by reason."""

import re
from collections import Counter

from clickscore.stream.terminal_text import safe_text

MAX_REASONS = 100
"""Number of reasons with a count of their own. A reason may quote the line, so every broken line could add a reason."""

_BYTE_POSITION = re.compile(r" \(byte \d+\)")


class LineErrors:
    """Numbers of broken lines by reason, with the line numbers of the first lines of each reason."""

    def __init__(self, show: int) -> None:
        """Start without errors.

        Args:
            show: Line numbers to keep for each reason.
        """
        self._show = show
        self._counts: Counter[str] = Counter()
        self._first_lines: dict[str, list[int]] = {}

    def add(self, reason: str, number: int) -> None:
        """Count a broken line. The byte position in the reason is dropped, so that equal errors are counted together.

        Args:
            reason: Error message.
            number: Line number, from 1.
        """
        reason = _BYTE_POSITION.sub("", reason)
        if reason not in self._counts and len(self._counts) >= MAX_REASONS:
            reason = "other reasons"
        self._counts[reason] += 1
        numbers = self._first_lines.setdefault(reason, [])
        if len(numbers) < self._show:
            numbers.append(number)

    @property
    def total(self) -> int:
        """Number of broken lines."""
        return self._counts.total()

    def as_document(self) -> list[dict[str, object]]:
        """Return reason, count and first line numbers of each reason, for JSON; the most frequent reason first."""
        return [
            {"reason": reason, "count": count, "lines": self._first_lines[reason]}
            for reason, count in self._counts.most_common()
        ]

    def report(self) -> list[str]:
        """Return a sentence of safe text for each reason, the most frequent reason first."""
        return [
            f"{count:,} x {safe_text(reason)} "
            f"(line{'s' if count > 1 else ''} {', '.join(map(str, self._first_lines[reason]))}"
            f"{', ...' if count > len(self._first_lines[reason]) else ''})"
            for reason, count in self._counts.most_common()
        ]
