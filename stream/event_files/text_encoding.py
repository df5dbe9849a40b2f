"""Text encoding: turn the text of a file into UTF-8 without a byte order mark, and name files that are no text."""

import codecs
from collections.abc import Iterator

from clickscore.stream.event_files.compression import BrokenDataError

HEAD_BYTES = 512
"""Bytes at the beginning that tell the encoding or the kind of a file: a header of a tar archive."""

_UTF8_MARK = codecs.BOM_UTF8
_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

_OTHER_KINDS = {
    b"PAR1\x15": "a Parquet file inside another file, or in a pipe: give the path of the Parquet file itself",
    b"PK\x03\x04": "a zip archive in a pipe: give the path of the archive",
    b"Obj\x01": "an Avro file: write it as Parquet, CSV or JSON lines",
    b"ARROW1": "an Arrow file: write it as Parquet, CSV or JSON lines",
    b"SQLite format 3": "an SQLite database: write its table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Office document: save the table as CSV",
    b"%PDF": "a PDF file: write the events as CSV or JSON lines",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x04\x22\x4d\x18": "an lz4 file: unpack it first",
    b"<?xml": "an XML file: write the events as CSV or JSON lines",
}
"""What a file is, by its first bytes, and what to do."""


def read_as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8, without its byte order mark. Empty chunks, which mean silence, are passed on.

    A text without a mark passes byte for byte.

    Raises:
        BrokenDataError: The file is no text; the message names its kind.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if head and not _may_be_longer_mark(head):
            break
        yield b""  # silence, or the beginning of a mark
    _refuse_other_kinds(head)
    encoding = _utf16_encoding(head)
    if encoding is None:
        yield head.removeprefix(_UTF8_MARK)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for mark in _UTF16_MARKS:
        head = head.removeprefix(mark)
    yield decoder.decode(head).encode()
    for chunk in chunks:
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()


def _may_be_longer_mark(head: bytes) -> bool:
    return len(head) < 4 and any(
        mark.startswith(head) and len(head) < len(mark) for mark in (_UTF8_MARK, *_UTF32_MARKS, *_UTF16_MARKS)
    )


def _utf16_encoding(head: bytes) -> str | None:
    """Return the UTF-16 encoding of a text, or None for UTF-8; without a mark, a NUL byte beside a first sign tells."""
    for mark, encoding in _UTF16_MARKS.items():
        if head.startswith(mark):
            return encoding
    if len(head) >= 4 and head[0] and not head[1] and head[2] and not head[3]:
        return "utf-16-le"
    if len(head) >= 4 and not head[0] and head[1] and not head[2] and head[3]:
        return "utf-16-be"
    return None


def _refuse_other_kinds(head: bytes) -> None:
    """Refuse a file that is no text.

    Raises:
        BrokenDataError: The first bytes belong to another kind of file.
    """
    kind = next((words for magic, words in _OTHER_KINDS.items() if head.startswith(magic)), None)
    if head.startswith(_UTF32_MARKS):
        kind = "text in UTF-32: write it in UTF-8"
    if head[257:262] == b"ustar":
        kind = "a tar archive: unpack it first"
    if kind:
        message = f"it is {kind}"
        raise BrokenDataError(message)
