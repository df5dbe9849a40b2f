"""Time order: measure whether a file is in order of event time, and read it in this order.

An event that is more than the lateness behind the events before it is late: it enters no session. In a file that is
not written in order of time, for example user by user, most events would be late. So a first pass over a file measures
the order; only a file with late events is sorted. A pipe can be read only once, and is read in its own order.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from clickscore.schemas.events import read_identify
from clickscore.schemas.field_types import YEAR_2000_MS, YEAR_9999_MS
from clickscore.stream.event_files.event_reader import BEGINNING, EventFile, LinePosition
from clickscore.stream.event_files.lines import Line
from clickscore.stream.event_files.sort import sort_lines

Order = Literal["time", "file"]
"""Order of reading: by event time where the file needs it, or always as the file is written."""

BUCKET_MS = 30 * 86_400_000
"""Length of a bucket of the histogram of times, 30 days: no file has more than 100,000 of them."""

OUTLIER_BUCKETS = 12
"""Buckets of silence, about a year, between the times of a file and a time that is taken for a mistake."""

OUTLIER_SHARE = 100
"""At most one row of 100 is taken for a mistake: a file with more of them holds two periods."""

FEW_OUTLIERS = 3
"""Rows that may be mistakes in a file of less than 300 rows, but at most a tenth of the rows, or one row."""

MIN_OTHER_ROWS = 3
"""Rows at plausible times without which nobody can tell which time is the mistake."""


class ReadingPlan(msgspec.Struct, frozen=True):
    """How to read a file: the order, and the times that are plausible."""

    sorts: bool = False
    """Whether the lines are sorted by time."""
    earliest: int | None = None
    """Smallest plausible event time, ms; None if all are."""
    latest: int | None = None
    """Largest plausible event time, ms; None if all are."""
    identifies: bool = False
    """Whether an event may identify a user, so that a session moves between partitions."""

    def check_time(self, line: Line) -> Line:
        """Return the line, or an error if its time is far from the times of the file."""
        if line.ts is None or not YEAR_2000_MS <= line.ts <= YEAR_9999_MS:
            return line  # the schema refuses an impossible time, and names the likely unit
        early = self.earliest is not None and line.ts < self.earliest
        late = self.latest is not None and line.ts > self.latest
        if not (early or late) or line.error is not None:
            return line
        word = "before" if early else "after"
        return Line(line.number, error=f"the time {utc_text(line.ts)} is a year or more {word} the rest of the file")


FILE_ORDER = ReadingPlan()
"""Plan of a file that is read as it is written."""


class TimeProfile:
    """Event times of a file, in the order of the file."""

    def __init__(self, lateness_ms: int) -> None:
        """Start without times.

        Args:
            lateness_ms: Allowed lateness of an event, ms.
        """
        self.late_rows = 0
        """Number of rows more than the lateness behind a row before, whatever its user."""
        self._lateness_ms = lateness_ms
        self._max_ts = -1
        self._identifies = False
        self._buckets: Counter[int] = Counter()

    def add(self, line: Line) -> None:
        """Count the time of a line; an impossible time is not counted."""
        self._identifies = self._identifies or read_identify(line.value) is not None
        ts = line.ts
        if ts is None or not YEAR_2000_MS <= ts <= YEAR_9999_MS:
            return
        self._buckets[ts // BUCKET_MS] += 1
        if ts > self._max_ts:
            self._max_ts = ts
        elif ts < self._max_ts - self._lateness_ms:
            self.late_rows += 1

    def plan(self) -> ReadingPlan:
        """Return how to read the file."""
        buckets = sorted(self._buckets)
        latest = self._last_plausible(buckets)
        earliest = self._last_plausible(buckets[::-1])
        return ReadingPlan(
            sorts=self.late_rows > 0,
            earliest=None if earliest is None else earliest * BUCKET_MS,
            latest=None if latest is None else (latest + 1) * BUCKET_MS - 1,
            identifies=self._identifies,
        )

    def _last_plausible(self, buckets: list[int]) -> int | None:
        """Return the last bucket before the mistakes at the end of the buckets; None without mistakes."""
        total, count, last = self._buckets.total(), 0, None
        limit = max(1, total // OUTLIER_SHARE, min(FEW_OUTLIERS, total // 10))
        for index in range(len(buckets) - 1, 0, -1):
            count += self._buckets[buckets[index]]
            if count > limit or total - count < MIN_OTHER_ROWS:
                break
            if abs(buckets[index] - buckets[index - 1]) > OUTLIER_BUCKETS:
                last = buckets[index - 1]
        return last


def plan_reading(
    path: Path, file_format: str, lateness_ms: int, *, requires_event: bool = True
) -> tuple[str, ReadingPlan]:
    """Return the format of a file and how to read it, after a first pass over the file. A pipe is read as it comes.

    Args:
        path: Path of the file, `-` for stdin.
        file_format: str of the file; `auto` finds the format.
        lateness_ms: Allowed lateness of an event, ms.
        requires_event: Whether a file without a good event is refused.

    Raises:
        InputFileError: The file cannot be read to the end, or holds no event.
    """
    if str(path) == "-" or not path.is_file():  # a named pipe, too, can be read only once
        return file_format, ReadingPlan()
    profile = TimeProfile(lateness_ms)
    with EventFile(path, file_format) as file:
        for chunk in file.chunks():
            for line in chunk:
                profile.add(line)
        if requires_event:
            file.require_event()
    return file.format, profile.plan()


class OrderedEventFile(EventFile):
    """An open event file that is read by a plan. Its position counts the lines in the order of reading."""

    def __init__(
        self,
        path: Path,
        file_format: str,
        plan: ReadingPlan,
        start: LinePosition = BEGINNING,
        keeps: Callable[[Line], bool] | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: Path of the file, `-` for stdin.
            file_format: str of the lines.
            plan: How to read the file.
            start: Start of the reading: the `position` of an earlier reading by the same plan.
            keeps: Returns whether a line is wanted; other lines need not be sorted. None wants all lines.
        """
        super().__init__(path, file_format, BEGINNING if plan.sorts else start)
        self._plan = plan
        self._keeps: Callable[[Line], bool] = keeps or _keeps_all
        self._skip = start.number if plan.sorts else 0

    def chunks(self) -> Iterator[list[Line]]:
        """Yield lines in the order of the plan, in lists; an empty list if stdin has been silent for a moment.

        Raises:
            InputFileError: The file cannot be read to the end, or the disk is too full for sorting.
        """
        if not self._plan.sorts:
            for chunk in EventFile.chunks(self):
                yield [self._plan.check_time(line) for line in chunk if self._keeps(line)]
            return
        checked = ([self._plan.check_time(line) for line in chunk] for chunk in EventFile.chunks(self))
        number = 0
        for lines in sort_lines(checked, keeps=self._keeps):
            unread = lines[max(0, self._skip - number) :]
            number += len(lines)
            self.position = LinePosition(max(number, self._skip))
            if unread:
                yield unread


def _keeps_all(_line: Line) -> bool:
    return True


def utc_text(ts: int) -> str:
    """Return an event time in ms as text, to the second."""
    return datetime.fromtimestamp(min(ts, YEAR_9999_MS) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
