"""OTLP traces: send a span for each traced decision to an OpenTelemetry collector, over HTTP.

A decision's span goes from the append of the event to the append of the decision. Its children are the parts of this
time: `wait` for the fetch and for earlier batches, `decide`, and `publish`.
"""

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from clickscore.stream.otlp import CLOSE_S, SpanExport, parent_context, span_headers
from clickscore.stream.worker.group import FetchedRecord, Headers
from clickscore.stream.worker.logs import user_hash
from clickscore.stream.worker.traces import ComputedBatch, contexts

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000


class DecisionSpan:
    """The open span of a decision."""

    def __init__(self, span: Span, started_ns: int, computed: ComputedBatch) -> None:
        """Keep a span.

        Args:
            span: The span.
            started_ns: Start of the span, ns.
            computed: Batch of the event.
        """
        self._span = span
        self._started_ns = started_ns
        self._computed = computed

    def headers(self) -> Headers:
        """Return the headers by which the consumer of the decision continues the trace."""
        return span_headers(self._span)

    def finish(self, tracer: trace.Tracer, end_ns: int) -> None:
        """End the span, with its parts.

        Args:
            tracer: Makes the spans of the parts.
            end_ns: Time at which the decision is stored, ns.
        """
        context = trace.set_span_in_context(self._span)
        times = [self._started_ns]
        # Brokers and workers have clocks of their own: no part ends before it begins.
        for time_ns in (int(self._computed.started_at * NS_PER_S), int(self._computed.finished_at * NS_PER_S), end_ns):
            times.append(max(times[-1], time_ns))
        for name, start, end in zip(("wait", "decide", "publish"), times, times[1:], strict=False):
            tracer.start_span(name, context, start_time=start).end(end)
        self._span.end(times[-1])


class OtlpTraces:
    """Open spans of a batch."""

    def __init__(self, tracer: trace.Tracer, spans: dict[int, DecisionSpan], finished_at: float) -> None:
        """Keep the spans.

        Args:
            tracer: Makes the spans of the parts.
            spans: Open spans by offset of the event.
            finished_at: End of the computation, s.
        """
        self._tracer = tracer
        self._spans = spans
        self._finished_at = finished_at
        self.headers = {offset: span.headers() for offset, span in spans.items()}
        """Trace headers of the decisions by offset of the event."""

    def finish(self, stored_at_ms: int | None) -> None:
        """End the spans at the append time; where Kafka says none, at the end of the computation."""
        end_ns = int(self._finished_at * NS_PER_S) if stored_at_ms is None else stored_at_ms * NS_PER_MS
        for span in self._spans.values():
            span.finish(self._tracer, end_ns)


class OtlpTracer:
    """Makes a span for each decision on an event of a sampled trace, and for a share of the events without a trace."""

    def __init__(self, endpoint: str, share: float, close_s: float = CLOSE_S) -> None:
        """Start the exporter's thread.

        Args:
            endpoint: URL of the collector's traces, such as `http://127.0.0.1:4318/v1/traces`.
            share: Share of the events without a trace for which a trace is begun.
            close_s: Time limit of the last requests, s.
        """
        self._share = share
        self._export = SpanExport(endpoint, share, "clickscore-worker", close_s)
        self._tracer = self._export.tracer

    def start(self, computed: ComputedBatch) -> OtlpTraces:
        """Begin the spans of a computed batch."""
        parents = contexts(computed.batch)
        offsets = {message.event_offset for message in computed.output.recommendations}
        spans: dict[int, DecisionSpan] = {}
        for record in computed.batch.records:
            if record.offset in offsets and (self._share or record.offset in parents):
                spans[record.offset] = self._begin(record, parents.get(record.offset, ()), computed)
        return OtlpTraces(self._tracer, spans, computed.finished_at)

    def _begin(self, record: FetchedRecord, parent: Headers, computed: ComputedBatch) -> DecisionSpan:
        """Begin the span of a decision.

        Args:
            record: Record of the event.
            parent: Trace headers of the event; empty to begin a trace.
            computed: Batch of the event.
        """
        started_ns = record.timestamp * NS_PER_MS if record.timestamp >= 0 else int(computed.started_at * NS_PER_S)
        attributes = {
            "messaging.system": "kafka",
            "messaging.destination.partition.id": str(computed.batch.partition),
            "messaging.kafka.offset": record.offset,
            "clickscore.user_hash": user_hash(record.key or b""),
        }
        span = self._tracer.start_span(
            "event to decision", parent_context(parent), SpanKind.CONSUMER, attributes, start_time=started_ns
        )
        return DecisionSpan(span, started_ns, computed)

    def close(self) -> None:
        """Send the spans that wait, within the time limit; the rest is dropped."""
        self._export.close()
