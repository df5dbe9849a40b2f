"""Sort: sort the lines of a file by event time in bounded memory: an external merge sort with temporary files."""

import heapq
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import msgspec

from clickscore.schemas.field_types import YEAR_2000_MS, YEAR_9999_MS
from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.lines import Line

SORT_MEMORY_BYTES = 64 * 1024 * 1024
"""Memory of the lines that are sorted at once; a file of more is sorted on disk."""

LINE_OVERHEAD_BYTES = 300
"""Memory of a line beside its value: its objects and its place in the list."""

MAX_RUNS = 64
"""Limit of sorted temporary files. More of them are merged into one, so that few files are open."""

SORTED_CHUNK_LINES = 1024
"""Lines of a chunk of the result."""

_LENGTH_BYTES = 4

_Entry = tuple[int, int, Line]
"""Time of a line, its number in the order of the file, and the line."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


def sort_lines(
    chunks: Iterable[list[Line]],
    memory_bytes: int = SORT_MEMORY_BYTES,
    keeps: Callable[[Line], bool] | None = None,
) -> Iterator[list[Line]]:
    """Yield the lines of a file by event time. Lines of equal times stay in order, and so do lines without a time.

    A line without a time, or with an impossible time, gets the time of the line before it in the file (forward fill),
    whether that line is kept or not. So processes that keep different lines agree on the order.

    Args:
        chunks: Lines in the order of the file.
        memory_bytes: Limit of the memory of lines that are sorted at once.
        keeps: Returns whether a line is wanted. None wants all lines.

    Raises:
        InputFileError: A temporary file cannot be written.
    """
    runs: list[IO[bytes]] = []
    entries: list[_Entry] = []
    size, ts, sequence = 0, -1, 0
    try:
        for line in itertools.chain.from_iterable(chunks):
            ts = line.ts if line.ts is not None and YEAR_2000_MS <= line.ts <= YEAR_9999_MS else ts
            if keeps and not keeps(line):
                continue
            entries.append((ts, sequence, line))
            sequence += 1
            size += len(line.value) + LINE_OVERHEAD_BYTES
            if size >= memory_bytes:
                runs.append(_write_run(sorted(entries, key=_sort_key)))
                entries, size = [], 0
                if len(runs) >= MAX_RUNS:
                    merged = _write_run(_merge([_read_run(run) for run in runs]))
                    _close(runs)
                    runs = [merged]
        ordered = _merge([*(_read_run(run) for run in runs), iter(sorted(entries, key=_sort_key))])
        while chunk := [line for _, _, line in itertools.islice(ordered, SORTED_CHUNK_LINES)]:
            yield chunk
    except OSError as exc:
        message = f"a temporary file for sorting cannot be written: {exc.strerror or exc} (set TMPDIR to a larger disk)"
        raise InputFileError(message) from exc
    finally:
        _close(runs)


def _sort_key(entry: _Entry) -> tuple[int, int]:
    return entry[:2]


def _merge(runs: list[Iterator[_Entry]]) -> Iterator[_Entry]:
    return heapq.merge(*runs, key=_sort_key)


def _write_run(entries: Iterable[_Entry]) -> IO[bytes]:
    """Write sorted lines to a temporary file without a name, which vanishes with its process."""
    run = tempfile.TemporaryFile(prefix="clickscore-sort-")  # noqa: SIM115 (closed by the caller)
    for entry in entries:
        data = _encode(entry)
        run.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    run.flush()
    return run


def _read_run(run: IO[bytes]) -> Iterator[_Entry]:
    run.seek(0)
    while length := run.read(_LENGTH_BYTES):
        yield _decode(run.read(int.from_bytes(length, "big")))


def _close(runs: list[IO[bytes]]) -> None:
    for run in runs:
        run.close()
