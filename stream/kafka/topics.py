"""Topics on a broker: make them, check them, and wait for the broker itself."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from clickscore.schemas.topics import EVENTS, TOPICS, Topic
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.client import connection
from clickscore.stream.settings import KafkaSettings

SAY_EVERY_SECONDS = 2.0
"""Between two lines of somebody who waits for a broker."""
HANDSHAKE_SECONDS = 10.0
APPEAR_SECONDS = 15.0
"""How long brokers may take to serve all of a created topic, or to forget a deleted one. One node takes 0.1 s."""

_GUARDING = ("cleanup.policy", "message.timestamp.type")
# None where the broker does not let us see: then whoever runs it knows.
_COMPACTED = ("compact", None)


class TopicOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `create` did about one topic."""

    name: str
    """As the broker knows it, prefix included."""
    outcome: Literal["created", "there already", "differs"]
    partitions: int
    """That it has now."""
    wanted: int
    """Partitions that the settings ask for."""
    differences: tuple[str, ...] = ()
    """What is otherwise than we would make it, in words."""


async def wait_for_broker(settings: KafkaSettings) -> None:
    """Return once a broker answers a client; say on stderr every few seconds that we wait.

    Raises:
        BrokerError: None answered within `broker_wait_ms`.
    """
    began = said = time.monotonic()
    limit, pause = settings.broker_wait_ms / 1000, 0.1
    while True:
        try:
            await _handshake(settings)
        except (KafkaError, OSError) as exc:
            reason = (
                os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc) or type(exc).__name__
            )
        else:
            return
        now = time.monotonic()
        if now - began >= limit:
            message = (
                f"no Kafka broker answers at {settings.bootstrap_servers} ({reason}), waited {now - began:.0f} s: "
                "start one with `clickscore broker start`, or say where yours is with --bootstrap-servers"
            )
            raise BrokerError(message)
        if now - said >= SAY_EVERY_SECONDS:
            said = now
            waited = f"{now - began:.0f} s of {limit:.0f} s"
            sys.stderr.write(f"Waiting for Kafka at {settings.bootstrap_servers}, {waited}: {reason}\n")
        await asyncio.sleep(min(pause, max(0.0, began + limit - now)))
        pause = min(2 * pause, 1.0)


async def create_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> list[TopicOutcome]:
    """Make the topics that are not there and return what became of each. One that exists is left as it is.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    wanted = {settings.topic(topic.name): _new_topic(settings, topic) for topic in topics}
    async with _admin(settings) as admin:
        before = await _partitions(admin)
        absent = [new for name, new in wanted.items() if name not in before]
        created = await _create(admin, absent) if absent else set[str]()
        there = await _await_partitions(admin, wanted)
        configs = await _configs(admin, wanted)
    outcomes: list[TopicOutcome] = []
    for name, new in wanted.items():
        differences = _differences(new, there[name], configs.get(name, {}))
        outcome = "differs" if differences else "created" if name in created else "there already"
        outcomes.append(
            TopicOutcome(
                name=name,
                outcome=outcome,
                partitions=there[name],
                wanted=new.num_partitions,
                differences=tuple(differences),
            )
        )
    return outcomes


async def list_topics(settings: KafkaSettings) -> dict[str, int]:
    """Return the number of partitions of every topic that the broker has, by full name.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    async with _admin(settings) as admin:
        return await _partitions(admin)


async def check_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> int:
    """Check that every topic is there and fits the others, and return the partitions of the user-keyed ones.

    Raises:
        TopicMissingError: One is missing, a user-keyed one has another number of partitions than the events, or one
            that must keep the newest record of each key would not.
        BrokerError: The broker cannot be reached.
    """
    names = {settings.topic(topic.name): topic for topic in topics}
    async with _admin(settings) as admin:
        there = await _partitions(admin)
        configs = await _configs(admin, [name for name in names if name in there])
    missing = [name for name in names if name not in there]
    if missing:
        message = f"topics are missing: {', '.join(missing)}. Make them with `clickscore topics create`"
        raise TopicMissingError(message)
    events = settings.topic(EVENTS.name)
    partitions = there.get(events, settings.partitions)
    unlike = [
        f"{name} has {there[name]}" for name, topic in names.items() if topic.per_user and there[name] != partitions
    ]
    if unlike:
        message = (
            f"user-keyed topics must have the same number of partitions: {events} has {partitions}, "
            f"but {', '.join(unlike)}. Delete those and make them anew with `clickscore topics create "
            f"--partitions {partitions}`"
        )
        raise TopicMissingError(message)
    losing = [
        name
        for name, topic in names.items()
        if topic.config["cleanup.policy"] == "compact" and configs.get(name, {}).get("cleanup.policy") not in _COMPACTED
    ]
    if losing:
        message = (
            f"topics must be compacted, or what they hold is lost with time: {', '.join(losing)}. "
            "Set cleanup.policy=compact on them (kafka-configs.sh --alter)"
        )
        raise TopicMissingError(message)
    return partitions


async def delete_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> None:
    """Delete the topics, and all that they hold, and return once they are gone; one that is not there is no matter.

    Raises:
        BrokerError: The broker cannot be reached, or they do not go.
    """
    names = {settings.topic(topic.name) for topic in topics}
    deadline = time.monotonic() + APPEAR_SECONDS
    async with _admin(settings) as admin:
        await admin.delete_topics(list(names))
        while left := names & set(await admin.list_topics()):
            if time.monotonic() > deadline:
                message = f"topics are there {APPEAR_SECONDS:.0f} s after their deletion: {', '.join(sorted(left))}"
                raise BrokerError(message)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncGenerator[AIOKafkaAdminClient]:
    """Give an admin client that is connected; what Kafka says against us becomes a BrokerError.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    await wait_for_broker(settings)
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {exc}"
        raise BrokerError(message) from exc
    finally:
        await admin.close()


async def _handshake(settings: KafkaSettings) -> None:
    """Let a client connect, log in and ask for metadata.

    Raises:
        OSError: Nobody listens, or nobody answers in time.
        KafkaError: The broker refuses, or is not ready.
    """
    # The client logs each refused connection as an error; while we wait for a broker that is no news.
    await _listens(settings.bootstrap_servers)
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await admin.start()
            cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    if not cluster["brokers"]:
        message = "the cluster has no broker yet"
        raise ConnectionError(message)


async def _listens(bootstrap_servers: str) -> None:
    """Return when one of the brokers takes a connection.

    Raises:
        OSError: None does.
    """
    failure: OSError = ConnectionError(f"no broker in {bootstrap_servers!r}")
    for host, port, _ in collect_hosts(bootstrap_servers):
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
        except OSError as exc:
            failure = exc
        else:
            writer.close()
            return
    raise failure


def _new_topic(settings: KafkaSettings, topic: Topic) -> NewTopic:
    config = dict(topic.config)
    if "retention.ms" in config:
        config["retention.ms"] = str(settings.retention_ms)
    return NewTopic(
        settings.topic(topic.name), settings.partitions if topic.per_user else 1, settings.replication, None, config
    )


def _differences(wanted: NewTopic, partitions: int, config: dict[str, str]) -> list[str]:
    """Say in words what of a topic is otherwise than we would make it. Retention is its owner's choice."""
    found: list[str] = []
    if partitions != wanted.num_partitions:
        found.append(f"has {partitions} partitions, not {wanted.num_partitions}")
    for key in _GUARDING:
        asked, has = wanted.topic_configs.get(key), config.get(key)
        if asked and has and has != asked:
            found.append(f"has {key}={has}, not {asked}")
    asked, has = wanted.topic_configs["max.message.bytes"], config.get("max.message.bytes")
    if has and int(has) < int(asked):
        found.append(f"has max.message.bytes={has}, less than {asked}")
    return found


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the settings of topics; without those that the broker does not let us see."""
    keys = dict.fromkeys((*_GUARDING, "max.message.bytes"))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs=keys) for name in names]
    responses: list[Any] = await admin.describe_configs(resources) if resources else []
    return {
        name: {key: value for key, value, *_ in entries}
        for response in responses
        for code, _, _, name, entries in response.resources
        if not code
    }


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> set[str]:
    """Make topics and return the names of those that we made, not somebody else in the same moment."""
    response: Any = await admin.create_topics(topics)  # one of seven versions of the same class
    made: set[str] = set()
    for name, code, *words in response.topic_errors:
        error = for_code(code)
        if not code:
            made.add(name)
        elif error is not TopicAlreadyExistsError:
            message = f"topic {name} cannot be made: {words[0] if words and words[0] else error.__name__}"
            raise BrokerError(message)
    return made


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return the partitions of each topic that is served, which takes a leader of each partition."""
    topics: list[dict[str, Any]] = await admin.describe_topics()
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in topics
        if not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


async def _await_partitions(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Return `_partitions` once they hold these names: brokers hear of a topic a moment after its making."""
    deadline = time.monotonic() + APPEAR_SECONDS
    while True:
        there = await _partitions(admin)
        lacking = [name for name in names if name not in there]
        if not lacking:
            return there
        if time.monotonic() > deadline:
            message = f"topics are not served {APPEAR_SECONDS:.0f} s after their making: {', '.join(lacking)}"
            raise BrokerError(message)
        await asyncio.sleep(0.05)
