"""Split: a file of closed sessions into a training file and a test file, by time or by user."""

import contextlib
import gzip
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

import msgspec
import xxhash

from clickscore.model.errors import DataError
from clickscore.model.session_files import read_lines
from clickscore.schemas.errors import OutputFileError
from clickscore.schemas.json_depth import bounded_depth

SplitKey = Literal["time", "user"]


class _SessionKeys(msgspec.Struct):
    """Fields of a closed session that decide the split."""

    user_id: str
    opened_at: int
    closed_at: int


_decode = bounded_depth(msgspec.json.Decoder(_SessionKeys).decode)


def split_sessions(source: Path, training: Path, test: Path, by: SplitKey, share: float) -> tuple[int, int, int]:
    """Write the sessions of a file to two files, and return the numbers in training, in test and in neither.

    By time, the test has the sessions that opened last, and a session that was open at the border is in neither: every
    training session ends before the first test session begins. By user, a hash of the user id decides, so no user is
    in both. Lines keep their bytes and their order.

    Args:
        source: JSON lines of `schemas.sessions.ClosedSession`, with gzip if the name ends in `.gz`.
        training: Training file, with gzip if the name ends in `.gz`.
        test: Test file, with gzip if the name ends in `.gz`.
        by: Key of the split.
        share: Share of the sessions, or of the users, in the test: from 0 to 1.

    Raises:
        DataError: The file cannot be read, a line is no session, two files are the same, or a part would be empty.
        OutputFileError: A file cannot be written.
    """
    if len({path.resolve() for path in (source, training, test)}) < 3:
        message = f"{source} cannot be split into {training} and {test}: name three different files"
        raise DataError(message)
    sessions = [_read_keys(source, number, line) for number, line in _read_sessions(source)]
    opened = sorted(session.opened_at for session in sessions)
    border = opened[min(round((1 - share) * len(opened)), len(opened) - 1)] if opened else 0

    def choose_part(session: _SessionKeys) -> int:
        """Return 0 for training, 1 for the test, and 2 for neither."""
        if by == "user":
            return int(xxhash.xxh3_64_intdigest(session.user_id.encode()) < share * 2**64)
        return 1 if session.opened_at >= border else 0 if session.closed_at < border else 2

    parts = [choose_part(session) for session in sessions]
    counts = parts.count(0), parts.count(1), parts.count(2)
    if not (counts[0] and counts[1]):
        message = (
            f"{source} cannot be split by {by}: {counts[0]:,} of {len(sessions):,} sessions would be for training, and "
            f"{counts[1]:,} for the test. Name a file with more sessions, or another --by or --share"
        )
        raise DataError(message)
    with _writing(training, test) as files:
        for (_, line), part in zip(_read_sessions(source), parts, strict=True):
            if part < 2:
                files[part].write(line)
    return counts


def _read_sessions(source: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the lines with text."""
    return ((number, line) for number, line in enumerate(read_lines(source), start=1) if line.strip())


def _read_keys(source: Path, number: int, line: bytes) -> _SessionKeys:
    """Return the keys of a line.

    Args:
        source: File of the line, for the error.
        number: Number of the line, from 1.
        line: The line.

    Raises:
        DataError: The line is no session.
    """
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"{source}:{number} is no closed session: {exc}"
        raise DataError(message) from exc


@contextlib.contextmanager
def _writing(training: Path, test: Path) -> Generator[tuple[BinaryIO, BinaryIO]]:
    """Open both files of a split.

    Raises:
        OutputFileError: A file cannot be written.
    """
    try:
        with _open(training) as training_file, _open(test) as test_file:
            yield training_file, test_file
    except OSError as exc:
        message = f"{exc.filename or f'{training} or {test}'} cannot be written: {exc.strerror or exc}"
        raise OutputFileError(message) from exc


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "wb")) if path.suffix == ".gz" else path.open("wb")
