"""Gateway app: the routes of the gateway, and errors as problem details (RFC 9457)."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import unquote_to_bytes

import msgspec
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clickscore.schemas.events import AnyEvent, Erase, Identify, PrivacyRecord
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.access import Access
from clickscore.stream.gateway.answers import encode_answer, encode_events, encode_problem
from clickscore.stream.gateway.api_keys import Caller
from clickscore.stream.gateway.event_bodies import read_events
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.openapi import JAVASCRIPT, JSON, OPERATIONS, PROBLEM_JSON, openapi
from clickscore.stream.gateway.request_traces import RequestTracer
from clickscore.stream.gateway.service import GatewayService
from clickscore.stream.host_names import is_own_name
from clickscore.stream.settings import Settings
from clickscore.stream.trace_headers import TRACEPARENT, TRACESTATE, Headers, clear_sampled, trace_headers

CONSOLE_PATH = "/console"
"""Path of the console; all its paths begin so."""
CORS_SECONDS = 600
"""Time for which a browser may keep the answer to a question of CORS, s."""

_NO_STORE = (b"cache-control", b"no-store")
"""Header of every answer that says nothing of caches."""
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
"""Header of every answer."""
_SNIPPET_HEADERS = {"Cache-Control": "public, max-age=300", "Cross-Origin-Resource-Policy": "cross-origin"}

Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    service: GatewayService,
    access: Access,
    metrics: GatewayMetrics,
    settings: Settings,
    *,
    tracer: RequestTracer,
    routes: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """Return the app of a gateway.

    Args:
        service: Answers the requests.
        access: Checks the keys of requests.
        metrics: Counts to fill.
        settings: Limits of requests, and allowed web sites.
        tracer: Follows requests to the records of their events.
        routes: Further routes, such as those of the console.
    """
    handlers = _Handlers(service, access, metrics, settings, tracer)
    operations = [
        Route(operation.path, getattr(handlers, operation.name), methods=[operation.method]) for operation in OPERATIONS
    ]
    origins = [origin for part in settings.gateway.gateway_cors_origins.split(",") if (origin := part.strip())]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", TRACEPARENT, TRACESTATE],
        max_age=CORS_SECONDS,
    )
    app = Starlette(
        routes=[*operations, *routes],
        middleware=[cors] if origins else [],
        exception_handlers={
            RequestError: _answer_request_error,
            HTTPException: _answer_http_exception,
            Exception: _answer_bug,
        },
    )
    own_host = None if access.needs_keys else settings.gateway.gateway_host
    return _Front(app, metrics, own_host)


class _Handlers:
    """A handler for each operation, by the name of the operation."""

    def __init__(
        self,
        service: GatewayService,
        access: Access,
        metrics: GatewayMetrics,
        settings: Settings,
        tracer: RequestTracer,
    ) -> None:
        self._tracer = tracer
        self._service = service
        self._access = access
        self._metrics = metrics
        self._settings = settings
        self._snippet = (files("clickscore.stream.gateway") / "snippet.js").read_bytes()
        self._openapi = msgspec.json.encode(openapi())

    async def send_events(self, request: Request) -> Response:
        caller = self._access.check_caller(request.headers.get("authorization"), "events")
        decide = _read_flag(request, "decide")
        if decide:
            self._access.check_scope(caller.key, "read")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            # A browser sends other types to any site without asking; this type makes it ask, by the rules of CORS.
            raise RequestError(415, f"send the header `Content-Type: {JSON}`")
        body = await read_body(request, self._settings.gateway.gateway_body_bytes)
        events = read_events(body, self._settings.sessions, int(time.time() * 1000))
        self._check_events(caller, [event.event for event in events])
        self._access.take(caller.key, len(events) - 1)  # the request itself took one
        trace = _trace(request)
        # Spans cost time and room in the collector: a visitor of a web page must not choose their number.
        with self._tracer.span(clear_sampled(trace) if caller.is_public else trace) as headers:
            if decide:
                began_at = time.perf_counter()
                answer = encode_events(*await self._service.store_and_decide(events, headers))
                return _json(answer, headers=_timing("decide", began_at))
            return _json(encode_events(await self._service.store(events, headers)))

    def _check_events(self, caller: Caller, events: Sequence[AnyEvent | PrivacyRecord]) -> None:
        """Check that a caller may send events. A user cannot erase, and cannot join another user's session.

        Args:
            caller: Sender of the request.
            events: The events.

        Raises:
            RequestError: The caller lacks the right to an event.
        """
        for event in events:
            self._access.check_user(caller, event.user_id)
            if isinstance(event, Erase):
                self._access.check_scope(caller.key, "admin")
            if isinstance(event, Erase | Identify) and caller.user_id is not None:
                raise RequestError(403, "a user key sends no `erase` and no `identify`")

    async def read_recommendations(self, request: Request) -> Response:
        caller = self._access.check_caller(request.headers.get("authorization"), "read")
        user_id = _path_value(request, "user_id")
        self._access.check_user(caller, user_id)
        placement = request.query_params.get("placement")
        if placement is not None:
            return _json(await self._service.placement(user_id, placement))
        return _json(await self._service.newest(user_id))

    async def read_decision(self, request: Request) -> Response:
        self._access.check(request.headers.get("authorization"), "read")
        return _json(await self._service.decision(_path_value(request, "decision_id")))

    async def explain_decision(self, request: Request) -> Response:
        self._access.check(request.headers.get("authorization"), "read")
        return _json(await self._service.explain(_path_value(request, "decision_id")))

    async def read_health(self, request: Request) -> Response:
        del request
        health = self._service.health()
        return _json(encode_answer(health), HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def read_metrics(self, request: Request) -> Response:
        self._access.check(request.headers.get("authorization"), "admin")
        self._service.health()  # sets the gauges
        return Response(generate_latest(self._metrics.registry), media_type="text/plain; version=0.0.4")

    async def read_snippet(self, request: Request) -> Response:
        del request
        return Response(self._snippet, headers=_SNIPPET_HEADERS, media_type=JAVASCRIPT)

    async def read_openapi(self, request: Request) -> Response:
        del request
        return _json(self._openapi)


class _Front:
    """The outermost layer: counts and times each request, and refuses foreign names of a server on loopback."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, own_host: str | None) -> None:
        """Wrap an app.

        Args:
            app: The app.
            metrics: Counts to fill.
            own_host: Address of a gateway without keys, for requests to loopback names only; None with keys.
        """
        self._app = app
        self._metrics = metrics
        self._own_host = own_host
        self._paths = {operation.name: operation.path for operation in OPERATIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at, status = time.perf_counter(), 500
        # The raw path: an id may have a slash, which must not look like a separator. Handlers decode the id.
        scope["path"] = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "replace") or scope["path"]

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], _NO_SNIFF]
                is_cached = any(name == _NO_STORE[0] for name, _ in headers)
                message["headers"] = headers if is_cached else [*headers, _NO_STORE]
            await send(message)

        try:
            if self._own_host and not is_own_name(_host(scope["headers"]), self._own_host):
                error = RequestError(
                    421, "this server has another name: a gateway without keys answers to loopback only"
                )
                await _problem(error)(scope, receive, send_counted)
            else:
                await self._app(scope, receive, send_counted)
        finally:
            other = CONSOLE_PATH if scope["path"].startswith(CONSOLE_PATH) else "other"
            route = self._paths.get(getattr(scope.get("endpoint"), "__name__", ""), other)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started_at)


def _host(headers: Sequence[tuple[bytes, bytes]]) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == b"host"), "")


def _json(body: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, JSON)


def _timing(name: str, began_at: float) -> dict[str, str]:
    """Return the header that says how long a part of the answer took, in ms (W3C Server Timing).

    Args:
        name: Name of the part.
        began_at: Beginning of the part, s of the performance counter.
    """
    return {"Server-Timing": f"{name};dur={(time.perf_counter() - began_at) * 1000:.2f}"}


def _trace(request: Request) -> Headers:
    """Return the trace headers of a request; none for several parents, as the standard says."""
    parents, states = (request.headers.getlist(name) for name in (TRACEPARENT, TRACESTATE))
    return trace_headers(
        parents[0].encode("latin-1") if len(parents) == 1 else None, ",".join(states).encode("latin-1")
    )


def _problem(error: RequestError) -> Response:
    return Response(encode_problem(error), error.status, error.headers, PROBLEM_JSON)


def _read_flag(request: Request, name: str) -> bool:
    """Return a query parameter of true or false; false where absent.

    Raises:
        RequestError: The parameter has another value.
    """
    text = request.query_params.get(name, "false")
    if text not in {"true", "false"}:
        raise RequestError(400, f"{name} is true or false")
    return text == "true"


def _path_value(request: Request, name: str) -> str:
    """Return a decoded part of the path.

    Raises:
        RequestError: The part is not UTF-8.
    """
    try:
        return unquote_to_bytes(request.path_params[name]).decode()
    except UnicodeDecodeError as exc:
        raise RequestError(400, f"the id in the path is not UTF-8: {exc.reason}") from exc


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request. A body over the limit is not read further.

    Args:
        request: The request.
        limit: Largest body, bytes.

    Raises:
        RequestError: The body is larger.
    """
    parts: list[bytes] = []
    size = int(length) if (length := request.headers.get("content-length", "0")).isdecimal() else 0
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        message = f"the body is larger than gateway_body_bytes ({limit}): send fewer events in a request"
        raise RequestError(413, message, headers={"Connection": "close"})
    return b"".join(parts)


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _problem(error)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """Return the answer to a request without a route."""
    assert isinstance(error, HTTPException)
    detail = "the paths of the gateway are in /openapi.json"
    return _problem(RequestError(error.status_code, detail, headers=dict(error.headers or {})))


async def _answer_bug(_: Request, __: Exception) -> Response:
    """Return the answer to a request that meets a bug. The server writes the traceback to the log."""
    return _problem(RequestError(500, "an error of the gateway itself: its log has the reason"))
