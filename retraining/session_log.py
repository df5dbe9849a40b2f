"""Session log: read the closed sessions of the topic into a file, and divide them by time.

Workers publish no session of a machine or of a user who did not consent to training. Sessions of users who were erased
later are left out here.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from clickscore.model.session_files import read_lines
from clickscore.schemas.sessions import ClosedSession, decode_session
from clickscore.schemas.topics import CLOSED_SESSIONS
from clickscore.stream.kafka.erasure import read_erased_users
from clickscore.stream.kafka.log_reader import read_to_end
from clickscore.stream.kafka.topic_reader import open_partitions
from clickscore.stream.settings import KafkaSettings


class SessionCounts(msgspec.Struct, kw_only=True):
    """What was read."""

    sessions: int = 0
    """Sessions that were written."""
    older: int = 0
    """Sessions that closed before the time from which on sessions are taken."""
    erased: int = 0
    """Sessions of users who were erased later."""
    unreadable: int = 0
    """Records that are no session."""
    newest_closed_at: int = 0
    """Event time of the newest event, ms."""


async def collect_sessions(settings: KafkaSettings, path: Path, closed_from: int) -> SessionCounts:
    """Write the closed sessions of the topic to a file, compressed, and return their number.

    Args:
        settings: Connection, and names of topics.
        path: The file.
        closed_from: Sessions that closed before this event time are left out, ms.

    Raises:
        TopicMissingError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    erased = await read_erased_users(settings)
    counts = SessionCounts()
    async with open_partitions(settings, [CLOSED_SESSIONS]) as (reader, partitions):
        with gzip.open(path, "wb", compresslevel=1) as file:
            async for _, records in read_to_end(reader, partitions):
                for record in records:
                    session = _decode(record.value)
                    if session is None:
                        counts.unreadable += 1
                    elif is_erased(session, erased):
                        counts.erased += 1
                    elif session.closed_at < closed_from:
                        counts.older += 1
                    else:
                        counts.sessions += 1
                        counts.newest_closed_at = max(counts.newest_closed_at, session.closed_at)
                        file.write((record.value or b"").replace(b"\n", b" ") + b"\n")
    return counts


def is_erased(session: ClosedSession, erased: Mapping[str, Mapping[int, int]]) -> bool:
    """Return whether a session began before its user was erased.

    Args:
        session: The session; its id names partition and offset of the first event.
        erased: Offset of the newest `erase` event by partition, by user.
    """
    offsets = erased.get(session.user_id)
    if offsets is None:
        return False
    try:
        _, partition, offset = session.id.rsplit("-", 2)
        return int(offset) < offsets[int(partition)]
    except (ValueError, KeyError):
        return True  # an id of another partition or of another form: nothing proves that the session is newer


class Division(NamedTuple):
    """Numbers of divided sessions."""

    training: int
    held_out: int
    new: int
    """Training sessions that the champion does not know."""


def divide_sessions(
    path: Path, training: Path, held_out: Path, *, trained_until: int, known_until: int, held_out_from: int
) -> Division:
    """Write training sessions and held-out sessions to two files, and return their numbers.

    Training sessions have ended before the held-out ones began. Sessions that were open at the border are in neither.

    Args:
        path: File of `collect_sessions`.
        training: File of the training sessions.
        held_out: File of the held-out sessions.
        trained_until: Training sessions closed after this event time, ms.
        known_until: The champion has learned from sessions that closed until this event time, ms.
        held_out_from: Held-out sessions opened from this event time on, ms.

    Raises:
        DataError: The file cannot be read.
    """
    training_count = held_out_count = new_count = 0
    with gzip.open(training, "wb", compresslevel=1) as older, gzip.open(held_out, "wb", compresslevel=1) as newer:
        for line in read_lines(path):
            session = decode_session(line)
            if session.opened_at >= held_out_from:
                newer.write(line)
                held_out_count += 1
            elif trained_until < session.closed_at < held_out_from:
                older.write(line)
                training_count += 1
                new_count += session.closed_at > known_until
    return Division(training_count, held_out_count, new_count)


def _decode(value: bytes | None) -> ClosedSession | None:
    try:
        return decode_session(value or b"")
    except ValueError:  # the errors of msgspec and of UTF-8 are ValueErrors
        return None
