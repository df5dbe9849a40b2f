"""Waiting for a broker: an address without a broker is reported, and given up in time."""

import asyncio
import time

import pytest

from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.settings import KafkaSettings


def wait(bootstrap_servers: str, broker_wait_ms: int) -> str:
    """Return the message of the error after a wait in vain."""
    with pytest.raises(BrokerError) as refused:
        asyncio.run(wait_for_broker(KafkaSettings(bootstrap_servers=bootstrap_servers, broker_wait_ms=broker_wait_ms)))
    return str(refused.value)


def test_address_without_a_listener_is_named_with_the_reason_and_the_remedy() -> None:
    message = wait("127.0.0.1:9", 1)
    assert message.startswith("no Kafka broker answers at 127.0.0.1:9 (Connection refused), waited 0 s: ")
    assert "clickscore broker start" in message


def test_wait_is_reported_and_ends_at_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    started_at = time.monotonic()
    wait("127.0.0.1:9,127.0.0.1:10", 3_000)
    assert time.monotonic() - started_at >= 3
    words = capsys.readouterr().err
    assert words.startswith("Waiting for Kafka at 127.0.0.1:9,127.0.0.1:10, ")
    assert words.endswith(" of 3 s: Connection refused\n")
