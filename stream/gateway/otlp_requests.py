"""OTLP requests: send a span for each traced request that sends events to an OpenTelemetry collector."""

from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, use_span

from clickscore.stream.otlp import SpanExport, parent_context, span_headers
from clickscore.stream.trace_headers import Headers


class OtlpRequests:
    """Makes a span for each request whose trace is sampled, and for a share of the requests without a trace."""

    def __init__(self, endpoint: str, share: float) -> None:
        """Start the exporter's thread.

        Args:
            endpoint: URL of the collector's traces, such as `http://127.0.0.1:4318/v1/traces`.
            share: Share of the requests without a trace for which a trace is begun.
        """
        self._share = share
        self._export = SpanExport(endpoint, share, "clickscore-gateway")

    @contextmanager
    def span(self, parent: Headers) -> Generator[Headers]:
        """Yield the trace headers of the span of a request, which ends with the block. An error marks the span.

        Args:
            parent: Trace headers of the request; empty to begin a trace.
        """
        if not parent and not self._share:
            yield ()
            return
        span = self._export.tracer.start_span("send events", parent_context(parent), SpanKind.SERVER)
        with use_span(span, end_on_exit=True):
            yield span_headers(span)

    def close(self) -> None:
        """Send the spans that wait, within the time limit; the rest is dropped."""
        self._export.close()
