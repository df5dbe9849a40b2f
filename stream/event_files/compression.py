"""Compression: decompress a gzip, bzip2, xz, Zstandard or zip file piece by piece, during reading.

A small file may decompress to gigabytes. So the decompressed data comes in pieces of bounded size, and a decompressor
may use a bounded amount of memory.
"""

import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard

from clickscore.stream.errors import InputFileError

GZIP_MAGIC, ZSTD_MAGIC, BZIP2_MAGIC, XZ_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"
BZIP2_BLOCK_MAGICS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
"""Digits of pi before a block, and of its square root before the end. `BZh` alone may begin a CSV file."""
ZIP_MAGIC = b"PK\x03\x04"

MAX_PIECE_BYTES = 1024 * 1024
"""Size limit of a decompressed piece of gzip, bzip2, xz and zip data."""

ZSTD_INPUT_BYTES = 256
"""Bytes of a call of the Zstandard decompressor, which has no limit for its output. A block of 4 bytes decompresses to
at most 128 KiB, so 256 bytes decompress to at most 8 MiB."""

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""Memory limit of a decompressor: the window of `zstd --long`, and more than `xz -9` needs."""


class BrokenDataError(InputFileError):
    """Compressed data is broken; the message says how. The reader adds the path and raises an InputFileError."""


class _MemberDecompressor(Protocol):
    """Decompressor of a single gzip member, bzip2 or xz stream, or Zstandard frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def pieces(self, data: bytes, /) -> Iterator[bytes]: ...


class _GzipMember:
    """Decompressor of a gzip member."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._zlib.decompress(data, MAX_PIECE_BYTES)
            data = self._zlib.unconsumed_tail


class _BlockMember:
    """Decompressor of a bzip2 or xz stream: the two modules have a common interface."""

    def __init__(self, member: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._member = member

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield self._member.decompress(data, MAX_PIECE_BYTES)
        while not (self._member.eof or self._member.needs_input):
            yield self._member.decompress(b"", MAX_PIECE_BYTES)


class _ZstdFrame:
    """Decompressor of a Zstandard frame."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._rest

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for begin in range(0, len(data), ZSTD_INPUT_BYTES):
            yield self._frame.decompress(data[begin : begin + ZSTD_INPUT_BYTES])
            if self._frame.eof:
                self._rest = data[begin + ZSTD_INPUT_BYTES :]
                return


class Decompressor:
    """Decompresses a file piece by piece. The file may hold several members in a row, as `cat` makes."""

    def __init__(
        self, name: str, new_member: Callable[[], _MemberDecompressor], errors: tuple[type[Exception], ...]
    ) -> None:
        """Start at the beginning of a file.

        Args:
            name: Name of the compression, for messages.
            new_member: Makes the decompressor of a member.
            errors: Exceptions of a member decompressor for broken data.
        """
        self.name = name
        self.complete = False
        """Whether the data so far ends where a member ends."""
        self._new_member = new_member
        self._errors = errors
        self._member = new_member()

    def decompress(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes of the next piece of the file, in pieces of bounded size, none of them empty.

        Raises:
            BrokenDataError: The piece is not valid data of this compression.
        """
        pieces: list[bytes] = []
        size = 0
        for piece in self._pieces(data):
            pieces.append(piece)
            size += len(piece)
            if size >= MAX_PIECE_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if size:
            yield b"".join(pieces)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    break
                self._member = self._new_member()
            try:
                yield from self._member.pieces(data)
            except self._errors as exc:
                message = f"its {self.name} data is broken: {exc}"
                raise BrokenDataError(message) from exc
            data = self._member.unused_data if self._member.eof else b""
        self.complete = self._member.eof


def find_decompressor(head: bytes) -> Decompressor | None:
    """Return a decompressor for a file with these first bytes, or None if the file is plain."""
    if head.startswith(GZIP_MAGIC):
        return Decompressor("gzip", _GzipMember, (zlib.error,))
    if head.startswith(BZIP2_MAGIC) and head[4:10] in BZIP2_BLOCK_MAGICS:
        return Decompressor("bzip2", lambda: _BlockMember(bz2.BZ2Decompressor()), (OSError, EOFError))
    if head.startswith(XZ_MAGIC):
        return Decompressor(
            "xz", lambda: _BlockMember(lzma.LZMADecompressor(memlimit=MAX_WINDOW_BYTES)), (lzma.LZMAError, EOFError)
        )
    if not head.startswith(ZSTD_MAGIC):
        return None
    return Decompressor("Zstandard", _ZstdFrame, (zstandard.ZstdError,))


def read_zip(raw: io.FileIO) -> Iterator[bytes]:
    """Yield the content of the only file in a zip archive, in pieces of bounded size.

    Raises:
        BrokenDataError: The archive is broken or encrypted, or does not hold exactly one file.
    """
    try:
        with zipfile.ZipFile(raw) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            if "[Content_Types].xml" in names:
                message = "it is an Office document: save the table as CSV"
                raise BrokenDataError(message)  # noqa: TRY301 (the handler below is for the errors of zipfile)
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if len(names) != 1:
                message = f"the zip archive holds {len(names)} files instead of one: unpack it first"
                raise BrokenDataError(message)  # noqa: TRY301
            with archive.open(names[0]) as content:
                while piece := content.read(MAX_PIECE_BYTES):
                    yield piece
    except BrokenDataError:
        raise
    except Exception as exc:
        message = f"its zip data is broken or encrypted: {exc}"
        raise BrokenDataError(message) from exc


def has_magic(raw: io.FileIO, magic: bytes) -> bool:
    """Return whether a file begins with these bytes. The answer for a pipe is no: a pipe cannot be rewound."""
    if not raw.seekable():
        return False
    head = raw.read(len(magic))
    raw.seek(0)
    return head == magic
