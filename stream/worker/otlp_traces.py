"""OTLP traces: send a span for each traced decision to an OpenTelemetry collector, over HTTP.

A decision's span goes from the append of the event to the append of the decision. Its children are the parts of this
time: `wait` for the fetch and for earlier batches, `decide`, and `publish`.
"""

import logging
import platform
import threading

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from clickscore.stream.worker.group import FetchedRecord, Headers
from clickscore.stream.worker.logs import user_hash
from clickscore.stream.worker.traces import ComputedBatch, contexts

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000
EXPORT_TIMEOUT_S = 5
"""Time limit of a request to the collector, s."""
CLOSE_S = 5.0
"""Time limit of the last requests together, s. A lost collector delays the end of the worker by no more."""

_PROPAGATOR = TraceContextTextMapPropagator()

# A lost collector would log a traceback with every request; dropped spans are no reason to wake anybody.
logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)


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
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return tuple((name, value.encode()) for name, value in carrier.items())

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
    """Makes a span for each decision whose event is traced, and for a share of the others."""

    def __init__(self, endpoint: str, share: float, close_s: float = CLOSE_S) -> None:
        """Start the exporter's thread.

        Args:
            endpoint: URL of the collector's traces, such as `http://127.0.0.1:4318/v1/traces`.
            share: Share of the events without a trace for which one is begun.
            close_s: Time limit of the last requests, s.
        """
        self._close_s = close_s
        self._share = share
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": "clickscore-worker", "host.name": platform.node()}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("clickscore")

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
        carrier = {name: value.decode(errors="replace") for name, value in parent}
        context = _PROPAGATOR.extract(carrier, Context())
        started_ns = record.timestamp * NS_PER_MS if record.timestamp >= 0 else int(computed.started_at * NS_PER_S)
        attributes = {
            "messaging.system": "kafka",
            "messaging.destination.partition.id": str(computed.batch.partition),
            "messaging.kafka.offset": record.offset,
            "clickscore.user_hash": user_hash(record.key or b""),
        }
        span = self._tracer.start_span(
            "event to decision", context, SpanKind.CONSUMER, attributes, start_time=started_ns
        )
        return DecisionSpan(span, started_ns, computed)

    def close(self) -> None:
        """Send the spans that wait, within the time limit; the rest is dropped."""
        # The library sends the whole queue, each part with its own time limit. The end of the process ends the thread.
        thread = threading.Thread(target=self._provider.shutdown, name="otlp-close", daemon=True)
        thread.start()
        thread.join(self._close_s)
