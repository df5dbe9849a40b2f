"""Revoked rights: a right that is taken away from a running worker ends it with one line that names the right."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import CATALOGUE, EVENTS, RECOMMENDATIONS
from clickscore.stream.kafka.embedded import EmbeddedBroker, SecurityOptions
from clickscore.stream.simulator.worker_process import free_port
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import Worker, installation

pytestmark = pytest.mark.kafka

TOPIC, GROUP = 2, 3
READ, WRITE = 3, 4
LITERAL, PREFIXED = 3, 4
DENY, ALLOW = 2, 3
ENDS_S = 25
"""The worker ends within a few seconds; the machine may be busy."""


class Guarded:
    """A broker with rights: a listener without a login for the test, which may do everything, and one for `ann`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port("127.0.0.1")
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        properties = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": f'{module} required user_ann="secret";',
        }
        security = SecurityOptions(listeners={"LOGIN": ("SASL_PLAINTEXT", self.port)}, properties=properties)
        self.broker = EmbeddedBroker.start(folder / "kafka", security=security)

    def rule(self, permission: int, kind: int, name: str, operation: int, pattern: int = LITERAL) -> None:
        """Allow or deny an operation for `ann`."""

        async def add() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
            await admin.start()
            try:
                request = CreateAclsRequest(kind, name, pattern, "User:ann", "*", operation, permission)
                assert not (await admin._send_request(request)).creation_responses[0][0]
            finally:
                await admin.close()

        asyncio.run(add())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Start a broker with rights."""
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        yield guarded
    finally:
        guarded.broker.stop()


def view(number: int) -> Sent:
    event = View(event_id=f"e-{number}", user_id="anna", ts=BEGAN + number * 1_000, item_id="kettle")
    return Sent(encode_event(event), b"anna", 0)


@pytest.mark.parametrize(
    ("topic", "operation", "words"),
    [
        (EVENTS.name, READ, "read on topic {}"),
        (RECOMMENDATIONS.name, WRITE, "write on topic {}"),
        (CATALOGUE.name, READ, "read on topic {}"),
        ("", READ, "read on group {}"),
    ],
    ids=["events", "decisions", "catalogue", "group"],
)
def test_worker_names_the_right_that_it_has_lost(
    topic: str, operation: int, words: str, guarded: Guarded, tmp_path: Path
) -> None:
    with installation(guarded.broker.bootstrap_servers, tmp_path, partitions=1, tick_after_ms=0) as live:
        prefix = live.settings.kafka.topic_prefix
        for kind, right in ((TOPIC, READ), (TOPIC, WRITE), (GROUP, READ)):
            guarded.rule(ALLOW, kind, prefix, right, PREFIXED)
        login = {
            "bootstrap_servers": f"127.0.0.1:{guarded.port}",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_username": "ann",
            "sasl_password": "secret",
            "session_timeout_ms": 6_000,
        }
        worker = live.start_worker(**login)
        live.produce([view(0)])
        live.wait_decisions(1)
        name = prefix + topic if topic else live.settings.worker.group
        guarded.rule(DENY, TOPIC if topic else GROUP, name, operation)
        live.produce([Sent(b"no event", b"anna", 0), view(1)])
        ended(worker, words.format(name))


def ended(worker: Worker, words: str) -> None:
    """Check that a worker ends with words, without a traceback."""
    started_at = time.monotonic()
    code = worker.wait(ENDS_S)
    last = worker.output.splitlines()[-1]
    assert code == 1
    assert words in last, worker.output[-3_000:]
    assert "Traceback" not in worker.output, worker.output[-6_000:]
    assert time.monotonic() - started_at < ENDS_S
