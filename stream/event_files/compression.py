"""Compression: decompress a gzip or Zstandard file piece by piece, during reading."""

import io
import zlib
from collections.abc import Callable
from typing import Protocol

from clickscore.stream.errors import InputFileError

GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class BrokenDataError(InputFileError):
    """Compressed data is broken; the message says how. The reader adds the path and raises an InputFileError."""


class _MemberDecompressor(Protocol):
    """Decompressor of a single gzip member or Zstandard frame: the common interface of `zlib` and `zstandard`."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class Decompressor:
    """Decompresses a file piece by piece. The file may hold several members in a row, as `cat` makes."""

    def __init__(self, name: str, new_member: Callable[[], _MemberDecompressor], error: type[Exception]) -> None:
        """Start at the beginning of a file.

        Args:
            name: Name of the compression, for messages.
            new_member: Makes the decompressor of a member.
            error: Exception of a member decompressor for broken data.
        """
        self.name = name
        self.complete = False
        """Whether the data so far ends where a member ends."""
        self._new_member = new_member
        self._error = error
        self._member = new_member()

    def decompress(self, data: bytes) -> bytes:
        """Return the decompressed bytes of the next piece of the file.

        Raises:
            BrokenDataError: The piece is not valid data of this compression.
        """
        pieces: list[bytes] = []
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    break
                self._member = self._new_member()
            try:
                pieces.append(self._member.decompress(data))
            except self._error as exc:
                message = f"its {self.name} data is broken: {exc}"
                raise BrokenDataError(message) from exc
            data = self._member.unused_data
        self.complete = self._member.eof
        return b"".join(pieces)


def find_decompressor(head: bytes) -> Decompressor | None:
    """Return a decompressor for a file with these first bytes, or None if the file is plain.

    Raises:
        InputFileError: The file is a Zstandard file, and the `files` extra is not installed.
    """
    if head.startswith(GZIP_MAGIC):
        return Decompressor("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)
    if not head.startswith(ZSTD_MAGIC):
        return None
    try:
        import zstandard  # noqa: PLC0415 (part of the `files` extra)
    except ModuleNotFoundError as exc:
        message = "a Zstandard file needs the files extra: pip install 'clickscore[files]'"
        raise InputFileError(message) from exc
    return Decompressor("Zstandard", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


def has_magic(raw: io.FileIO, magic: bytes) -> bool:
    """Return whether a file begins with these bytes. The answer for a pipe is no: a pipe cannot be rewound."""
    if not raw.seekable():
        return False
    head = raw.read(len(magic))
    raw.seek(0)
    return head == magic
