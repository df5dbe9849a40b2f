"""Web pages: a small HTTP server for /health and /metrics, which slow clients and foreign web sites cannot misuse."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from clickscore.stream.host_names import is_own_name

CONNECTION_SECONDS = 10.0
"""Longest life of a connection, s: more than any page takes, and the default timeout of a Prometheus scrape."""
SHUTDOWN_SECONDS = 1.0
"""Time for answers under way when the server stops, s."""


def _is_own_fault(record: logging.LogRecord) -> bool:
    """Return whether a record of aiohttp is about more than a broken request, which any client can send."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


log = logging.getLogger(__name__)
log.addFilter(_is_own_fault)


class Page(NamedTuple):
    """An answer of the server."""

    status: int
    body: bytes
    content_type: str = "text/plain"


class _BoundedServer(web.Server):
    """A server of connections with a bounded life: a slow request, or a slow reader, is cut off."""

    connection_s: float = CONNECTION_SECONDS
    """Longest life of a connection, s."""

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        connection = super().__call__()
        asyncio.get_running_loop().call_later(self.connection_s, _cut_off, connection)
        return connection


def _cut_off(connection: RequestHandler) -> None:
    if connection.transport is not None:  # the connection is open
        connection.transport.abort()  # a close would wait until the client has read the answer


class WebServer:
    """Serves pages by path; every other path is 404, every other method than GET and HEAD 405."""

    def __init__(
        self,
        pages: Mapping[str, Callable[[], Page]],
        host: str,
        port: int,
        *,
        connection_s: float = CONNECTION_SECONDS,
    ) -> None:
        """Build the server.

        Args:
            pages: Makes the page of each path.
            host: Address to listen on.
            port: Port to listen on; 0 takes any free port.
            connection_s: Longest life of a connection, s.
        """
        self.address = f"{host}:{port}"
        """Address to listen on, for messages; once the server listens, with the port that it has got."""
        self._pages = pages
        self._host = host
        self._port = port
        self._connection_s = connection_s
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            OSError: The address cannot be used.
        """
        server = _BoundedServer(self._answer, access_log=None, lingering_time=0, logger=log)
        server.connection_s = self._connection_s
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port: int = self._runner.addresses[0][1]
        self.address = f"{self._host}:{port}"
        return port

    async def stop(self) -> None:
        """Close all connections and listen no more."""
        if self._runner:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._page(request)
        response = web.Response(status=page.status, body=page.body, content_type=page.content_type, charset="utf-8")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if page.status == web.HTTPMethodNotAllowed.status_code:
            response.headers["Allow"] = "GET, HEAD"
        response.force_close()  # one request a connection, so that the limit of a connection bounds a request
        return response

    def _page(self, request: web.BaseRequest) -> Page:
        if not is_own_name(request.headers.get("Host", ""), self._host):
            return Page(421, b"this server has another name\n")
        if request.method not in {"GET", "HEAD"}:
            return Page(405, b"only GET and HEAD\n")
        make_page = self._pages.get(request.path)
        return make_page() if make_page else Page(404, f"pages: {', '.join(self._pages)}\n".encode())
