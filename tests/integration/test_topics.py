"""Topics on a real broker: made once, checked before a worker joins."""

import asyncio

import pytest

from schemas.topics import CATALOGUE, DEAD_LETTERS, EVENTS, TOPICS
from stream.errors import BrokerError, TopicMissingError
from stream.settings import Settings
from stream.topics import check_topics, create_topics, delete_topics, list_topics, wait_for_broker

pytestmark = pytest.mark.kafka


def test_all_topics_are_made_once(broker: str, topic_prefix: str) -> None:
    settings = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=3)
    assert {each.outcome for each in asyncio.run(create_topics(settings))} == {"created"}
    assert {each.outcome for each in asyncio.run(create_topics(settings))} == {"there already"}
    there = asyncio.run(list_topics(settings))
    assert {topic.name: there[settings.topic(topic.name)] for topic in TOPICS} == {
        topic.name: 3 if topic.per_user else 1 for topic in TOPICS
    }
    asyncio.run(delete_topics(settings))


def test_other_number_of_partitions_is_said_and_left_alone(broker: str, topic_prefix: str) -> None:
    three = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=3)
    asyncio.run(create_topics(three))
    five = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=5)
    outcomes = {each.name: each for each in asyncio.run(create_topics(five))}
    events = outcomes[five.topic(EVENTS.name)]
    assert (events.outcome, events.partitions, events.wanted) == ("differs", 3, 5)
    assert outcomes[five.topic(CATALOGUE.name)].outcome == "there already"
    assert asyncio.run(check_topics(five)) == 3
    asyncio.run(delete_topics(three))


def test_missing_topic_is_named_with_the_command_that_makes_it(broker: str, topic_prefix: str) -> None:
    settings = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix)
    asyncio.run(create_topics(settings, [topic for topic in TOPICS if topic is not DEAD_LETTERS]))
    with pytest.raises(TopicMissingError, match=f"{topic_prefix}dead-letters.*clickscore topics create"):
        asyncio.run(check_topics(settings))
    asyncio.run(delete_topics(settings))


def test_user_keyed_topic_with_other_partitions_is_refused(broker: str, topic_prefix: str) -> None:
    settings = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=2)
    asyncio.run(create_topics(settings, [DEAD_LETTERS]))
    wider = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, partitions=4)
    asyncio.run(create_topics(wider))
    with pytest.raises(TopicMissingError, match=f"has 4, but {topic_prefix}dead-letters has 2"):
        asyncio.run(check_topics(wider))
    asyncio.run(delete_topics(wider))


def test_more_replicas_than_brokers_is_refused_in_words(broker: str, topic_prefix: str) -> None:
    settings = Settings(bootstrap_servers=broker, topic_prefix=topic_prefix, replication=100)
    with pytest.raises(BrokerError, match=r"cannot be made: .*replica"):
        asyncio.run(create_topics(settings))


def test_waiting_for_an_absent_broker_ends_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = Settings(bootstrap_servers="127.0.0.1:9", broker_wait_ms=3_500)
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127.0.0.1:9 .*clickscore broker start"):
        asyncio.run(wait_for_broker(nobody))
    assert "Waiting for Kafka at 127.0.0.1:9" in capsys.readouterr().err
