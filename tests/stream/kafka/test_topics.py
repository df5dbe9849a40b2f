"""Topics: the request that creates a topic, and the differences of an existing topic."""

import pytest

from clickscore.schemas.topics import CATALOGUE, EVENTS, MAX_RECORD_BYTES, SNAPSHOTS, TOPICS, Topic
from clickscore.stream.kafka.topics import REFERENCE_TOPICS, _advice, _differences, _new_topic, describe_missing_topic
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


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_bounds_how_long_a_removed_value_stays_on_disk(topic: Topic) -> None:
    config = _new_topic(KafkaSettings(), topic).topic_configs
    assert int(config["segment.ms"]) <= 86_400_000
    if config["cleanup.policy"] == "compact":
        day = 86_400_000
        longest = 8 * day if topic in REFERENCE_TOPICS else day  # no personal data, and replays need old values
        assert int(config["min.compaction.lag.ms"]) < int(config["max.compaction.lag.ms"]) <= longest
        assert int(config["delete.retention.ms"]) <= 86_400_000


@pytest.mark.parametrize(
    ("retention_ms", "segment_ms"), [(60_000, "60000"), (7 * 86_400_000, "86400000"), (-1, "86400000")]
)
def test_segment_is_no_longer_than_retention(retention_ms: int, segment_ms: str) -> None:
    settings = KafkaSettings(retention_ms=retention_ms)
    assert _new_topic(settings, EVENTS).topic_configs["segment.ms"] == segment_ms


@pytest.mark.parametrize(
    ("retention_ms", "lags"),
    [(60_000, ("60000", str(86_400_000 + 60_000))), (-1, (str(2**63 - 1), str(2**63 - 1)))],
)
@pytest.mark.parametrize("topic", REFERENCE_TOPICS, ids=lambda topic: topic.name)
def test_old_values_of_the_catalogue_stay_for_as_long_as_the_events(
    topic: Topic, retention_ms: int, lags: tuple[str, str]
) -> None:
    config = _new_topic(KafkaSettings(retention_ms=retention_ms), topic).topic_configs
    assert (config["min.compaction.lag.ms"], config["max.compaction.lag.ms"]) == lags


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (dict(SNAPSHOTS.config), []),
        ({}, []),  # the broker shows no config
        ({"max.compaction.lag.ms": "60000", "segment.ms": "60000"}, []),  # shorter than asked for
        ({"min.cleanable.dirty.ratio": "0.5"}, ["min.cleanable.dirty.ratio=0.5 is more than 0.1"]),
        (
            {"max.compaction.lag.ms": "9223372036854775807"},
            ["max.compaction.lag.ms=9223372036854775807 is more than 86400000"],
        ),
    ],
)
def test_advice_for_a_compacted_topic_that_keeps_removed_values(config: dict[str, str], advice: list[str]) -> None:
    requested = _new_topic(SETTINGS, SNAPSHOTS)
    assert _advice(requested, config) == advice
    assert _differences(requested, 8, config) == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("shop-ad-decisions", "Make it with `clickscore topics create`, or correct topic_prefix"),
        ("ad-decisions", "`clickscore topics list` shows the topics of the installation"),  # without the prefix
    ],
)
def test_missing_topic_of_the_installation_can_be_made_and_another_is_to_be_corrected(name: str, advice: str) -> None:
    assert describe_missing_topic(SETTINGS, name) == f"topic {name} is missing. {advice}"
