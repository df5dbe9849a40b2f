"""Web pages over raw sockets: foreign names, slow clients and half requests; nothing here needs a broker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import uvloop

from clickscore.stream.host_names import is_own_name
from clickscore.stream.worker.web import Page, WebServer

PAGES: Mapping[str, Callable[[], Page]] = {
    "/health": lambda: Page(503, b'{"alive":true}', "application/json"),
    "/broken": lambda: Page(1 // 0, b""),
    "/large": lambda: Page(200, b"x" * 50_000_000),
}
CONNECTION_S = 1.5
PATIENCE_S = 10.0
LOCAL = b"Host: 127.0.0.1:6066\r\n"


def with_server(use: Callable[[int], Awaitable[Any]]) -> Any:
    """Return what `use` makes of the port of a running server."""

    async def run() -> Any:
        server = WebServer(PAGES, "127.0.0.1", 0, connection_s=CONNECTION_S)
        port = await server.start()
        try:
            return await use(port)
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the event loop of a worker
        return runner.run(run())


async def send(port: int, request: bytes) -> bytes:
    """Return all bytes that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def write_until(writer: asyncio.StreamWriter, deadline: float) -> None:
    """Write until the connection breaks, or a deadline."""
    while time.monotonic() < deadline:
        writer.write(b"more")
        await asyncio.sleep(0.05)
        await writer.drain()


def answer(request: bytes) -> bytes:
    return with_server(lambda port: send(port, request))


def test_page_has_status_type_and_body_and_ends_the_connection() -> None:
    head, body = answer(b"GET /health?x=1 HTTP/1.1\r\n" + LOCAL + b"\r\n").split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Content-Type: application/json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert body == b'{"alive":true}'


def test_address_has_the_port_that_the_server_has_got() -> None:
    async def run() -> tuple[str, int]:
        server = WebServer({}, "127.0.0.1", 0)
        port = await server.start()
        await server.stop()
        return server.address, port

    address, port = asyncio.run(run())
    assert address == f"127.0.0.1:{port}"


def test_head_has_no_body() -> None:
    assert answer(b"HEAD /health HTTP/1.1\r\n" + LOCAL + b"\r\n").split(b"\r\n\r\n")[1] == b""


@pytest.mark.parametrize("path", [b"/", b"/table/", b"/router/", b"/health/", b"//health", b"/../health", b"/%2e"])
def test_other_paths_are_404(path: bytes) -> None:
    assert answer(b"GET " + path + b" HTTP/1.1\r\n" + LOCAL + b"\r\n").startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
def test_other_methods_are_405(method: bytes) -> None:
    head = answer(method + b" /health HTTP/1.1\r\n" + LOCAL + b"\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: GET, HEAD" in head


def test_body_of_a_request_is_not_waited_for() -> None:
    began = time.monotonic()
    request = b"POST /health HTTP/1.1\r\n" + LOCAL + b"Content-Length: 50000000\r\n\r\nbegin"
    assert answer(request).startswith(b"HTTP/1.1 405 ")
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize(
    "host", [b"evil.example", b"evil.example:6066", b"127.0.0.1.evil.example", b"[::1", b"10.0.0.1"]
)
def test_foreign_host_is_421(host: bytes) -> None:
    assert answer(b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("host", [b"localhost:9999", b"LOCALHOST", b"127.0.0.1", b"[::1]:6066"])
def test_names_of_loopback_are_served(host: bytes) -> None:
    assert answer(b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")


def test_request_of_http_1_0_needs_no_host() -> None:
    assert b" 503 " in answer(b"GET /health HTTP/1.0\r\n\r\n").split(b"\r\n")[0]


def test_server_on_another_address_is_called_by_any_name() -> None:
    assert is_own_name("shop-worker.internal:6066", "0.0.0.0")
    assert is_own_name("evil.example", "10.1.2.3")
    assert not is_own_name("evil.example", "localhost")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"],
    ids=["TLS", "no HTTP", "unknown version"],
)
def test_what_is_no_request_is_400(request_bytes: bytes) -> None:
    assert answer(request_bytes).startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize(
    "line", [b"GET /health HTTP/1.1 x", b"GET /%00\0 HTTP/1.1", b"G\0T / HTTP/1.1", b"GET / HTTP/9.9"]
)
@pytest.mark.parametrize("header", [b"", b"X: \0\r\n", b"no colon\r\n", b"Content-Length: -1\r\n"])
def test_broken_request_leaves_nothing_in_the_log(caplog: pytest.LogCaptureFixture, line: bytes, header: bytes) -> None:
    assert b" 400 " in answer(line + b"\r\n" + LOCAL + header + b"\r\n").split(b"\r\n")[0]
    assert caplog.records == []


def test_failing_page_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    request = b"GET /broken HTTP/1.1\r\n" + LOCAL + b"\r\n"
    assert b" 500 " in answer(request).split(b"\r\n")[0]
    assert "ZeroDivisionError" in caplog.text


def test_slow_requests_are_cut_off_while_others_are_answered() -> None:
    async def use(port: int) -> tuple[float, list[bytes]]:
        halves = [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"GET /large HTTP/1.1\r\n" + LOCAL]
        began = time.monotonic()
        slow = [asyncio.create_task(send(port, half)) for half in halves * 50]
        await asyncio.sleep(0.2)
        assert b" 503 " in await send(port, b"GET /health HTTP/1.1\r\n" + LOCAL + b"\r\n")
        answers = await asyncio.gather(*slow)
        return time.monotonic() - began, answers

    seconds, answers = with_server(use)
    assert not any(answers)
    assert seconds < PATIENCE_S


def test_client_that_drips_bytes_or_does_not_read_is_cut_off() -> None:
    async def use(port: int) -> float:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, unread = await asyncio.open_connection("127.0.0.1", port)
        unread.write(b"GET /large HTTP/1.1\r\n" + LOCAL + b"\r\n")
        writer.write(b"GET /health HTTP/1.1\r\nX: ")
        while not reader.at_eof() and not reader.exception():
            writer.write(b"a")
            await asyncio.sleep(0.2)
            assert time.monotonic() - began < PATIENCE_S
        writer.close()
        with pytest.raises(ConnectionError):
            await write_until(unread, began + 2 * PATIENCE_S)
        return time.monotonic() - began

    assert with_server(use) < 3 * PATIENCE_S
