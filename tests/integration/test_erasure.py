"""Erasure on a real broker: receipts with the ids that remain, and at last no byte of the user on the broker's disk."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.erasure import Erased, Remains, decode_receipt
from clickscore.schemas.events import Purchase, View, encode_event
from clickscore.schemas.sessions import decode_session
from clickscore.schemas.topics import (
    ADS,
    CLOSED_SESSIONS,
    ERASURE_RECEIPTS,
    EVENTS,
    RECOMMENDATIONS,
    SNAPSHOTS,
    TOPICS,
    Topic,
)
from clickscore.stream.__main__ import cli
from clickscore.stream.kafka.embedded import EmbeddedBroker, SecurityOptions, log_file
from clickscore.stream.kafka.topics import create_topics
from clickscore.stream.settings import Settings
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import Installation

pytestmark = pytest.mark.kafka

USER = "forget-me-4711"
GONE_S = 60
SHORT = {"segment.ms": "300", "file.delete.delay.ms": "100"}
RETAINED = {"retention.ms": "1000"}
COMPACTED = {
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "300",
    "delete.retention.ms": "300",
    "min.cleanable.dirty.ratio": "0.01",
}


@pytest.fixture(scope="module")
def hasty_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that cleans and deletes within a second."""
    properties = {
        "log.cleaner.backoff.ms": "100",
        "log.retention.check.interval.ms": "200",
        "log.initial.task.delay.ms": "1000",  # Kafka waits 30 s before the first deletion
    }
    broker = EmbeddedBroker.start(tmp_path_factory.mktemp("kafka"), security=SecurityOptions(properties=properties))
    try:
        yield broker
    finally:
        broker.stop()


def view(user: str, number: int) -> Sent:
    event = View(event_id=f"{user}-{number}", user_id=user, ts=BEGAN + number * 1000, item_id=f"item-{number}")
    return Sent(encode_event(event), user.encode())


def purchase(user: str, number: int) -> Sent:
    event = Purchase(event_id=f"{user}-{number}", user_id=user, ts=BEGAN + number * 1000, item_id=f"item-{number}")
    return Sent(encode_event(event), user.encode())


def is_compacted(topic: Topic) -> bool:
    return topic.config["cleanup.policy"] == "compact"


def hasty(topic: Topic) -> Topic:
    times = COMPACTED if is_compacted(topic) else RETAINED
    return msgspec.structs.replace(topic, config={**topic.config, **SHORT, **times})


def files_with(folder: Path, text: bytes) -> list[str]:
    """Return the files of a broker with a text, its own log file apart."""
    found: list[str] = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and path != log_file(folder) and text in path.read_bytes():
                found.append(str(path.relative_to(folder)))
        except FileNotFoundError:  # deleted meanwhile
            continue
    return found


def flags(settings: Settings) -> list[str]:
    return ["--bootstrap-servers", settings.kafka.bootstrap_servers, "--topic-prefix", settings.kafka.topic_prefix]


def test_erased_user_is_on_no_disk_of_the_broker_in_the_end(hasty_broker: EmbeddedBroker, tmp_path: Path) -> None:
    settings = Settings.of(
        bootstrap_servers=hasty_broker.bootstrap_servers, partitions=2, broker_wait_ms=30_000, commit_interval_ms=300
    )
    asyncio.run(create_topics(settings.kafka, [hasty(topic) if is_compacted(topic) else topic for topic in TOPICS]))
    shop = Installation(settings, tmp_path)
    try:
        worker = shop.start_worker()
        worker.wait_restored()
        shop.fill_catalogue([], [Campaign(campaign_id="c", item_id="cup", bid=1.0)])
        worker.wait_health(lambda health: health.get("catalogue_updates", 1) >= 1)
        sessions = [view(USER, 0), view(USER, 4000), view(USER, 4001), purchase(USER, 4002)]
        shop.produce([*sessions, view("other", 4003)])
        shop.wait_finished()
        assert {name.split("/")[-2].rpartition("-")[0] for name in files_with(hasty_broker.data, USER.encode())} >= {
            topic.name for topic in (EVENTS, RECOMMENDATIONS, CLOSED_SESSIONS, SNAPSHOTS)
        }

        result = CliRunner().invoke(cli, ["erase", USER, "--json", *flags(settings)])
        assert result.exit_code == 0, result.output
        (listed,) = json.loads(result.stdout).values()
        decided = [
            decode_decision(record.value).decision_id
            for topic in (RECOMMENDATIONS, ADS)
            for records in shop.read(topic).values()
            for record in records
            if record.key == USER.encode()
        ]
        closed = [
            decode_session(record.value).id
            for records in shop.read(CLOSED_SESSIONS).values()
            for record in records
            if record.key == USER.encode()
        ]
        assert sorted(listed["decisions"] + listed["ads"]) == sorted(decided)
        assert (len(listed["decisions"]), listed["sessions"], len(closed)) == (4, closed, 1)
        receipts = [
            decode_receipt(record.value) for records in shop.read(ERASURE_RECEIPTS).values() for record in records
        ]
        assert sum(isinstance(receipt, Erased) for receipt in receipts) == settings.kafka.partitions
        (remains,) = [receipt for receipt in receipts if isinstance(receipt, Remains)]
        assert list(remains.decisions) == listed["decisions"]
        assert CliRunner().invoke(cli, ["erase", "--pending", "--json", *flags(settings)]).stdout.strip() == "{}"

        shorten(settings)
        wait_gone(shop, hasty_broker.data)
    finally:
        shop.end_workers()


def shorten(settings: Settings) -> None:
    """Let the records of all topics end within seconds."""

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        await admin.start()
        try:
            resources = [
                ConfigResource(ConfigResourceType.TOPIC, settings.kafka.topic(topic.name), configs=hasty(topic).config)
                for topic in TOPICS
            ]
            await admin.alter_configs(resources)
        finally:
            await admin.close()

    asyncio.run(run())


def wait_gone(shop: Installation, folder: Path) -> None:
    """Wait until no file has the user's id, while other users keep the segments rolling."""
    deadline = time.monotonic() + GONE_S
    number = 4100
    while found := files_with(folder, USER.encode()):
        assert time.monotonic() < deadline, found
        number += 1
        shop.produce([view(user, number) for user in ("other", "another", "third", "fourth")])
        time.sleep(0.2)
