"""Fixtures that every test may use. A test that takes a broker is marked `kafka`."""

import ast
import asyncio
import signal
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings
from tests.brokers import embedded_broker, running_broker
from tests.collector import Collector

# No test asserts how fast an example is drawn or run: other programs may hold the processor meanwhile.
hypothesis.settings.register_profile(
    "busy machine",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=(hypothesis.HealthCheck.too_slow,),
)
hypothesis.settings.load_profile("busy machine")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Skip the files marked `train` where torch is not installed: they import torch at their top."""
    if collection_path.suffix != ".py" or find_spec("torch"):
        return None
    tree = ast.parse(collection_path.read_text(encoding="utf-8"))
    marks = [node.value for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)]
    return True if any("mark.train" in ast.unparse(mark) for mark in marks) else None


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let Ctrl-C reach the programs under test, also where a shell that ignores it runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a real broker that all tests share."""
    with running_broker(tmp_path_factory.mktemp("kafka")) as bootstrap_servers:
        yield bootstrap_servers


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker for this test alone, to stop, hold and kill."""
    with embedded_broker(tmp_path / "kafka") as running:
        yield running


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector of OpenTelemetry's spans."""
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def settings(broker: str, topic_prefix: str) -> Iterator[Settings]:
    """Settings of an installation of this test's own: fresh topics with four partitions, and a fresh group."""
    own = Settings.of(
        bootstrap_servers=broker, topic_prefix=topic_prefix, group=f"{topic_prefix}workers", broker_wait_ms=15_000
    )
    asyncio.run(create_topics(own.kafka))
    yield own
    asyncio.run(delete_topics(own.kafka))
