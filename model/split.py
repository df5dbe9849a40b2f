"""Split: a file of closed sessions as one to learn from and one to judge by."""

import gzip
from pathlib import Path
from typing import BinaryIO, Literal, cast

import msgspec
import xxhash

from clickscore.model.errors import DataError
from clickscore.model.session_files import read_lines

SplitKey = Literal["time", "user"]


class _Head(msgspec.Struct):
    user_id: str
    opened_at: int
    closed_at: int


_decode = msgspec.json.Decoder(_Head).decode


def split_sessions(source: Path, training: Path, test: Path, by: SplitKey, share: float) -> tuple[int, int, int]:
    """Write a file's sessions to two, and return how many went to training, to the test, and to neither.

    By time, the sessions that opened last are the test, and one that was open across the border is in neither: what
    is learned from has ended before what is judged by begins. By user, a hash of the user decides, and no user is in
    both. Lines keep their bytes and their order.

    Args:
        source: JSON lines of `schemas.sessions.ClosedSession`, `.gz` too.
        training: Where the one part goes; compressed where the name ends in `.gz`.
        test: Where the other goes.
        by: What decides.
        share: Of the sessions that are the test, from 0 to 1; by user, about.

    Raises:
        DataError: The file cannot be read, or a line is no session.
    """
    heads: list[_Head] = []
    for number, line in enumerate(read_lines(source), start=1):
        try:
            heads.append(_decode(line))
        except msgspec.DecodeError as exc:
            message = f"{source}:{number} is no closed session: {exc}"
            raise DataError(message) from exc
    opened = sorted(head.opened_at for head in heads)
    border = opened[min(round((1 - share) * len(opened)), len(opened) - 1)] if opened else 0

    counts = [0, 0, 0]
    with _opened(training) as for_training, _opened(test) as for_test:
        for line, head in zip(read_lines(source), heads, strict=True):
            if by == "user":
                part = int(xxhash.xxh3_64_intdigest(head.user_id.encode()) < share * 2**64)
            else:
                part = 1 if head.opened_at >= border else 0 if head.closed_at < border else 2
            counts[part] += 1
            if part < 2:
                (for_training, for_test)[part].write(line)
    return counts[0], counts[1], counts[2]


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "wb")) if path.suffix == ".gz" else path.open("wb")
