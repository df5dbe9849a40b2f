"""Identity on a real broker: a worker that stops between a hand-over and its snapshot hands over once."""

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import encode_event
from clickscore.schemas.handover import PREFIX
from clickscore.schemas.topics import EVENTS, MAX_RECORD_BYTES, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.__main__ import cli
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.settings import Settings
from tests.events import view
from tests.integration.event_log import Sent
from tests.integration.live import Installation, installation

pytestmark = pytest.mark.kafka

COOKIE, USER = "cookie-1", "ann"


def sent(user: str, minute: float) -> Sent:
    return Sent(encode_event(view(user, minute, f"item-{minute:g}")), user.encode())


def limit_snapshots(settings: Settings, max_bytes: int) -> None:
    """Let the topic of snapshots take no larger record batch."""

    async def alter() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        await admin.start()
        try:
            name = settings.kafka.topic(SNAPSHOTS.name)
            config = {"cleanup.policy": "compact", "max.message.bytes": str(max_bytes)}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
        finally:
            await admin.close()

    asyncio.run(alter())


def handovers(shop: Installation) -> list[bytes]:
    records = shop.read(EVENTS)[partition_of(USER.encode(), shop.settings.kafka.partitions)]
    return [record.value for record in records if record.value.startswith(PREFIX)]


def test_session_is_handed_over_once_by_a_worker_that_stops_before_its_snapshot(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, partitions=2, instance_id="worker-1") as shop:
        assert partition_of(COOKIE.encode(), 2) != partition_of(USER.encode(), 2)
        worker = shop.start_worker()
        shop.produce([sent(COOKIE, 0), sent(COOKIE, 1)])
        shop.wait_settled()
        limit_snapshots(shop.settings, 1)
        flags = ["--bootstrap-servers", broker, "--topic-prefix", shop.settings.kafka.topic_prefix]
        result = CliRunner().invoke(cli, ["identify", COOKIE, USER, *flags])
        assert result.exit_code == 0, result.output
        assert worker.wait(60) == 1
        (first,) = handovers(shop)

        limit_snapshots(shop.settings, MAX_RECORD_BYTES)
        shop.start_worker()
        shop.wait_finished()
        shop.produce([sent(USER, 2)])
        shop.wait_finished()
        assert handovers(shop) == [first, first]
        decisions = [
            decode_decision(record.value) for records in shop.read(RECOMMENDATIONS).values() for record in records
        ]
        lengths = {decision.user_id: decision.session_length for decision in decisions}  # pyright: ignore[reportAttributeAccessIssue]
        assert lengths == {COOKIE: 2, USER: 3}

        checked = CliRunner().invoke(
            cli, ["replay", "kafka:clickstream-events", "--check", "kafka:recommendation-decisions", *flags]
        )
        assert checked.exit_code == 0, checked.output
