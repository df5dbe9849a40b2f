"""Broker availability: wait until a Kafka broker answers a client's handshake."""

import asyncio
import os
import sys
import time

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.client import client_arguments
from clickscore.stream.settings import KafkaSettings

REPORT_SECONDS = 2.0
"""Time between two lines on stderr while waiting."""
HANDSHAKE_SECONDS = 10.0
"""Timeout of an attempt to connect."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0
"""Pause after the first failed attempt, and the limit up to which the pause doubles."""


async def wait_for_broker(settings: KafkaSettings) -> None:
    """Return once a broker answers a client; write a line to stderr every few seconds of waiting.

    Raises:
        BrokerError: No broker answered within `broker_wait_ms`.
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


def _describe(error: KafkaError | OSError) -> str:
    """Return the reason of a failed attempt in words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def _handshake(settings: KafkaSettings) -> None:
    """Connect, log in and ask for metadata.

    Raises:
        OSError: No broker listens, or no broker answers in time.
        KafkaError: The broker refuses, or is not ready.
    """
    # The client would log each refused connection as an error, so a plain connection is tried first.
    await _connect(settings.bootstrap_servers)
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await admin.start()
            cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    if not cluster["brokers"]:
        message = "the cluster has no broker yet"
        raise ConnectionError(message)


async def _connect(bootstrap_servers: str) -> None:
    """Return once any broker has accepted a connection.

    Raises:
        OSError: No broker accepts a connection.
    """
    failure: OSError = ConnectionError(f"no broker in {bootstrap_servers!r}")
    for host, port, _ in collect_hosts(bootstrap_servers):
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
        except OSError as exc:
            failure = exc
        else:
            writer.close()
            return
    raise failure
