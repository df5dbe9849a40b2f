"""Programs in Java, Node and Go: events go to the partitions of their users, and the decisions come from there."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import decode_record
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.kafka.partitioner import partition_of
from tests.integration.live import ROOT, Installation, Records, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

USERS = ["anna", "user-1", "user-2", "user-3", "Zoë", "Борис", "愛", "0d6f0a5e-4b8f-4d2c-9a43-8f7f6f3f7a10"]
"""Murmur2 works on bytes: letters outside of ASCII find an implementation that takes bytes as signed numbers."""


@dataclass(frozen=True)
class Client:
    """How the program of a language is built and run, in a copy of its folder."""

    language: str
    tools: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]


CLIENTS = [
    Client(
        "java",
        ("java", "mvn"),
        ("mvn", "-q", "-B", "compile", "dependency:copy-dependencies"),
        ("java", "-Dstdout.encoding=UTF-8", "-cp", "target/classes:target/dependency/*", "ShopClient"),
    ),
    Client("node", ("node", "npm"), ("npm", "install", "--no-audit", "--no-fund"), ("node", "shop_client.js")),
    Client("go", ("go",), ("go", "build", "-o", "shop-client", "."), ("./shop-client",)),
]


@pytest.fixture(scope="module")
def live(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation with a worker for the programs of all languages."""
    bundle = ROOT / "stream" / "bundles" / "demo"
    with installation(broker, tmp_path_factory.mktemp("clients"), bundle=str(bundle)) as running:
        running.start_worker().wait_restored()
        yield running


def built(client: Client) -> Path:
    """Return a folder with the built program; it stays for the next run of the tests, until a source changes."""
    missing = [tool for tool in client.tools if not shutil.which(tool)]
    if missing:
        pytest.skip(f"no {' and '.join(missing)} on this machine")
    sources = ROOT / "docs" / "clients" / client.language
    digest = hashlib.sha256(repr(client).encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "clients" / f"{client.language}-{digest.hexdigest()[:12]}"
    if not (folder / ".done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sources, folder)
        result = subprocess.run(client.build, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        (folder / ".done").touch()
    return folder


def published(records: Records, users: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Return the partition and the items of each user's decision, found by the id of the user's event."""
    decisions = [(partition, decode_decision(record.value)) for partition in records for record in records[partition]]
    return {
        users[decision.event_id]: (partition, ", ".join(item.item_id for item in decision.items))
        for partition, decision in decisions
        if isinstance(decision, Recommendation) and decision.event_id in users
    }


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.language)
def test_program_reads_the_decisions_of_its_events_from_the_partitions_of_the_users(
    client: Client, live: Installation
) -> None:
    folder = built(client)
    users = [f"{user}-{client.language}" for user in USERS]
    kafka = live.settings.kafka
    result = subprocess.run(
        [*client.run, *users],
        cwd=folder,
        env={
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "CLICKSCORE_TOPIC_PREFIX": kafka.topic_prefix,
        },
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr

    expected = {user: partition_of(user.encode(), kafka.partitions) for user in users}
    assert len(set(expected.values())) >= 3
    sent: dict[str, str] = {}
    for partition, records in live.read(EVENTS).items():
        for record in records:
            event = decode_record(record.value)
            if getattr(event, "user_id", "") in expected:
                assert record.key == event.user_id.encode()
                assert partition == expected[event.user_id]
                sent[event.event_id] = event.user_id
    assert sorted(sent.values()) == sorted(users)

    printed = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert {user: (expected[user], items.strip("[]")) for user, items in printed.items()} == published(
        live.read(RECOMMENDATIONS), sent
    )
    assert printed.keys() == expected.keys()
    assert all(printed.values())
    assert result.stderr == ""
