"""Broker availability: wait until a Kafka broker answers a client's handshake."""

import asyncio
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.client import client_arguments, ssl_context
from clickscore.stream.kafka.refusals import refusal
from clickscore.stream.settings import KafkaSettings

REPORT_SECONDS = 2.0
"""Time between two lines on stderr while waiting."""
HANDSHAKE_SECONDS = 10.0
"""Timeout of an attempt to connect."""
PROBE_SECONDS = 3.0
"""Timeout of a question to a port about its protocol."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0
"""Pause after the first failed attempt, and the limit up to which the pause doubles."""


async def wait_for_broker(settings: KafkaSettings) -> None:
    """Return once a broker answers a client; write a line to stderr every few seconds of waiting.

    Raises:
        BrokerError: No broker answered within `broker_wait_ms`, or a broker refuses the client, which ends the wait.
    """
    started_at = reported_at = time.monotonic()
    limit, pause = settings.broker_wait_ms / 1000, MIN_PAUSE_SECONDS
    while True:
        try:
            await _handshake(settings)
        except (KafkaError, OSError) as exc:
            reason = _describe(exc)
        else:
            return
        now = time.monotonic()
        if now - started_at >= limit:
            message = (
                f"no Kafka broker answers at {settings.bootstrap_servers} ({reason}), waited {now - started_at:.0f} s: "
                "start one with `clickscore broker start`, or say where yours is with --bootstrap-servers"
            )
            raise BrokerError(message)
        if now - reported_at >= REPORT_SECONDS:
            reported_at = now
            waited = f"{now - started_at:.0f} s of {limit:.0f} s"
            sys.stderr.write(f"Waiting for Kafka at {settings.bootstrap_servers}, {waited}: {reason}\n")
        await asyncio.sleep(min(pause, max(0.0, started_at + limit - now)))
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _describe(error: Exception) -> str:
    """Return the reason of a failed attempt in words."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "the host name is unknown"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def _handshake(settings: KafkaSettings) -> None:
    """Connect to any broker, log in and ask for the brokers of the cluster.

    Raises:
        BrokerError: A broker refuses the client, and waiting would not help.
        OSError: No broker listens, or no broker answers in time.
        KafkaError: The broker is not ready.
    """
    failure: Exception = ConnectionError(f"no broker in {settings.bootstrap_servers!r}")
    cause = None
    for host, port, _ in collect_hosts(settings.bootstrap_servers):
        try:
            await _ask_for_brokers(host, port, settings)
        except (KafkaError, OSError) as exc:
            failure = exc
            cause = cause or refusal(exc, settings) or await _other_protocol(host, port, exc, settings)
        else:
            return
    if cause:
        message = f"Kafka at {settings.bootstrap_servers}: {cause}"
        raise BrokerError(message) from failure
    raise failure


async def _ask_for_brokers(host: str, port: int, settings: KafkaSettings) -> None:
    """Open a connection of its own, because aiokafka's client logs each failure and keeps the cause to itself.

    Args:
        host: Host of the broker.
        port: Port of the broker.
        settings: Login and certificates.
    """
    async with _connection(host, port, **_connection_arguments(settings)) as connection:
        response = await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
    if not response.brokers:
        message = "the cluster has no broker yet"
        raise ConnectionError(message)


async def _other_protocol(host: str, port: int, error: Exception, settings: KafkaSettings) -> str | None:
    """Return the protocol that a port speaks in place of the configured protocol, in words.

    A broker closes a connection of another protocol without a word, as a broker that stops does. So the port is asked.

    Args:
        host: Host of the broker.
        port: Port of the broker.
        error: Error of the attempt with the configured protocol.
        settings: Configured protocol.
    """
    if isinstance(error, ConnectionRefusedError | socket.gaierror):
        return None
    sasl, _, transport = settings.security_protocol.rpartition("_")
    login = "SASL_" if sasl else ""
    is_tls = transport == "SSL"
    if is_tls and await _speaks_plaintext(host, port):
        return f"this port of the broker speaks no TLS. Set security_protocol={login}PLAINTEXT, or use another port"
    if not is_tls and await _speaks_tls(host, port):
        return f"this port of the broker speaks TLS. Set security_protocol={login}SSL, or use another port"
    if not sasl and (mechanisms := await _login_methods(host, port, settings)):
        return (
            f"this port of the broker wants a login by {' or '.join(mechanisms)}. Set "
            f"security_protocol=SASL_{transport}, "
            "sasl_mechanism, sasl_username and sasl_password"
        )
    return None


async def _speaks_plaintext(host: str, port: int) -> bool:
    try:
        async with _connection(host, port):  # asks for the versions of the protocol
            return True
    except (KafkaError, OSError):
        return False


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent over this connection
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def _login_methods(host: str, port: int, settings: KafkaSettings) -> list[str]:
    arguments = {"security_protocol": settings.security_protocol, "ssl_context": ssl_context(settings)}
    try:
        async with _connection(host, port, **arguments) as connection:
            response = await connection.send(SaslHandShakeRequest("PLAIN"))
    except (KafkaError, OSError):
        return []
    return list(response.enabled_mechanisms or ())


def _connection_arguments(settings: KafkaSettings) -> dict[str, Any]:
    return {name: value for name, value in client_arguments(settings).items() if name != "bootstrap_servers"}


@asynccontextmanager
async def _connection(host: str, port: int, **arguments: Any) -> AsyncGenerator[Any]:  # noqa: ANN401 (aiokafka's own)
    async with asyncio.timeout(HANDSHAKE_SECONDS if arguments else PROBE_SECONDS):
        connection = await create_conn(host, port, **arguments)
        try:
            yield connection
        finally:
            connection.close()
