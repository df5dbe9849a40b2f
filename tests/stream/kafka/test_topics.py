"""Topics: the request that creates a topic, and the differences of an existing topic."""

import pytest

from clickscore.schemas.topics import CATALOGUE, EVENTS, MAX_RECORD_BYTES
from clickscore.stream.kafka.topics import _differences, _new_topic
from clickscore.stream.settings import KafkaSettings

SETTINGS = KafkaSettings(topic_prefix="shop-", partitions=8, retention_ms=60_000)


def test_user_keyed_topic_has_the_partitions_prefix_and_retention_of_the_settings() -> None:
    requested = _new_topic(SETTINGS, EVENTS)
    assert (requested.name, requested.num_partitions) == ("shop-clickstream-events", 8)
    assert requested.topic_configs["retention.ms"] == "60000"


def test_compacted_topic_of_the_catalogue_has_one_partition_and_no_retention() -> None:
    requested = _new_topic(SETTINGS, CATALOGUE)
    assert requested.num_partitions == 1
    assert "retention.ms" not in requested.topic_configs


@pytest.mark.parametrize(
    ("partitions", "config", "differences"),
    [
        (8, dict(EVENTS.config), []),
        (8, {}, []),  # the broker shows no config
        (4, {}, ["has 4 partitions, not 8"]),
        (8, {"cleanup.policy": "compact"}, ["has cleanup.policy=compact, not delete"]),
        (8, {"message.timestamp.type": "CreateTime"}, ["has message.timestamp.type=CreateTime, not LogAppendTime"]),
        (8, {"max.message.bytes": "1000"}, [f"has max.message.bytes=1000, less than {MAX_RECORD_BYTES}"]),
        (8, {"max.message.bytes": str(2 * MAX_RECORD_BYTES)}, []),
        (8, {"retention.ms": "1"}, []),  # the owner's choice
    ],
)
def test_differences_of_an_existing_topic(partitions: int, config: dict[str, str], differences: list[str]) -> None:
    assert _differences(_new_topic(SETTINGS, EVENTS), partitions, config) == differences
