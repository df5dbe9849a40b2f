"""OTLP: send spans to an OpenTelemetry collector, over HTTP. Needs the `otel` extra."""

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
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from clickscore.stream.trace_headers import Headers

EXPORT_TIMEOUT_S = 5
"""Time limit of a request to the collector, s."""
CLOSE_S = 5.0
"""Time limit of the last requests together, s. A lost collector delays the end of the process by no more."""

_PROPAGATOR = TraceContextTextMapPropagator()

# A lost collector would log a traceback with every request; dropped spans are no reason to wake anybody.
logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)


class SpanExport:
    """Makes spans, and sends them from a thread. Spans that the collector does not take are dropped."""

    def __init__(self, endpoint: str, share: float, service: str, close_s: float = CLOSE_S) -> None:
        """Start the thread.

        Args:
            endpoint: URL of the collector's traces, such as `http://127.0.0.1:4318/v1/traces`.
            share: Share of the traces that begin here and are sent.
            service: Name of the program for the collector.
            close_s: Time limit of the last requests, s.
        """
        self._close_s = close_s
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": service, "host.name": platform.node()}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("clickscore")

    def close(self) -> None:
        """Send the spans that wait, within the time limit; the rest is dropped."""
        # The library sends the whole queue, each part with its own time limit. The end of the process ends the thread.
        thread = threading.Thread(target=self._provider.shutdown, name="otlp-close", daemon=True)
        thread.start()
        thread.join(self._close_s)


def parent_context(headers: Headers) -> Context:
    """Return the context of the span that trace headers name; an empty context without headers."""
    return _PROPAGATOR.extract({name: value.decode(errors="replace") for name, value in headers}, Context())


def span_headers(span: trace.Span) -> Headers:
    """Return the trace headers by which a reader continues the trace of a span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return tuple((name, value.encode()) for name, value in carrier.items())
