"""Client arguments: brokers, TLS and SASL of the settings, and the pause of a producer without a broker."""

import asyncio
import ssl
import time

from aiokafka import AIOKafkaProducer

from clickscore.stream.kafka.client import RETRY_SECONDS, client_arguments, consumer_arguments, with_retry_backoff
from clickscore.stream.settings import KafkaSettings


def test_plain_connection_has_neither_tls_nor_a_login() -> None:
    assert client_arguments(KafkaSettings(bootstrap_servers="kafka:9092")) == {
        "bootstrap_servers": "kafka:9092",
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


def test_tls_connection_has_a_context_that_checks_certificates() -> None:
    context = client_arguments(KafkaSettings(security_protocol="SSL"))["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_sasl_connection_logs_in() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256", sasl_username="ann", sasl_password="secret"
    )
    arguments = client_arguments(settings)
    assert arguments["ssl_context"] is not None
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("ann", "secret")


def test_consumer_reads_committed_transactions_by_default() -> None:
    assert consumer_arguments(KafkaSettings())["isolation_level"] == "read_committed"


def test_producer_without_a_broker_pauses_between_its_attempts() -> None:
    async def attempt() -> float:
        producer = with_retry_backoff(AIOKafkaProducer(bootstrap_servers="127.0.0.1:9"))
        started_at = time.monotonic()
        assert await producer.client._metadata_update(producer.client.cluster, []) is False
        return time.monotonic() - started_at

    assert asyncio.run(attempt()) >= RETRY_SECONDS
