"""Traces: the trace context of events, for the decisions that answer them (W3C Trace Context).

Without an exporter the worker passes the trace headers on as they are, so that a trace goes from the event's producer
to the consumer of the decision.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from clickscore.stream.pipeline_records import Output
from clickscore.stream.trace_headers import TRACEPARENT, TRACESTATE, trace_headers
from clickscore.stream.worker.group import FetchedBatch, FetchedRecord, Headers


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
    return {record.offset: headers for record in batch.records if record.headers and (headers := _context(record))}


def _context(record: FetchedRecord) -> Headers:
    """Return the trace headers of a record. The last of equal names counts."""
    values = dict(record.headers)
    return trace_headers(values.get(TRACEPARENT), values.get(TRACESTATE))
