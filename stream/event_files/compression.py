"""Compression: inflate a gzip or zstd file as it is read, and go on from a place in it."""

import io
import zlib
from collections.abc import Callable
from typing import Protocol

from clickscore.stream.errors import InputFileError

GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class BrokenDataError(Exception):
    """What is wrong with compressed data, in words."""


class _Member(Protocol):
    """A decompressor of one gzip member or Zstandard frame, as `zlib` and `zstandard` have them."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class Inflate:
    """Decompresses gzip or Zstandard piece by piece, several members in a row as `cat` makes them."""

    def __init__(self, name: str, begin: Callable[[], _Member], error: type[Exception]) -> None:
        self.name = name
        self.complete = False
        self._begin = begin
        self._error = error
        self._member = begin()

    def __call__(self, data: bytes) -> bytes:
        """Return the decompressed bytes of the next piece of the file."""
        pieces: list[bytes] = []
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    break
                self._member = self._begin()
            try:
                pieces.append(self._member.decompress(data))
            except self._error as exc:
                message = f"its {self.name} data is broken: {exc}"
                raise BrokenDataError(message) from exc
            data = self._member.unused_data
        self.complete = self._member.eof
        return b"".join(pieces)


def inflate_for(head: bytes) -> Inflate | None:
    """Return what decompresses a file that begins so; none where it is plain.

    Raises:
        InputFileError: It is compressed by something that is not installed.
    """
    if head.startswith(GZIP_MAGIC):
        return Inflate("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)
    if not head.startswith(ZSTD_MAGIC):
        return None
    try:
        import zstandard  # noqa: PLC0415 (of the `files` extra)
    except ModuleNotFoundError as exc:
        message = "a Zstandard file needs the files extra: pip install 'clickscore[files]'"
        raise InputFileError(message) from exc
    return Inflate("Zstandard", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


def begins_with(raw: io.FileIO, magic: bytes) -> bool:
    """Look at a file's first bytes; a pipe is left as it is."""
    if not raw.seekable():
        return False
    head = raw.read(len(magic))
    raw.seek(0)
    return head == magic
