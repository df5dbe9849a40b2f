"""Traces: the trace context of events, for the decisions that answer them (W3C Trace Context).

https://www.w3.org/TR/trace-context/ defines `traceparent` and `tracestate`. Kafka carries both as headers of a record.
Without an exporter the worker passes them on as they are, so that a trace goes from the event's producer to the
consumer of the decision.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from clickscore.stream.pipeline import Output
from clickscore.stream.worker.group import FetchedBatch, FetchedRecord, Headers

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_TRACESTATE_BYTES = 512
"""Largest `tracestate` that is passed on, bytes: as much as the standard asks for."""

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class ComputedBatch(NamedTuple):
    """A batch with its output, and the wall-clock time of its computation."""

    batch: FetchedBatch
    output: Output
    started_at: float
    """Start, s."""
    finished_at: float
    """End, s."""


class Traces(Protocol):
    """Traces of the events of a batch, until the decisions are stored."""

    @property
    def headers(self) -> Mapping[int, Headers]:
        """Trace headers of the decisions on an event, by offset of the event; an event without a trace is left out."""
        ...

    def finish(self, stored_at_ms: int | None) -> None:
        """End the traces: the decisions are stored, at this append time (ms) where Kafka says it."""
        ...


class Tracer(Protocol):
    """Follows events to their decisions."""

    def start(self, computed: ComputedBatch) -> Traces:
        """Begin the traces of a computed batch."""
        ...

    def close(self) -> None:
        """Send the traces that wait, for a bounded time."""
        ...


class PassedOn:
    """Trace headers of events, for their decisions."""

    def __init__(self, headers: Mapping[int, Headers]) -> None:
        self.headers = headers
        """Trace headers by offset of the event."""

    def finish(self, stored_at_ms: int | None) -> None:
        """Do nothing: no trace is written here."""


class PassOn:
    """A tracer that writes no traces, and passes those of the events on."""

    def start(self, computed: ComputedBatch) -> PassedOn:
        """Return the trace headers of the events of a batch."""
        return PassedOn(contexts(computed.batch))

    def close(self) -> None:
        """Do nothing: no trace waits."""


def contexts(batch: FetchedBatch) -> dict[int, Headers]:
    """Return the trace headers of the events that have some, by offset."""
    return {record.offset: headers for record in batch.records if record.headers and (headers := trace_headers(record))}


def trace_headers(record: FetchedRecord) -> Headers:
    """Return the trace headers of a record; none without a valid `traceparent`. The last of equal names counts."""
    values = dict(record.headers)
    parent, state = values.get(TRACEPARENT), values.get(TRACESTATE)
    if parent is None or not _PARENT.fullmatch(parent):
        return ()
    is_passed = state is not None and len(state) <= MAX_TRACESTATE_BYTES
    return ((TRACEPARENT, parent), (TRACESTATE, state)) if is_passed and state else ((TRACEPARENT, parent),)
