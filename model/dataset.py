"""Dataset: closed sessions from files, split by time into what trains, what says when to stop, and what is held out."""

import array
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

from model.config import TrainConfig
from model.errors import TrainingError
from model.features import NO_ITEM, REMOVAL, Examples, Sessions, arranged, examples
from model.vocabulary import Vocabulary, count
from schemas.events import ACTIONS
from schemas.sessions import ClosedSession, decode_session

MALFORMED = "not a closed session"
REPEATED = "repeat of a session"
WITHOUT_ITEM = "session without an event on an item"
WITHOUT_KNOWN_ITEM = "session without an event on a known item"
UNKNOWN_ACTION = "event of an unknown action"

FEWEST_SESSIONS = 10
"""Below that, nothing can be split off for validation that would say anything."""

CODES = {action: code for code, action in enumerate(ACTIONS) if action}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
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
        return (
            f"{self.training:,} sessions for training out of {self.sessions:,} that closed from {first} to {last}, "
            f"{self.items:,} items, sha256 {self.sha256}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a run needs."""

    vocabulary: Vocabulary
    training: Examples
    validation: Examples
    held_out: Examples
    report: Report


def load_dataset(files: Sequence[Path], config: TrainConfig) -> Dataset:
    """Return sessions from files, split by the time of their closing: held-out ones are the newest.

    Args:
        files: JSON lines of `schemas.sessions.ClosedSession`, compressed where the name ends in `.gz`.
        config: Says how large each part is, and which items are known.

    Raises:
        TrainingError: A file cannot be read, or too little is left to learn from.
    """
    sessions, report = read_sessions(files)
    if len(sessions) < FEWEST_SESSIONS:
        reasons = "".join(f"; {number:,} x {reason}" for reason, number in report.dropped.items())
        first = f" (first: {report.problem})" if report.problem else ""
        message = f"{len(sessions)} sessions to learn from, at least {FEWEST_SESSIONS} are needed{reasons}{first}"
        raise TrainingError(message)

    oldest, newer, newest = _by_time(sessions, config)
    seen = oldest.items[(oldest.items != NO_ITEM) & (oldest.actions != REMOVAL)]
    vocabulary = count(sessions.item_ids, seen, config.min_count)
    rows = vocabulary.rows(sessions.item_ids)  # (item_ids,)
    training, validation, held_out = (examples(part, rows, config.model.max_length) for part in (oldest, newer, newest))
    if not (len(training) and len(validation) and len(held_out)):
        message = (
            f"too little is left to learn from: {len(vocabulary):,} items were seen {config.min_count} times or more "
            f"(min_count), in {len(training):,} sessions for training, {len(validation):,} for validation and "
            f"{len(held_out):,} held out"
        )
        raise TrainingError(message)
    without = len(sessions) - len(training) - len(validation) - len(held_out)
    return Dataset(
        vocabulary=vocabulary,
        training=training,
        validation=_sample(validation, config),
        held_out=_sample(held_out, config),
        report=dataclasses.replace(
            report,
            dropped=report.dropped | ({WITHOUT_KNOWN_ITEM: without} if without else {}),
            items=len(vocabulary),
            training=len(training),
            validation=len(validation),
            held_out=len(held_out),
        ),
    )


def read_sessions(files: Sequence[Path]) -> tuple[Sessions, Report]:
    """Return all sessions of the files, each once, in order of closing, and what was read and left out.

    Raises:
        TrainingError: A file cannot be read.
    """
    digest = hashlib.sha256()
    dropped: Counter[str] = Counter()
    problem, lines = "", 0
    seen: set[str] = set()
    index_of: dict[str, int] = {}
    items, actions, ends, closed_at = array.array("i"), array.array("b"), array.array("q", [0]), array.array("q")
    for path in files:
        for number, line in enumerate(_lines(path), start=1):
            digest.update(line)
            if not line.strip():
                continue
            lines += 1
            try:
                session = decode_session(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                dropped[MALFORMED] += 1
                problem = problem or f"{path}:{number}: {exc}"
                continue
            reason = REPEATED if session.id in seen else _flaw(session)
            if reason:
                dropped[reason] += 1
                continue
            seen.add(session.id)
            for event in session.events:
                if (code := CODES.get(event.action)) is None:
                    dropped[UNKNOWN_ACTION] += 1
                    continue
                items.append(index_of.setdefault(event.item_id, len(index_of)) if event.item_id else NO_ITEM)
                actions.append(code)
            ends.append(len(items))
            closed_at.append(session.closed_at)
    sessions = arranged(
        Sessions(
            tuple(index_of),
            np.array(items, dtype=np.int32),
            np.array(actions, dtype=np.int8),
            np.array(ends, dtype=np.int64),
            np.array(closed_at, dtype=np.int64),
        )
    )
    return sessions, Report(
        files=tuple(path.name for path in files),
        sha256=digest.hexdigest(),
        lines=lines,
        dropped=dict(dropped),
        problem=problem,
        sessions=len(sessions),
        events=len(sessions.items),
        first_closed_at=int(sessions.closed_at.min(initial=np.iinfo(np.int64).max)) if len(sessions) else 0,
        last_closed_at=int(sessions.closed_at.max(initial=0)),
    )


def _flaw(session: ClosedSession) -> str:
    """Return why a session cannot be used, empty where it can."""
    on_items = any(event.item_id and event.action in CODES for event in session.events)
    return "" if on_items else WITHOUT_ITEM


def _lines(path: Path) -> Iterator[bytes]:
    opened: Iterable[bytes]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
            yield from opened
    except (OSError, EOFError, zlib.error) as exc:
        message = f"{path} cannot be read: {exc}"
        raise TrainingError(message) from exc


def _by_time(sessions: Sessions, config: TrainConfig) -> tuple[Sessions, Sessions, Sessions]:
    """Return the sessions that train, those that say when to stop, and the newest, which are held out."""
    held_out = max(1, round(config.held_out_share * len(sessions)))
    validation = max(1, round(config.validation_share * len(sessions)))
    first, second = len(sessions) - held_out - validation, len(sessions) - held_out
    return sessions.between(0, first), sessions.between(first, second), sessions.between(second, len(sessions))


def _sample(of: Examples, config: TrainConfig) -> Examples:
    """Return at most `ranked_sessions` of the sessions, in their order."""
    if len(of) <= config.ranked_sessions:
        return of
    chosen = np.random.default_rng(config.seed).choice(len(of), config.ranked_sessions, replace=False)
    return of.only(np.sort(chosen))
