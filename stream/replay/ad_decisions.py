"""Ad decisions: read published decisions on ads from a topic, or from the output file of `clickscore replay`."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.stream.errors import InputFileError
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.settings import Settings

PROGRESS_LINES = 10_000
"""Number of lines between two reports of the progress."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest line of a file, in bytes: a decision has some thousand. A longer line is read in unreadable parts."""

OnProgress = Callable[[ReplayProgress], None]


def ads_of_topic(settings: Settings, spec: TopicRangeSpec, on_progress: OnProgress) -> Iterator[Ad | None]:
    """Yield the ad decisions of a range of a topic; None for any other record.

    Args:
        settings: Address of the broker.
        spec: The range.
        on_progress: Receives the progress after each batch.

    Raises:
        BrokerError: The range cannot be read to the end.
    """
    count = 0
    with spec.open(settings, list(spec.ranges), None) as source:
        for batches in source.batches():
            for _, records in batches:
                count += len(records)
                yield from _ads(record.value for record in records)
            on_progress(ReplayProgress(source.completed, source.total, count))


def ads_of_file(path: Path, on_progress: OnProgress) -> Iterator[Ad | None]:
    """Yield the ad decisions of a file of JSON lines, plain or gzip; None for any other line.

    Args:
        path: Path of the file.
        on_progress: Receives the progress now and then.

    Raises:
        InputFileError: The file cannot be read to the end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            lines: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            count = 0
            while line := lines.readline(MAX_LINE_BYTES):
                count += 1
                yield from _ads([line])
                if not count % PROGRESS_LINES:
                    on_progress(ReplayProgress(raw.tell(), size, count))
            on_progress(ReplayProgress(size, size, count))
    except (OSError, EOFError, zlib.error) as exc:
        message = f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        raise InputFileError(message) from exc


def _ads(values: Iterator[bytes | None] | list[bytes]) -> Iterator[Ad | None]:
    """Yield the ads among decisions; recommendations are left out."""
    for value in values:
        try:
            decision = decode_decision(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield None
            continue
        if isinstance(decision, Ad):
            yield decision
