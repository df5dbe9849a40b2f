"""The tests' broker: the one that the environment names, else a container, else the embedded one."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.kafka.embedded import EmbeddedBroker

DOCKER_PING_SECONDS = 2
IMAGE = "confluentinc/cp-kafka:7.9.0"


@contextmanager
def running_broker(data: Path) -> Generator[str]:
    """Give the bootstrap servers of a real broker; one that was started here is stopped at the end."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield named
    elif docker_answers():
        # Imported where they are used: neither the environment's broker nor the embedded one needs them.
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415

        container = KafkaContainer(IMAGE).with_kraft()
        container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        container.with_env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        container.with_env("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000")
        container.with_env("KAFKA_MESSAGE_MAX_BYTES", str(MAX_RECORD_BYTES))
        with container:
            yield container.get_bootstrap_server()
    else:
        with embedded_broker(data) as broker:
            yield broker.bootstrap_servers


@contextmanager
def embedded_broker(data: Path) -> Generator[EmbeddedBroker]:
    """Give a broker of our own, and stop it at the end, even one that is held by SIGSTOP."""
    broker = EmbeddedBroker.start(data)
    try:
        yield broker
    finally:
        broker.stop()


def docker_answers() -> bool:
    """Say whether a Docker engine is there."""
    import docker  # noqa: PLC0415
    import docker.errors  # noqa: PLC0415

    try:
        client = docker.from_env(timeout=DOCKER_PING_SECONDS)
    except docker.errors.DockerException:
        return False
    try:
        return client.ping()
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()
