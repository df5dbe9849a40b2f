"""Kafka clients' common ground: one way to connect, with the same security and patience everywhere."""

import asyncio
import ssl
from typing import Any

from aiokafka import AIOKafkaProducer

from clickscore.stream.settings import KafkaSettings

MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""Above the largest record batch that a topic takes (`schemas.topics.MAX_RECORD_BYTES`)."""


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context that the settings ask for, none for plain connections."""
    if "SSL" not in settings.security_protocol.split("_"):
        return None
    context = ssl.create_default_context(cafile=settings.ssl_cafile or None)
    if settings.ssl_certfile:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None)
    return context


def connection(settings: KafkaSettings) -> dict[str, Any]:
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
    """Return the keyword arguments that connect a consumer: `connection`, and which transactions it reads."""
    return connection(settings) | {"isolation_level": settings.isolation_level}


RETRY_SECONDS = 0.2
"""Between two questions to brokers of whom none answers."""


def be_patient(producer: AIOKafkaProducer) -> AIOKafkaProducer:
    """Return the producer, with a pause between its tries to find a broker that is gone.

    Without it aiokafka's sender asks again at once: measured, 7,000 times a second, which takes a whole core.
    """
    client: Any = producer.client
    update_metadata = client._metadata_update  # noqa: SLF001

    async def update_patiently(*args: Any) -> bool:  # noqa: ANN401 (aiokafka's own)
        updated: bool = await update_metadata(*args)
        if not updated:
            await asyncio.sleep(RETRY_SECONDS)
        return updated

    client._metadata_update = update_patiently  # noqa: SLF001
    return producer
