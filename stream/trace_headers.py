"""Trace headers: `traceparent` and `tracestate` of W3C Trace Context (https://www.w3.org/TR/trace-context/).

HTTP requests and records of Kafka carry the same two headers.
"""

import re
from collections.abc import Sequence

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_TRACESTATE_BYTES = 512
"""Largest `tracestate` that is passed on, bytes: as much as the standard asks for."""

_SAMPLED = 1
"""Bit of the flags at the end of `traceparent`: spans of the trace are written."""

Headers = Sequence[tuple[str, bytes]]
"""Headers of a record."""

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_headers(parent: bytes | None, state: bytes | None) -> Headers:
    """Return the headers that continue a trace; none without a valid parent.

    Args:
        parent: Value of `traceparent`, if any.
        state: Value of `tracestate`, if any. A value that is too long is left out.
    """
    if parent is None or not _PARENT.fullmatch(parent):
        return ()
    is_passed = state is not None and len(state) <= MAX_TRACESTATE_BYTES
    return ((TRACEPARENT, parent), (TRACESTATE, state)) if is_passed and state else ((TRACEPARENT, parent),)


def clear_sampled(headers: Headers) -> Headers:
    """Return trace headers of `trace_headers` without the flag that makes every reader of the trace write spans."""
    return tuple(
        (name, value[:-2] + b"%02x" % (int(value[-2:], 16) & ~_SAMPLED) if name == TRACEPARENT else value)
        for name, value in headers
    )
