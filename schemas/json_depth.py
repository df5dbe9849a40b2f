"""JSON depth: refuse deeply nested JSON before decoding.

msgspec's own limit depends on the depth of Python's call stack, so the same bytes could be good in a worker and broken
in a replay. This limit depends on the bytes alone.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import msgspec

MAX_DEPTH = 64
"""Largest number of nested arrays and objects. Events have depth 1 and manifests depth 4; the rest is room for unknown
fields. msgspec fails at about 975, less the depth of the call stack."""

# A string with its escapes. The closing quote may be missing, and no part gives characters back: the time stays linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP_OF = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

Decoded = TypeVar("Decoded")


def is_too_deep(text: bytes) -> bool:
    """Return whether JSON has more than `MAX_DEPTH` nested arrays and objects."""
    # Each level takes two bytes, and an event has few brackets: exact counting, which costs 20 times more, is rare.
    if len(text) <= 2 * MAX_DEPTH or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP_OF.__getitem__, brackets)), default=0) > MAX_DEPTH


def check_depth(text: bytes) -> None:
    """Check that JSON has at most `MAX_DEPTH` nested arrays and objects.

    Raises:
        msgspec.DecodeError: The JSON is nested deeper.
    """
    if is_too_deep(text):
        message = f"JSON is nested deeper than {MAX_DEPTH} levels"
        raise msgspec.DecodeError(message)


def bounded_depth(decode: Callable[[bytes], Decoded]) -> Callable[[bytes], Decoded]:
    """Return a decoder that refuses JSON of more than `MAX_DEPTH` levels with a `msgspec.DecodeError`."""

    def decode_bounded(text: bytes) -> Decoded:
        check_depth(text)
        return decode(text)

    return decode_bounded
