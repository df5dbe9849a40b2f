"""Topics on a real broker: made once, checked before a worker joins."""

import asyncio

import msgspec
import pytest
from click.testing import CliRunner

from clickscore.schemas.topics import CATALOGUE, DEAD_LETTERS, EVENTS, MAX_RECORD_BYTES, SNAPSHOTS, TOPICS
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.topics import check_topics, create_topics, delete_topics, list_topics
from clickscore.stream.settings import KafkaSettings

pytestmark = pytest.mark.kafka


def test_all_topics_are_made_once(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=3)
    assert {result.outcome for result in asyncio.run(create_topics(settings))} == {"created"}
    assert {result.outcome for result in asyncio.run(create_topics(settings))} == {"there already"}
    names = asyncio.run(list_topics(settings))
    assert {topic.name: names[settings.topic(topic.name)] for topic in TOPICS} == {
        topic.name: 3 if topic.per_user else 1 for topic in TOPICS
    }
    asyncio.run(delete_topics(settings))


def test_other_number_of_partitions_is_said_and_left_alone(broker: str, topic_prefix: str) -> None:
    three = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=3)
    asyncio.run(create_topics(three))
    five = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=5)
    outcomes = {result.name: result for result in asyncio.run(create_topics(five))}
    events = outcomes[five.topic(EVENTS.name)]
    assert (events.outcome, events.partitions, events.requested_partitions) == ("differs", 3, 5)
    assert outcomes[five.topic(CATALOGUE.name)].outcome == "there already"
    assert asyncio.run(check_topics(five)) == 3
    asyncio.run(delete_topics(three))


def test_missing_topic_is_named_with_the_command_that_makes_it(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix)
    asyncio.run(create_topics(settings, [topic for topic in TOPICS if topic is not DEAD_LETTERS]))
    with pytest.raises(TopicMissingError, match=f"{topic_prefix}dead-letters.*clickscore topics create"):
        asyncio.run(check_topics(settings))
    asyncio.run(delete_topics(settings))


def test_user_keyed_topic_with_other_partitions_is_refused(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=2)
    asyncio.run(create_topics(settings, [DEAD_LETTERS]))
    wider = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=4)
    asyncio.run(create_topics(wider))
    with pytest.raises(TopicMissingError, match=f"has 4, but {topic_prefix}dead-letters has 2"):
        asyncio.run(check_topics(wider))
    asyncio.run(delete_topics(wider))


def test_snapshots_that_are_not_compacted_are_refused(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix)
    losing = msgspec.structs.replace(SNAPSHOTS, config=EVENTS.config)
    asyncio.run(create_topics(settings, [losing]))
    outcomes = {result.name: result for result in asyncio.run(create_topics(settings))}
    assert outcomes[settings.topic(SNAPSHOTS.name)].differences == ("has cleanup.policy=delete, not compact",)
    with pytest.raises(TopicMissingError, match=f"must be compacted.*{topic_prefix}session-snapshots"):
        asyncio.run(check_topics(settings))
    asyncio.run(delete_topics(settings))


def test_retention_is_the_owners_choice(broker: str, topic_prefix: str) -> None:
    day = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, retention_ms=86_400_000)
    asyncio.run(create_topics(day))
    week = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, retention_ms=7 * 86_400_000)
    assert {result.outcome for result in asyncio.run(create_topics(week))} == {"there already"}
    asyncio.run(delete_topics(day))


def test_smaller_records_than_a_cycle_may_need_are_said(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix)
    small = msgspec.structs.replace(SNAPSHOTS, config={**SNAPSHOTS.config, "max.message.bytes": "1000000"})
    asyncio.run(create_topics(settings, [small]))
    (outcome,) = asyncio.run(create_topics(settings, [SNAPSHOTS]))
    assert outcome.differences == (f"has max.message.bytes=1000000, less than {MAX_RECORD_BYTES}",)
    asyncio.run(delete_topics(settings, [SNAPSHOTS]))


def test_command_says_what_was_made_and_what_is_otherwise(broker: str, topic_prefix: str) -> None:
    connection = ["--bootstrap-servers", broker, "--topic-prefix", topic_prefix]
    made = CliRunner().invoke(cli, ["topics", "create", "--partitions", "2", *connection])
    assert made.exit_code == 0
    assert made.output.count("created") == len(TOPICS)
    listed = CliRunner().invoke(cli, ["topics", "list", *connection])
    assert "   2 partitions" in listed.output
    assert "missing" not in listed.output
    second_run = CliRunner().invoke(cli, ["topics", "create", "--partitions", "3", *connection])
    assert second_run.exit_code == 1
    assert "clickstream-events has 2 partitions, not 3" in str(second_run.exception)
    asyncio.run(delete_topics(KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix)))
    assert CliRunner().invoke(cli, ["topics", "list", *connection]).output.count("missing") == len(TOPICS)


def test_topics_of_an_older_installation_stay_usable_and_the_time_on_disk_is_said(
    broker: str, topic_prefix: str
) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix)
    asyncio.run(create_topics(settings))
    older = {name: value for name, value in SNAPSHOTS.config.items() if not name.startswith(("max.comp", "segment"))}
    asyncio.run(delete_topics(settings, [SNAPSHOTS]))
    asyncio.run(create_topics(settings, [msgspec.structs.replace(SNAPSHOTS, config=older)]))
    where = ["--bootstrap-servers", broker, "--topic-prefix", topic_prefix]
    for command in ("create", "list"):
        result = CliRunner().invoke(cli, ["topics", command, *where])
        assert result.exit_code == 0
        (advice,) = [line for line in result.stderr.splitlines() if "stay on disk" in line]
        assert advice.startswith(f"{topic_prefix}session-snapshots: ")
        assert "max.compaction.lag.ms=9223372036854775807 is more than 86400000" in advice
    asyncio.run(delete_topics(settings))


def test_more_replicas_than_brokers_is_refused_in_words(broker: str, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap_servers=broker, topic_prefix=topic_prefix, replication=100)
    with pytest.raises(BrokerError, match=r"cannot be made: .*replica"):
        asyncio.run(create_topics(settings))


def test_waiting_for_an_absent_broker_ends_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = KafkaSettings(bootstrap_servers="127.0.0.1:9", broker_wait_ms=3_500)
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127.0.0.1:9 .*clickscore broker start"):
        asyncio.run(wait_for_broker(nobody))
    assert "Waiting for Kafka at 127.0.0.1:9" in capsys.readouterr().err
