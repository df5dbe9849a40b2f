"""Summary of an event file: events by type, time span, order, repeated event ids, unknown items and broken lines."""

from collections import Counter
from collections.abc import Collection

import xxhash

from clickscore.schemas.events import Consent, Epoch, Erase, Identify, ItemEvent, Tick, decode_record
from clickscore.schemas.handover import Handover
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.stream.event_files.line_errors import LineErrors
from clickscore.stream.event_files.lines import Line
from clickscore.stream.kafka.partitioner import partition_of

JUMP_MS = 24 * 60 * 60 * 1000
"""A jump of more than a day is reported: a shop has events every day."""


class EventFileSummary:
    """Counts over the lines of an event file, after the same checks as in the worker."""

    def __init__(
        self,
        *,
        max_event_bytes: int,
        show: int,
        lateness_ms: int,
        partitions: int,
        known_items: Collection[str] | None = None,
    ) -> None:
        """Start without lines.

        Args:
            max_event_bytes: Length limit of an event, in bytes.
            show: Line numbers to keep for each kind of error.
            lateness_ms: Allowed lateness of an event, ms.
            partitions: Number of partitions that the users are divided into.
            known_items: Item ids of a bundle; None counts no unknown items.
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
        self.late = LineErrors(show)
        """Events that are late if a topic gets the lines in the order of the file."""
        self.out_of_order = 0
        """Number of events older than the event before."""
        self.jumps = 0
        """Number of times that the newest event time moves by more than `JUMP_MS`."""
        self.longest_jump_ms = 0
        """Largest of these jumps, ms."""
        self.longest_jump_line = 0
        """Number of the line after the largest jump."""
        self.item_events = 0
        """Number of events on an item."""
        self.unknown_items: Counter[str] | None = None if known_items is None else Counter()
        """Number of events of each item that the bundle does not know; None without a bundle."""
        self._known_items = known_items
        self._lateness_ms = lateness_ms
        self._newest = [-1] * partitions
        self._previous_ts = -1
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
        if isinstance(record, Epoch):
            return  # an epoch has no time
        if not isinstance(
            record, Consent | Erase | Identify | Handover | BudgetLease | SpendReport
        ):  # they do not move the watermark
            self._add_time(line, record.ts)
        self.first_ts = record.ts if self.first_ts is None else min(self.first_ts, record.ts)
        self.last_ts = record.ts if self.last_ts is None else max(self.last_ts, record.ts)
        if not isinstance(record, Tick | Handover | BudgetLease | SpendReport):
            identity = xxhash.xxh3_64_intdigest(f"{len(record.user_id)}:{record.user_id}{record.event_id}".encode())
            self.repeats += identity in self._seen
            self._seen.add(identity)
        if isinstance(record, ItemEvent):
            self.item_events += 1
            if self.unknown_items is not None and self._known_items is not None:
                self.unknown_items.update([record.item_id] * (record.item_id not in self._known_items))

    @property
    def fit(self) -> bool:
        """Whether the file can be used as it is: no line is wrong or late, and the bundle knows half of the items."""
        unknown = self.unknown_items.total() if self.unknown_items else 0
        return not (self.errors.total or self.late.total or unknown * 2 > self.item_events)

    def as_document(self) -> dict[str, object]:
        """Return all counts by name, for JSON."""
        return {
            "good_events": self.types.total(),
            "types": dict(self.types.most_common()),
            "first_ts": self.first_ts,
            "last_ts": self.last_ts,
            "repeats": self.repeats,
            "out_of_order": self.out_of_order,
            "jumps": self.jumps,
            "longest_jump_ms": self.longest_jump_ms,
            "longest_jump_line": self.longest_jump_line,
            "item_events": self.item_events,
            "events_on_unknown_items": None if self.unknown_items is None else self.unknown_items.total(),
            "unknown_items": None if self.unknown_items is None else len(self.unknown_items),
            "late": self.late.as_document(),
            "errors": self.errors.as_document(),
            "fit": self.fit,
        }

    def _add_time(self, line: Line, ts: int) -> None:
        """Compare the time of an event with the events before."""
        self.out_of_order += ts < self._previous_ts
        self._previous_ts = ts
        jump_ms = ts - self.last_ts if self.last_ts is not None else 0
        if jump_ms > JUMP_MS:
            self.jumps += 1
            if jump_ms > self.longest_jump_ms:
                self.longest_jump_ms, self.longest_jump_line = jump_ms, line.number
        partition = partition_of(line.routing, len(self._newest))
        if ts < self._newest[partition] - self._lateness_ms:
            self.late.add("behind the newest event of its partition", line.number)
        self._newest[partition] = max(self._newest[partition], ts)
