"""Summary of an event file: events by type, time span, repeated event ids and broken lines."""

from collections import Counter

import xxhash

from clickscore.schemas.events import Tick, decode_record
from clickscore.stream.event_files.line_errors import LineErrors
from clickscore.stream.event_files.lines import Line


class EventFileSummary:
    """Counts over the lines of an event file, after the same checks as in the worker."""

    def __init__(self, max_event_bytes: int, show: int) -> None:
        """Start without lines.

        Args:
            max_event_bytes: Length limit of an event, in bytes.
            show: Line numbers to keep for each kind of error.
        """
        self.types: Counter[str] = Counter()
        """Number of good events of each type."""
        self.errors = LineErrors(show)
        """Lines without a good event."""
        self.repeats = 0
        """Number of events with an earlier event id of the same user: the worker deduplicates events."""
        self.first_ts: int | None = None
        """Smallest event time, in ms."""
        self.last_ts: int | None = None
        """Largest event time, in ms."""
        self._max_event_bytes = max_event_bytes
        self._seen: set[int] = set()  # hashes of user id and event id

    def add(self, line: Line) -> None:
        """Count a line."""
        if line.error is not None:
            self.errors.add(line.error, line.number)
            return
        if len(line.value) > self._max_event_bytes:
            self.errors.add(f"more than max_event_bytes ({self._max_event_bytes})", line.number)
            return
        try:
            record = decode_record(line.value)
        except ValueError as exc:  # the errors of msgspec and of UTF-8 are ValueErrors
            self.errors.add(str(exc), line.number)
            return
        self.types[str(record.__struct_config__.tag)] += 1
        self.first_ts = record.ts if self.first_ts is None else min(self.first_ts, record.ts)
        self.last_ts = record.ts if self.last_ts is None else max(self.last_ts, record.ts)
        if not isinstance(record, Tick):
            identity = xxhash.xxh3_64_intdigest(f"{len(record.user_id)}:{record.user_id}{record.event_id}".encode())
            self.repeats += identity in self._seen
            self._seen.add(identity)
