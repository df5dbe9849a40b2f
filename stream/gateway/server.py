"""Gateway server: listen for HTTP, cut off slow clients, and stop on a signal."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clickscore.stream.console.console import Console
from clickscore.stream.console.console_reader import follow_topics
from clickscore.stream.errors import ExtraMissingError, SettingsError
from clickscore.stream.gateway.access import RELOAD_SECONDS, Access
from clickscore.stream.gateway.console_routes import ConsoleRoutes
from clickscore.stream.gateway.explain_process import ExplainProcess
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.http_app import create_app
from clickscore.stream.gateway.kafka_log import KafkaLog
from clickscore.stream.gateway.request_traces import open_request_tracer
from clickscore.stream.gateway.service import GatewayService, PublishedDecisions
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.kafka.rollout_log import write_rollout
from clickscore.stream.settings import GatewaySettings, Settings

if TYPE_CHECKING:
    from clickscore.stream.gateway.redis_memory import RedisMemory

REQUEST_SECONDS = 30.0
"""Longest life of a request, s: from the connection, or the first byte, to the last byte of the answer."""
KEEP_ALIVE_SECONDS = 60
"""Longest pause between two requests of a connection, s: longer than load balancers reuse a connection."""
MAX_HEADER_BYTES = 64 * 1024
"""Largest path and headers of a request, bytes."""
STOP_SECONDS = 5
"""Time for requests under way when the gateway stops, s."""
SPARE_FILES = 64
"""Open files that are no connections of clients: connections to Kafka, the log, the libraries."""

_log = logging.getLogger(__name__)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds: a request has a bounded life and bounded headers, whatever the client does."""

    request_seconds: ClassVar[float] = REQUEST_SECONDS

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (uvicorn's own)
        """Start the time of the first request."""
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time of the request."""
        self._stop_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the time of a request."""
        super().on_message_begin()
        self._header_bytes = 0
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        """Take a part of the path, within the bound."""
        if self._is_within_bound(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, within the bound."""
        if self._is_within_bound(len(name) + len(value)):
            super().on_header(name, value)

    def on_response_complete(self) -> None:
        """End the time of a request whose answer is handed to the connection."""
        self._stop_deadline()
        super().on_response_complete()
        if self.pipeline or (self.cycle and not self.cycle.response_complete):
            self._start_deadline()

    def timeout_keep_alive_handler(self) -> None:
        """Cut off an idle connection. A close would wait until the client has read the last answer."""
        self.transport.abort()

    def _is_within_bound(self, size: int) -> bool:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self.transport.abort()
            return False
        return True

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(self.request_seconds, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to the caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals as they are."""
        yield


class OpenGateway(NamedTuple):
    """A gateway that listens."""

    address: str
    works: tuple[Callable[[], Awaitable[Any]], ...]
    """Background work, which must run while the gateway listens."""


async def run_gateway(settings: Settings, on_ready: Callable[[str], None] = lambda _: None) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Args:
        settings: All settings.
        on_ready: Called with the address once the gateway listens.

    Raises:
        SettingsError: A setting is wrong, or the address or a certificate cannot be used.
        TopicMissingError: A topic is missing.
        BrokerError: Kafka cannot be reached, or refuses the gateway.
    """
    async with open_gateway(settings) as gateway:
        tune_gc()  # a collection of all objects would hold up every request
        on_ready(gateway.address)
        await _until_signal(*gateway.works)


@asynccontextmanager
async def open_gateway(settings: Settings, *, has_shop: bool = False) -> AsyncGenerator[OpenGateway]:
    """Let a gateway listen for the block.

    Args:
        settings: All settings.
        has_shop: Whether the console has the page of a shopper, who sends events of a person.

    Raises:
        SettingsError: A setting is wrong, or the address or a certificate cannot be used.
        TopicMissingError: A topic is missing.
        BrokerError: Kafka cannot be reached, or refuses the gateway.
        ExtraMissingError: The client of Redis or of OpenTelemetry is needed and not installed.
    """
    access, metrics = Access(settings.gateway), GatewayMetrics()
    shared = open_shared_memory(settings, metrics)
    decisions = PublishedDecisions(settings.gateway, metrics, shared)
    event_log = KafkaLog(
        settings.kafka,
        settings.gateway,
        on_decision=decisions.receive,
        on_ad=decisions.receive_ad,
        on_receipt=decisions.receive_receipt,
    )
    with contextlib.closing(open_request_tracer(settings.worker)) as tracer:
        async with event_log:
            explain = ExplainProcess(settings).explain
            service = GatewayService(event_log, decisions, explain, settings.gateway, metrics)
            works: list[Callable[[], Awaitable[Any]]] = [event_log.follow, lambda: _reload_keys(access)]
            if shared:
                works.append(shared.run)
            routes: Sequence[BaseRoute] = ()
            end_streams: Callable[[], None] = _do_nothing
            if settings.gateway.gateway_console == "on":
                console = Console(
                    lambda state: follow_topics(settings, state),
                    lambda rollout: write_rollout(settings.kafka, rollout),
                    has_shop=has_shop,
                )
                console_routes = ConsoleRoutes(console, access, service)
                routes, end_streams = console_routes.routes, console_routes.end_streams
                works.append(console.run)
            app = create_app(service, access, metrics, settings, tracer=tracer, routes=routes)
            async with serving(app, settings.gateway, metrics, end_streams) as address:
                yield OpenGateway(address, tuple(works))


def open_shared_memory(settings: Settings, metrics: GatewayMetrics) -> "RedisMemory | None":
    """Return the memory in Redis, if the settings name one.

    Args:
        settings: All settings.
        metrics: Metrics to fill.

    Raises:
        SettingsError: The address has another form.
        ExtraMissingError: The client of Redis is not installed.
    """
    if not settings.gateway.gateway_redis_url:
        return None
    try:
        from clickscore.stream.gateway.redis_memory import RedisMemory  # noqa: PLC0415 (needs the redis extra)
    except ModuleNotFoundError as exc:
        message = f"gateway_redis_url needs the redis extra ({exc.name} is missing): pip install '.[gateway,redis]'"
        raise ExtraMissingError(message) from exc
    return RedisMemory(settings, metrics)


def _do_nothing() -> None:
    """End no streams."""


@asynccontextmanager
async def serving(
    app: ASGIApp,
    settings: GatewaySettings,
    metrics: GatewayMetrics,
    end_streams: Callable[[], None] = _do_nothing,
) -> AsyncGenerator[str]:
    """Serve an app over HTTP for the block; yield its address. At the end, requests under way are answered.

    Args:
        app: App to serve.
        settings: Address, certificates and limits.
        metrics: Metrics that show the number of connections.
        end_streams: Called at the end: ends the answers that go on without it, for which the server would wait.

    Raises:
        SettingsError: The address or a certificate cannot be used.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # any client can cause its warnings, as often as it likes
    listener = _listen(settings)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # paths have user ids
        server_header=False,
        limit_concurrency=_connection_limit(settings.gateway_connections),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=settings.gateway_tls_certfile or None,
        ssl_keyfile=settings.gateway_tls_keyfile or None,
        proxy_headers=False,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as exc:
        listener.close()
        message = (
            f"gateway_tls_certfile ({settings.gateway_tls_certfile}) and gateway_tls_keyfile "
            f"({settings.gateway_tls_keyfile or 'the same file'}) are no certificate with its key in PEM form: {exc}"
        )
        raise SettingsError(message) from exc
    server = _Server(config)
    metrics.connections.set_function(lambda: len(server.server_state.connections))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    scheme = "https" if settings.gateway_tls_certfile else "http"
    host = f"[{settings.gateway_host}]" if ":" in settings.gateway_host else settings.gateway_host
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        yield f"{scheme}://{host}:{listener.getsockname()[1]}"
    finally:
        end_streams()
        server.should_exit = True
        await task


def _listen(settings: GatewaySettings) -> socket.socket:
    """Return a listening socket.

    Raises:
        SettingsError: The address cannot be used.
    """
    host, port = settings.gateway_host, settings.gateway_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        message = f"the gateway cannot listen on {host}:{port} ({exc.strerror}): set gateway_host or gateway_port"
        raise SettingsError(message) from exc
    return listener


def _connection_limit(connections: int) -> int:
    """Return the number of connections that the open files of the process allow, after raising their limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted_files = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted_files:
        soft = wanted_files if hard == resource.RLIM_INFINITY else min(wanted_files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < wanted_files:
        _log.warning("Open files are limited to %s, so connections are limited to %s", soft, soft - SPARE_FILES)
        return soft - SPARE_FILES
    return connections


async def _until_signal(*works: Callable[[], Awaitable[Any]]) -> None:
    """Run background work until SIGTERM or SIGINT. An error of the work ends the gateway."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.ensure_future(work()) for work in works]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


async def _reload_keys(access: Access) -> None:
    """Read the file of keys again whenever it has changed. Without a readable file the former keys hold."""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            if access.reload():
                _log.info("The API keys have been read again")
        except SettingsError as exc:
            _log.warning("%s; the former keys still hold", exc)
