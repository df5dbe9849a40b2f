"""Kafka client arguments: brokers, TLS, SASL and retry backoff, the same for every client."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from clickscore.stream.errors import SettingsError
from clickscore.stream.settings import KafkaSettings

MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""Largest request of a producer, bytes: twice the largest record batch (`schemas.topics.MAX_RECORD_BYTES`)."""

RETRY_SECONDS = 0.2
"""Pause between two attempts of a producer to find a broker while no broker answers."""

STOP_SECONDS = 1.0
"""Longest wait for the end of a client that has nothing more to send, s."""


async def stop_client(client: AIOKafkaConsumer | AIOKafkaProducer, seconds: float = STOP_SECONDS) -> None:
    """Stop a client, whatever the broker does.

    Under TLS, while data is on its way, aiokafka waits up to 30 s for the broker to close the connection. Without a
    broker it cancels its own requests, and their cancellation comes out of its `stop`: it must not end the caller.

    Args:
        client: The client.
        seconds: Longest wait, s.
    """
    stopping = asyncio.ensure_future(client.stop())
    stopping.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({stopping}, timeout=seconds)
    stopping.cancel()


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context of the settings; None for a connection without TLS.

    Raises:
        SettingsError: A file of certificates cannot be read.
    """
    if "SSL" not in settings.security_protocol.split("_"):
        return None
    _check_readable("ssl_certfile", settings.ssl_certfile)
    _check_readable("ssl_keyfile", settings.ssl_keyfile)
    context = ca_context(settings.ssl_cafile)
    if settings.ssl_certfile:
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, password="")
        except ssl.SSLError as exc:
            message = (
                f"ssl_certfile ({settings.ssl_certfile}) and ssl_keyfile ({settings.ssl_keyfile or 'the same file'}) "
                f"are no certificate in PEM form with its key, without a password ({exc.reason or exc})"
            )
            raise SettingsError(message) from exc
    return context


def ca_context(ssl_cafile: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of a file, or those of the system where the name is empty.

    Raises:
        SettingsError: The file cannot be read, or has no certificate.
    """
    _check_readable("ssl_cafile", ssl_cafile)
    try:
        return ssl.create_default_context(cafile=ssl_cafile or None)
    except ssl.SSLError as exc:
        message = f"ssl_cafile ({ssl_cafile}) has no certificate in PEM form ({exc.reason or exc})"
        raise SettingsError(message) from exc


def _check_readable(name: str, path: str) -> None:
    if path:
        try:
            Path(path).read_bytes()
        except OSError as exc:
            message = f"{name} ({path}) cannot be read: {exc.strerror}"
            raise SettingsError(message) from exc


def client_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that connect any aiokafka client: brokers, TLS and SASL."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if settings.security_protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password,
        }
    return arguments


def consumer_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that connect a consumer: `client_arguments` and the isolation level."""
    return client_arguments(settings) | {"isolation_level": settings.isolation_level}


def with_retry_backoff(producer: AIOKafkaProducer) -> AIOKafkaProducer:
    """Return the same producer, with a pause between the attempts to find a broker.

    Without the pause aiokafka's sender asks again at once while no broker answers: 7,000 times a second (measured).
    That keeps a whole core busy.
    """
    client: Any = producer.client
    update_metadata = client._metadata_update  # noqa: SLF001

    async def update_with_backoff(*args: Any) -> bool:  # noqa: ANN401 (aiokafka's own)
        updated: bool = await update_metadata(*args)
        if not updated:
            await asyncio.sleep(RETRY_SECONDS)
        return updated

    client._metadata_update = update_with_backoff  # noqa: SLF001
    return producer
