"""Request traces: the trace of a request that sends events, for the records of the events (W3C Trace Context).

Without an exporter the gateway passes the trace headers of the request on as they are.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from clickscore.stream.errors import ExtraMissingError
from clickscore.stream.settings import WorkerSettings
from clickscore.stream.trace_headers import Headers


class RequestTracer(Protocol):
    """Follows requests to the records of their events."""

    def span(self, parent: Headers) -> AbstractContextManager[Headers]:
        """Return a block for a request, with the trace headers of the records to store.

        Args:
            parent: Trace headers of the request; empty for a request without a trace.
        """
        ...

    def close(self) -> None:
        """Send the traces that wait, for a bounded time."""
        ...


class PassOnRequests:
    """A tracer that writes no traces, and passes those of the requests on."""

    @contextmanager
    def span(self, parent: Headers) -> Generator[Headers]:
        """Yield the trace headers of the request."""
        yield parent

    def close(self) -> None:
        """Do nothing: no trace waits."""


def open_request_tracer(settings: WorkerSettings) -> RequestTracer:
    """Return what follows requests to their records; without `otlp_endpoint` their traces are passed on.

    Args:
        settings: Collector, and the share of the traces that begin here.

    Raises:
        ExtraMissingError: The OpenTelemetry packages are not installed.
    """
    if not settings.otlp_endpoint:
        return PassOnRequests()
    try:
        # Imported where they are used: most gateways have no collector.
        from clickscore.stream.gateway.otlp_requests import OtlpRequests  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        message = f"otlp_endpoint needs the otel extra ({exc.name} is missing): pip install '.[gateway,otel]'"
        raise ExtraMissingError(message) from exc
    return OtlpRequests(settings.otlp_endpoint, settings.trace_share)
