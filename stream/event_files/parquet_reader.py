"""Parquet reader: read a Parquet file in a process of its own, with a memory limit.

A broken or malicious Parquet file of a kilobyte may lead the decoder to allocate gigabytes, or crash it. The crash of
the process is an error of the file, in words.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import msgspec

from clickscore.stream.errors import InputFileError
from clickscore.stream.event_files.lines import Line

PARQUET_MAGIC = b"PAR1"

MEMORY_LIMIT_BYTES = 1024 * 1024 * 1024
"""Memory limit of the process: its libraries need 0.1 GiB, and a batch of a usual file some 10 MiB."""

_LENGTH_BYTES = 4


class _Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The file is open."""

    format: str
    rows: int


class _Lines(msgspec.Struct, frozen=True, tag="lines"):
    """Lines of some rows."""

    rows: int
    lines: list[Line]
    ignored: int
    """Number of rows so far without an event: the mapping ignores the type."""


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The file cannot be read."""

    error: str


class _Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The file is read to the end."""


_Message = _Opened | _Lines | _Failed | _Finished
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class ParquetReader:
    """A Parquet file that a process of its own reads; a context manager.

    Raises:
        InputFileError: The file cannot be read or lacks a column, or pyarrow is not installed.
    """

    def __init__(self, path: Path, file_format: str, skip: int) -> None:
        """Start the process, and open the file.

        Args:
            path: Path of the file.
            file_format: str of the rows; `auto` finds the format in the names of the columns.
            skip: Number of rows that an earlier reading has read.
        """
        self._path = path
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path),
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # a pool that reserves memory ahead would meet the limit
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(path), file_format, str(skip)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            opened = self._receive()
        except BaseException:
            self.__exit__()
            raise
        if not isinstance(opened, _Opened):
            self.__exit__()
            raise self._broken()
        self.format = opened.format
        """Format of the rows."""
        self.row_count = opened.rows
        """Number of rows of the file."""
        self.ignored = 0
        """Number of rows so far without an event: the mapping ignores the type."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def chunks(self) -> Iterator[tuple[int, list[Line]]]:
        """Yield a number of rows and the lines of these rows, a batch at a time.

        Raises:
            InputFileError: The file cannot be read to the end.
        """
        while isinstance(message := self._receive(), _Lines):
            self.ignored = message.ignored
            yield message.rows, message.lines

    def _receive(self) -> _Message:
        stream = self._process.stdout
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "big") if stream else 0
        data = stream.read(length) if stream and length else b""
        if not data or len(data) < length:
            raise self._broken()
        message = _decode(data)
        if isinstance(message, _Failed):
            raise InputFileError(message.error)
        return message

    def _broken(self) -> InputFileError:
        code = self._process.wait()
        limit = MEMORY_LIMIT_BYTES // 1024 // 1024
        return InputFileError(
            f"{self._path} cannot be read: its decoder ended with code {code}; the file is broken, or needs more than "
            f"{limit} MiB of memory (write it with smaller row groups and pages)"
        )


def _serve(stream: IO[bytes], path: str, file_format: str, skip: int) -> None:
    """Send the lines of a file: the work of the process."""
    from clickscore.stream.event_files.parquet_rows import ParquetRows  # noqa: PLC0415 (only the process needs it)

    def send(message: _Message) -> None:
        data = _encode(message)
        stream.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        stream.flush()

    try:
        rows = ParquetRows(path, file_format)
        send(_Opened(rows.format, rows.row_count))
        for count, lines in rows.chunks(skip):
            send(_Lines(count, lines, rows.ignored))
        send(_Finished())
    except InputFileError as exc:
        send(_Failed(str(exc)))
    except MemoryError:
        send(_Failed(f"{path} cannot be read: it needs more than {MEMORY_LIMIT_BYTES // 1024 // 1024} MiB of memory"))


def _limit_memory() -> None:
    """Limit the memory of this process, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 (not on every system)

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal, too, and kills this process
    _limit_memory()
    with contextlib.suppress(BrokenPipeError):
        _serve(sys.stdout.buffer, sys.argv[1], sys.argv[2], int(sys.argv[3]))
