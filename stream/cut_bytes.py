"""Cut bytes: the beginning of a key or a value that is too large to keep, and the size before the cut."""

import os

_TAG = os.urandom(16)
"""Tag of a packed beginning. No other process knows this tag, so no producer can write one."""
_SIZE_BYTES = 8


class CutBytes(bytes):
    """The beginning of a key or a value that is too large to keep."""

    full_size: int
    """Size before the cut, bytes."""


def cut_bytes(limit: int, content: bytes | None) -> bytes | None:
    """Return a key or a value with at most `limit` bytes and one more byte, so that the excess stays visible.

    Args:
        limit: Largest size to keep, bytes.
        content: Key or value; or the result of `pack_cut`.
    """
    if content is None or len(content) <= limit:
        return content
    size = len(content)
    if content.endswith(_TAG):
        content = content[: -len(_TAG)]
        size = int.from_bytes(content[-_SIZE_BYTES:])
        content = content[:-_SIZE_BYTES]
    cut = CutBytes(content[: limit + 1])
    cut.full_size = size
    return cut


def pack_cut(beginning: bytes, full_size: int) -> bytes:
    """Return the beginning of a key or a value as plain bytes that carry the full size: `cut_bytes` reads both.

    Args:
        beginning: More than `limit` bytes of the content.
        full_size: Size before the cut, bytes.
    """
    return beginning + full_size.to_bytes(_SIZE_BYTES) + _TAG


def full_size(content: bytes) -> int:
    """Return the size of a key or a value before any cut, bytes."""
    return content.full_size if isinstance(content, CutBytes) else len(content)
