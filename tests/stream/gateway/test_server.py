"""The server of the gateway over raw sockets: slow clients, many connections, bounds, TLS."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clickscore.stream.errors import SettingsError
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.server import MAX_HEADER_BYTES, serving
from clickscore.stream.settings import GatewaySettings
from tests.stream.gateway.running import RunningGateway, event, request_life, running_gateway

pytestmark = pytest.mark.slow  # requests are cut off after some time

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def with_gateway(work: Callable[[RunningGateway], Awaitable[Any]], **changes: Any) -> Any:
    async def run() -> Any:
        async with running_gateway(**changes) as gateway:
            return await work(gateway)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the event loop of the gateway
        return runner.run(run())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(signed.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return tmp_path / "cert.pem", tmp_path / "key.pem"


async def connect(gateway: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.address.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    """Return whether the server ends a connection within a time that only a hung server needs."""
    try:
        async with asyncio.timeout(20):
            while await reader.read(65_536):
                pass
    except ConnectionError:
        return True
    return True


async def ask_without_end(writer: asyncio.StreamWriter) -> None:
    """Send requests until the connection breaks: the answers fill all buffers, and then the server waits."""
    while True:
        writer.write(GET.replace(b"/health", b"/openapi.json") * 20)
        async with asyncio.timeout(60):
            await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /hea", GET[:-2], b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"],
)
def test_half_a_request_is_cut_off_even_if_more_comes_slowly(beginning: bytes) -> None:
    async def work(gateway: RunningGateway) -> None:
        with request_life(0.3):
            reader, writer = await connect(gateway)
            writer.write(beginning)
            ended = asyncio.create_task(is_cut_off(reader))
            while not ended.done():
                writer.write(b" " if b"POST" in beginning else b"")
                await asyncio.sleep(0.02)
            assert await ended
            writer.close()

    with_gateway(work)


def test_client_that_does_not_read_is_cut_off() -> None:
    async def work(gateway: RunningGateway) -> None:
        with request_life(0.3):
            reader, writer = await connect(gateway)
            reader._transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
            with pytest.raises(ConnectionError):
                await ask_without_end(writer)
            writer.close()
        assert (await gateway.get("/health")).status == 200

    with_gateway(work)


def test_connection_lives_longer_than_a_request() -> None:
    async def work(gateway: RunningGateway) -> None:
        with request_life(2):
            reader, writer = await connect(gateway)
            for _ in range(2):
                writer.write(GET)
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(2.1)
            writer.close()

    with_gateway(work)


def test_endless_headers_are_cut_off() -> None:
    async def work(gateway: RunningGateway) -> None:
        for endless in (b"x: " + b"a" * 1000 + b"\r\n", b""):
            reader, writer = await connect(gateway)
            path = b"" if endless else b"a" * MAX_HEADER_BYTES
            writer.write(b"GET /" + path + b" HTTP/1.1\r\n" + endless * 100)
            assert await is_cut_off(reader)
            writer.close()
        assert (await gateway.get("/health")).status == 200

    with_gateway(work)


def test_broken_requests_are_400() -> None:
    async def work(gateway: RunningGateway) -> None:
        for broken in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"HELLO\r\n\r\n", b"GET / HTTP/9\r\n\r\n"):
            reader, writer = await connect(gateway)
            writer.write(broken)
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()

    with_gateway(work)


def test_open_connections_do_not_hold_up_requests_and_the_excess_is_503() -> None:
    async def work(gateway: RunningGateway) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(300):
                _, writer = await connect(gateway)
                stack.callback(writer.close)
            assert (await gateway.post(event(), decide=True)).status == 200
            for _ in range(100):
                _, writer = await connect(gateway)
                stack.callback(writer.close)
            assert (await gateway.get("/health")).status == 503

    with_gateway(work, gateway_connections=350)


def test_many_slow_clients_do_not_hold_up_requests_and_are_cut_off() -> None:
    async def work(gateway: RunningGateway) -> None:
        with request_life(2):
            connections = [await connect(gateway) for _ in range(200)]
            for _, writer in connections:
                writer.write(GET[:-2])
            ended = [asyncio.create_task(is_cut_off(reader)) for reader, _ in connections]
            assert (await gateway.post(event(), decide=True)).status == 200
            while not all(task.done() for task in ended):
                for task, (_, writer) in zip(ended, connections, strict=True):
                    if not task.done():
                        writer.write(b"x")  # a header that never ends
                await asyncio.sleep(0.05)
            for _, writer in connections:
                writer.close()
        assert (await gateway.get("/health")).status == 200

    with_gateway(work)


def test_requests_in_a_row_are_answered_in_order() -> None:
    async def work(gateway: RunningGateway) -> None:
        await gateway.post(event())
        reader, writer = await connect(gateway)
        paths = (b"/health", b"/v1/users/anna/recommendations", b"/none")
        writer.write(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths))
        answers = [await reader.readuntil(b"}") for _ in range(1)]
        rest = b""
        while rest.count(b"HTTP/1.1") < 2 or b"openapi" not in rest:
            rest += await reader.read(65_536)
        assert b"kafka_answered_ms" in answers[0]
        assert rest.index(b"200 OK") < rest.index(b"404 Not Found")
        writer.close()

    with_gateway(work)


def test_tls(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = map(str, certificate)

    async def work(gateway: RunningGateway) -> None:
        assert gateway.address.startswith("https://")
        assert (await gateway.get("/health")).status == 200

    with_gateway(work, gateway_tls_certfile=certfile, gateway_tls_keyfile=keyfile)


@pytest.mark.parametrize(("certfile", "keyfile"), [("none.pem", ""), (__file__, ""), (__file__, "none.pem")])
def test_wrong_certificate_is_refused_with_words(certfile: str, keyfile: str) -> None:
    with pytest.raises(SettingsError, match="gateway_tls_certfile"):
        with_gateway(lambda _: asyncio.sleep(0), gateway_tls_certfile=certfile, gateway_tls_keyfile=keyfile)


def test_address_in_use_is_refused_with_words() -> None:
    async def work(gateway: RunningGateway) -> None:
        port = int(gateway.address.rpartition(":")[2])
        with pytest.raises(SettingsError, match="cannot listen"):
            async with serving(lambda *_: asyncio.sleep(0), GatewaySettings(gateway_port=port), GatewayMetrics()):  # pyright: ignore[reportArgumentType]
                pass
        with pytest.raises(SettingsError, match="cannot listen"):
            async with serving(
                lambda *_: asyncio.sleep(0), GatewaySettings(gateway_host="no.such.host.invalid"), GatewayMetrics()
            ):  # pyright: ignore[reportArgumentType]
                pass

    with_gateway(work)


def test_end_of_the_server_answers_the_requests_under_way() -> None:
    body = json.dumps(event()).encode()
    head = f"POST /v1/events?decide=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"

    async def run() -> bytes:
        async with running_gateway() as gateway:
            gateway.log.is_deciding = False
            reader, writer = await connect(gateway)
            writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            while not gateway.log.events:  # noqa: ASYNC110 (the log has no event for it)
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.3, gateway.log.decide, 0)
        answer = await reader.read()  # the server has ended
        writer.close()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200")
