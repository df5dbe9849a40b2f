"""Dataset: sessions from files, split by time into what trains, what says when to stop, and what is held out."""

import array
import contextlib
import dataclasses
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from clickscore.model.config import TrainConfig
from clickscore.model.errors import TrainingError
from clickscore.model.features import (
    NO_ITEM,
    REMOVAL,
    Examples,
    Ints,
    Longs,
    Sessions,
    make_examples,
    select_model_events,
    sort_by_closing,
)
from clickscore.model.prefix_features import NO_ATTRIBUTES, CatalogueAttributes, ItemAttributes, make_item_attributes
from clickscore.model.vocabulary import UNKNOWN, Vocabulary, count_items
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.sessions import ClosedSession, SessionEvent, decode_session

MALFORMED = "not a closed session"
REPEATED = "repeat of a session"
WITHOUT_ITEM = "session without an event on an item"
WITHOUT_KNOWN_ITEM = "session without an event on a known item"
UNKNOWN_ACTION = "event of an unknown action"
TOO_LONG = "session of more than 500 events: a robot's"
TOO_FAST = "session of 30 events or more, above one a second: a robot's"
RARE = "event on an item that was seen fewer than {} times"

MIN_SESSIONS = 10
"""Below that, nothing can be split off for validation that would say anything."""

MIN_VALIDATION_SESSIONS = 500
"""Sessions of validation that the heads' calibration wants, as far as that is no more than an eighth of all."""

PLAIN_SUFFIXES = (".tsv", ".txt")
"""Ends of the names, `.gz` aside, of files that hold item ids alone, one session a line, the oldest first."""

VIEW = ACTIONS.index("view")
CODES = {action: code for code, action in enumerate(ACTIONS) if action}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What was read, and what became of it."""

    files: tuple[str, ...]
    sha256: str
    """Of all lines, decompressed, in the order of the files."""
    lines: int
    dropped: dict[str, int]
    """How many of what were left out."""
    problem: str
    """The first malformed line, and why; empty where there is none."""
    sessions: int
    """What is left."""
    events: int
    first_closed_at: int
    last_closed_at: int
    items: int = 0
    """Known items."""
    training: int = 0
    """Sessions of each part that have a known item."""
    validation: int = 0
    held_out: int = 0

    def summary(self) -> str:
        """Return one line that says what a model has learned from."""
        first, last = (
            datetime.fromtimestamp(at / 1000, UTC).date().isoformat()
            for at in (self.first_closed_at, self.last_closed_at)
        )
        when = f" that closed from {first} to {last}" if self.last_closed_at else ""
        return (
            f"{self.training:,} sessions for training out of {self.sessions:,}{when}, {self.items:,} items, "
            f"sha256 {self.sha256}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a run needs."""

    vocabulary: Vocabulary
    sessions: Examples
    """All that have a known item, in order of closing: what is learned in the end."""
    training: Examples
    """The oldest of them."""
    validation: Examples
    """Of those after them, at most `ranked_sessions`."""
    held_out: Examples
    """Of the newest, at most `ranked_sessions`."""
    tree_data: "TreeDataset"
    """The same sessions, whole."""
    report: DatasetReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeDataset:
    """Sessions as trees read them, every event of them, cut as the examples are."""

    sessions: Sessions
    """All of the file, in order of closing."""
    rows: Ints
    """Row of each of their `item_ids`."""
    training: Longs
    """Numbers of the sessions of each part: those that have a known item."""
    validation: Longs
    held_out: Longs
    facts: ItemAttributes
    """Prices and categories of the rows."""

    @property
    def has_actions(self) -> bool:
        """Whether anything but views is told: else there is nothing to foretell."""
        return bool((self.sessions.actions != VIEW).any())


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningData:
    """What a model is topped up with."""

    vocabulary: Vocabulary
    """What the model knew, and after it what is new."""
    sessions: Examples
    sample: Examples
    """At most `ranked_sessions` of them, with what the model knew as the only known items."""
    tree_sample: Sessions
    """The same sessions, whole."""
    rows: Ints
    """Row that the model knew of each of their `item_ids`."""
    report: DatasetReport


def load_dataset(files: Sequence[Path], config: TrainConfig, catalogue: CatalogueAttributes = NO_ATTRIBUTES) -> Dataset:
    """Return sessions from files, split by the time of their closing: held-out ones are the newest.

    Args:
        files: JSON lines of `schemas.sessions.ClosedSession`, or item ids alone (see `PLAIN_SUFFIXES`); gzip if the
            name ends in `.gz`.
        config: Says how large each part is, and which items are known.
        catalogue: Prices and categories of items.

    Raises:
        TrainingError: A file cannot be read, or too little is left to learn from.
    """
    sessions, report = read_sessions(files)
    if len(sessions) < MIN_SESSIONS:
        reasons = "".join(f"; {number:,} x {reason}" for reason, number in report.dropped.items())
        first = f" (first: {report.problem})" if report.problem else ""
        message = f"{len(sessions)} sessions to learn from, at least {MIN_SESSIONS} are needed{reasons}{first}"
        raise TrainingError(message)

    vocabulary = count_items(sessions.item_ids, _seen(sessions), config.min_count)
    every, dropped = _known(sessions, vocabulary, config)
    if len(every) < MIN_SESSIONS:
        message = (
            f"too little is left to learn from: {len(vocabulary):,} items were seen {config.min_count} times or more "
            f"(min_count), in {len(every):,} sessions"
        )
        raise TrainingError(message)
    held_out = max(1, round(config.held_out_share * len(every)))
    validation = max(1, round(config.validation_share * len(every)), min(MIN_VALIDATION_SESSIONS, len(every) // 8))
    numbers = np.arange(len(every))
    oldest, newer, newest = np.split(numbers, (len(every) - held_out - validation, len(every) - held_out))
    rows = vocabulary.rows(sessions.item_ids)
    with_known = _with_known(sessions, rows)
    validated, measured = _sample(newer, config), _sample(newest, config)
    return Dataset(
        vocabulary=vocabulary,
        sessions=every,
        training=every.select(oldest),
        validation=every.select(validated),
        held_out=every.select(measured),
        tree_data=TreeDataset(
            sessions=sessions,
            rows=rows,
            training=with_known[oldest],
            validation=with_known[validated],
            held_out=with_known[measured],
            facts=make_item_attributes(vocabulary.items, catalogue),
        ),
        report=dataclasses.replace(
            report,
            dropped=report.dropped | dropped,
            items=len(vocabulary),
            training=len(oldest),
            validation=len(newer),
            held_out=len(newest),
        ),
    )


def load_fine_tuning_data(files: Sequence[Path], config: TrainConfig, known: Vocabulary) -> FineTuningData:
    """Return sessions that a model is topped up with, all of them, with the items that are new to it.

    Raises:
        TrainingError: A file cannot be read, or there is nothing to learn in any.
    """
    sessions, report = read_sessions(files)
    vocabulary = known.with_new(count_items(sessions.item_ids, _seen(sessions), config.min_count).items)
    every, dropped = _known(sessions, vocabulary, config)
    if not len(every):
        message = "there is no session on a known item to learn from"
        raise TrainingError(message)
    rows = known.rows(sessions.item_ids)
    before = make_examples(sessions, rows, config.model.max_length)
    sample = _sample(np.arange(len(before)), config)
    return FineTuningData(
        vocabulary=vocabulary,
        sessions=every,
        sample=before.select(sample),
        tree_sample=sessions.select(_with_known(sessions, rows)[sample]),
        rows=rows,
        report=dataclasses.replace(
            report, dropped=report.dropped | dropped, items=len(vocabulary), training=len(every)
        ),
    )


def read_sessions(files: Sequence[Path]) -> tuple[Sessions, DatasetReport]:
    """Return all sessions of the files, each once, in order of closing, and what was read and left out.

    Sessions without times keep their order, and lie before all others.

    Raises:
        TrainingError: A file cannot be read.
    """
    read = ReadStatistics()
    index_of: dict[str, int] = {}
    items, actions, ends, closed_at = array.array("i"), array.array("b"), array.array("q", [0]), array.array("q")
    ages = array.array("q")
    for session in read_usable_sessions(files, read):
        for event in select_known_actions(session):
            items.append(index_of.setdefault(event.item_id, len(index_of)) if event.item_id else NO_ITEM)
            actions.append(CODES[event.action])
            ages.append(event.ts - session.opened_at)
        read.dropped[UNKNOWN_ACTION] += len(session.events) - (len(items) - ends[-1])
        ends.append(len(items))
        closed_at.append(session.closed_at)
    sessions = sort_by_closing(
        Sessions(
            tuple(index_of),
            np.array(items, dtype=np.int32),
            np.array(actions, dtype=np.int8),
            np.array(ends, dtype=np.int64),
            np.array(closed_at, dtype=np.int64),
            np.array(ages, dtype=np.int64),
        )
    )
    return sessions, DatasetReport(
        files=tuple(path.name for path in files),
        sha256=read.digest.hexdigest(),
        lines=read.lines,
        dropped={reason: number for reason, number in read.dropped.items() if number},
        problem=read.problem,
        sessions=len(sessions),
        events=len(sessions.items),
        first_closed_at=int(sessions.closed_at.min(initial=np.iinfo(np.int64).max)) if len(sessions) else 0,
        last_closed_at=int(sessions.closed_at.max(initial=0)),
    )


class ReadStatistics:
    """What has been read so far, and left out."""

    def __init__(self) -> None:
        self.lines = 0
        self.dropped: Counter[str] = Counter()
        self.problem = ""
        self.digest = hashlib.sha256()


def read_usable_sessions(files: Sequence[Path], read: ReadStatistics) -> Iterator[ClosedSession]:
    """Yield the sessions of the files that can be used, each once, in the order of the lines.

    Args:
        files: As in `load_dataset`.
        read: Is told what was read.

    Raises:
        TrainingError: A file cannot be read.
    """
    seen: set[str] = set()
    for path in files:
        decode = _plain if path.name.removesuffix(".gz").endswith(PLAIN_SUFFIXES) else decode_session
        for number, line in enumerate(read_lines(path), start=1):
            read.digest.update(line)
            if not line.strip():
                continue
            read.lines += 1
            try:
                session = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                read.dropped[MALFORMED] += 1
                read.problem = read.problem or f"{path}:{number}: {exc}"
                continue
            if reason := REPEATED if session.id in seen else _flaw(session):
                read.dropped[reason] += 1
                continue
            if session.id:
                seen.add(session.id)
            yield session


def select_known_actions(session: ClosedSession) -> list[SessionEvent]:
    """Return the events of a session whose actions are known."""
    return [event for event in session.events if event.action in CODES]


def read_session_ids(path: Path) -> Iterator[str]:
    """Yield the ids of a file's sessions that have one.

    Raises:
        TrainingError: It cannot be read.
    """
    if path.name.removesuffix(".gz").endswith(PLAIN_SUFFIXES):
        return
    for line in read_lines(path):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield _decode_id(line).id


class _Named(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_Named).decode


def _plain(line: bytes) -> ClosedSession:
    """Return a session of which nothing is known but the items that were viewed."""
    events = tuple(SessionEvent(ts=0, action="view", item_id=item) for item in line.decode().split())
    return ClosedSession(
        id="", session_id="", user_id="", opened_at=0, closed_at=0, length=len(events), purchased=False, events=events
    )


def _flaw(session: ClosedSession) -> str:
    """Return why a session cannot be used, empty where it can."""
    if not any(event.item_id and event.action in CODES for event in session.events):
        return WITHOUT_ITEM
    if session.length > 500:
        return TOO_LONG
    lasted, has_times = session.events[-1].ts - session.events[0].ts, session.events[-1].ts > 0
    return TOO_FAST if has_times and len(session.events) >= 30 and lasted < 1000 * len(session.events) else ""


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, compressed where its name ends in `.gz`.

    Raises:
        TrainingError: It cannot be read.
    """
    opened: Iterable[bytes]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
            yield from opened
    except (OSError, EOFError, zlib.error) as exc:
        message = f"{path} cannot be read: {exc}"
        raise TrainingError(message) from exc


def _seen(sessions: Sessions) -> Ints:
    """Return the items that shoppers turned to, once for each time."""
    return sessions.items[(sessions.items != NO_ITEM) & (sessions.actions != REMOVAL)]


def _known(sessions: Sessions, vocabulary: Vocabulary, config: TrainConfig) -> tuple[Examples, dict[str, int]]:
    """Return what the model reads of sessions, and how much it cannot read."""
    rows = vocabulary.rows(sessions.item_ids)  # (item_ids,)
    every = make_examples(sessions, rows, config.model.max_length)
    rare = int((rows[sessions.items[sessions.items != NO_ITEM]] == UNKNOWN).sum())
    dropped = {RARE.format(config.min_count): rare, WITHOUT_KNOWN_ITEM: len(sessions) - len(every)}
    return every, {reason: number for reason, number in dropped.items() if number}


def _with_known(sessions: Sessions, rows: Ints) -> Longs:
    """Return the numbers of the sessions that have a known item: those that `make_examples` keeps, in its order."""
    kept = select_model_events(sessions, rows, max_length=1)
    return np.searchsorted(sessions.starts, kept, side="right") - 1


def _sample(sessions: Longs, config: TrainConfig) -> Longs:
    """Return at most `ranked_sessions` of the sessions, in their order."""
    if len(sessions) <= config.ranked_sessions:
        return sessions
    return np.sort(np.random.default_rng(config.seed).choice(sessions, config.ranked_sessions, replace=False))
