"""Session files: read closed sessions, drop duplicates and bots, and encode the rest as session arrays.

A file holds JSON lines of `schemas.sessions.ClosedSession`, or plain item ids (see `PLAIN_SUFFIXES`); a name that ends
in `.gz` means gzip.
"""

import array
import contextlib
import dataclasses
import gzip
import hashlib
import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from clickscore.model.errors import DataError
from clickscore.model.session_arrays import NO_ITEM, Sessions, sort_by_closing
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.json_depth import bounded_depth
from clickscore.schemas.sessions import ClosedSession, SessionEvent, decode_session

MALFORMED_LINE = "not a closed session"
DUPLICATE_SESSION = "repeat of a session"
SESSION_WITHOUT_ITEM = "session without an event on an item"
UNKNOWN_ACTION = "event of an unknown action"
BOT_TOO_LONG = "session of more than 500 events: a robot's"
BOT_TOO_FAST = "session of 30 events or more, above one a second: a robot's"

MAX_EVENTS = 500
"""Events of a session, at most: a longer session comes from a bot."""
BOT_EVENTS, BOT_MS_PER_EVENT = 30, 1000
"""A session of this many events with less mean time between events than this comes from a bot: no user sustains one
page view a second for half a minute."""

PLAIN_SUFFIXES = (".tsv", ".txt")
"""Name endings, before `.gz`, of files with item ids alone: one session a line, the oldest first."""

STANDARD_INPUT = Path("-")
"""Name of standard input among session files."""
GZIP_MAGIC = b"\x1f\x8b"
"""First bytes of gzip data."""

SessionKey = tuple[str, str, int]
"""Identity of a session: id, user and beginning (ms). The id alone is not enough: a topic that was created anew counts
its offsets from 0 again."""

ACTION_CODES = {action: code for code, action in enumerate(ACTIONS) if action}
"""Code by action; code 0 is padding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """Counts of the sessions that were read, dropped and used."""

    files: tuple[str, ...]
    """File names, without folders."""
    sha256: str
    """Digest of all decompressed lines, in the order of the files."""
    lines: int
    """Lines that are not blank."""
    dropped: dict[str, int]
    """Number of dropped lines, sessions or events, by reason."""
    problem: str
    """First malformed line and its error; empty without a malformed line."""
    sessions: int
    """Sessions that were not dropped."""
    events: int
    """Events of these sessions."""
    first_closed_at: int
    """Oldest closing time, ms since the epoch."""
    last_closed_at: int
    """Newest closing time, ms since the epoch."""
    items: int = 0
    """Items of the vocabulary."""
    training: int = 0
    """Training sessions with a known item."""
    validation: int = 0
    """Validation sessions with a known item."""
    held_out: int = 0
    """Held-out sessions with a known item."""

    def list_dropped(self) -> list[str]:
        """Return what was dropped, in words: one text for each reason, and the first malformed line."""
        reasons = [f"left out: {number:,} x {reason}" for reason, number in self.dropped.items()]
        return [*reasons, *([f"first malformed line: {self.problem}"] if self.problem else [])]

    def summary(self) -> str:
        """Return one line on the training data, for a model's manifest."""
        first, last = (
            datetime.fromtimestamp(closed_at / 1000, UTC).date().isoformat()
            for closed_at in (self.first_closed_at, self.last_closed_at)
        )
        period = f" that closed from {first} to {last}" if self.last_closed_at else ""
        return (
            f"{self.training:,} sessions for training out of {self.sessions:,}{period}, {self.items:,} items, "
            f"sha256 {self.sha256}"
        )


class ReadStatistics:
    """Counters that grow while files are read."""

    def __init__(self) -> None:
        self.lines = 0
        self.dropped: Counter[str] = Counter()
        self.problem = ""
        self.digest = hashlib.sha256()


def read_sessions(files: Sequence[Path]) -> tuple[Sessions, DatasetReport]:
    """Return the sessions of the files in order of closing, without duplicates, and a report of what was dropped.

    Sessions without times keep their order and come first.

    Raises:
        DataError: A file cannot be read.
    """
    statistics = ReadStatistics()
    item_index: dict[str, int] = {}
    items, actions, starts = array.array("i"), array.array("b"), array.array("q", [0])
    closed_at, ages = array.array("q"), array.array("q")
    for session in read_usable_sessions(files, statistics):
        for event in select_known_actions(session):
            items.append(item_index.setdefault(event.item_id, len(item_index)) if event.item_id else NO_ITEM)
            actions.append(ACTION_CODES[event.action])
            ages.append(event.ts - session.opened_at)
        statistics.dropped[UNKNOWN_ACTION] += len(session.events) - (len(items) - starts[-1])
        starts.append(len(items))
        closed_at.append(session.closed_at)
    sessions = sort_by_closing(
        Sessions(
            tuple(item_index),
            np.array(items, dtype=np.int32),
            np.array(actions, dtype=np.int8),
            np.array(starts, dtype=np.int64),
            np.array(closed_at, dtype=np.int64),
            np.array(ages, dtype=np.int64),
        )
    )
    return sessions, DatasetReport(
        files=tuple(path.name for path in files),
        sha256=statistics.digest.hexdigest(),
        lines=statistics.lines,
        dropped={reason: number for reason, number in statistics.dropped.items() if number},
        problem=statistics.problem,
        sessions=len(sessions),
        events=len(sessions.items),
        first_closed_at=int(sessions.closed_at.min()) if len(sessions) else 0,
        last_closed_at=int(sessions.closed_at.max(initial=0)),
    )


def read_usable_sessions(files: Sequence[Path], statistics: ReadStatistics) -> Iterator[ClosedSession]:
    """Yield the usable sessions of the files in the order of the lines, without duplicates.

    Args:
        files: Session files.
        statistics: Counters that are updated with each line.

    Raises:
        DataError: A file cannot be read.
    """
    seen: set[SessionKey] = set()
    for path in files:
        decode = _decode_plain if path.name.removesuffix(".gz").endswith(PLAIN_SUFFIXES) else decode_session
        for number, line in enumerate(read_lines(path), start=1):
            statistics.digest.update(line)
            if not line.strip():
                continue
            statistics.lines += 1
            try:
                session = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                statistics.dropped[MALFORMED_LINE] += 1
                statistics.problem = statistics.problem or f"{path}:{number}: {exc}"
                continue
            key = (session.id, session.user_id, session.opened_at)
            if reason := DUPLICATE_SESSION if key in seen else _find_flaw(session):
                statistics.dropped[reason] += 1
                continue
            if session.id:
                seen.add(key)
            yield session


def select_known_actions(session: ClosedSession) -> list[SessionEvent]:
    """Return the events of a session whose actions are known."""
    return [event for event in session.events if event.action in ACTION_CODES]


def read_session_keys(path: Path) -> Iterator[SessionKey]:
    """Yield the keys of a file's sessions; sessions of plain item ids have no id and so no key.

    Raises:
        DataError: The file cannot be read.
    """
    if path.name.removesuffix(".gz").endswith(PLAIN_SUFFIXES):
        return
    for line in read_lines(path):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            session = _decode_key(line)
            yield session.id, session.user_id, session.opened_at


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed if its name ends in `.gz`. `-` is standard input, compressed or plain.

    Raises:
        DataError: The file cannot be read.
    """
    lines: Iterable[bytes]
    try:
        with _open(path) as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as exc:
        message = f"{path} cannot be read: {exc}"
        raise DataError(message) from exc


def _open(path: Path) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    if path == STANDARD_INPUT:
        stdin = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
        is_gzip = stdin.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        return contextlib.nullcontext(gzip.GzipFile(fileobj=stdin) if is_gzip else stdin)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


class _SessionKeyFields(msgspec.Struct):
    id: str
    user_id: str
    opened_at: int


_decode_key = bounded_depth(msgspec.json.Decoder(_SessionKeyFields).decode)


def _decode_plain(line: bytes) -> ClosedSession:
    """Return a session of item views, without times, user and id, from a line of item ids."""
    events = tuple(SessionEvent(ts=0, action="view", item_id=item) for item in line.decode().split())
    return ClosedSession(
        id="", session_id="", user_id="", opened_at=0, closed_at=0, length=len(events), purchased=False, events=events
    )


def _find_flaw(session: ClosedSession) -> str:
    """Return the reason why a session is dropped, empty for a usable session."""
    if not any(event.item_id and event.action in ACTION_CODES for event in session.events):
        return SESSION_WITHOUT_ITEM
    if session.length > MAX_EVENTS:
        return BOT_TOO_LONG
    events = len(session.events)
    duration_ms, has_times = session.events[-1].ts - session.events[0].ts, session.events[-1].ts > 0
    return BOT_TOO_FAST if has_times and events >= BOT_EVENTS and duration_ms < BOT_MS_PER_EVENT * events else ""
