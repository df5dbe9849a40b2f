"""Topics: create, grow, list, check and delete the topics of an installation."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS, TOPICS, Topic
from clickscore.stream.errors import BrokerError, TopicMissingError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.client import client_arguments
from clickscore.stream.kafka.rights import Right, check_rights, worker_rights
from clickscore.stream.settings import KafkaSettings

PROPAGATION_SECONDS = 15.0
"""Timeout until brokers serve a created topic, or forget a deleted topic. A single node takes 0.1 s."""
POLL_SECONDS = 0.05
"""Pause between two requests for the broker's topics."""

_EXACT_CONFIGS = ("cleanup.policy", "message.timestamp.type")
"""Configs behind the guarantees; any other value is a difference."""
_SIZE_CONFIG = "max.message.bytes"
"""Config with a smallest value; a larger value is no difference."""
_LIMIT_CONFIGS = (
    "max.compaction.lag.ms",
    "segment.ms",
    "segment.bytes",
    "min.cleanable.dirty.ratio",
    "delete.retention.ms",
)
"""Configs with a largest value, which bound how long a removed value stays on disk; a smaller value is fine."""
REFERENCE_TOPICS = (CATALOGUE, CAMPAIGNS)
"""Topics whose old values stay for as long as the events, because a replay reads the values as of each event."""
FOR_EVER_MS = 2**63 - 1
"""Kafka's largest time, ms."""
# None: the broker does not show the config. Then its operator is responsible.
_COMPACTED = ("compact", None)


class TopicOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `create_topics` for a topic."""

    name: str
    """Full name of the topic, with the prefix."""
    outcome: Literal["created", "there already", "differs"]
    partitions: int
    """Number of partitions of the topic."""
    requested_partitions: int
    """Number of partitions in the settings."""
    differences: tuple[str, ...] = ()
    """Differences between the topic and the settings that break a guarantee, in words."""
    advice: tuple[str, ...] = ()
    """Differences that only let removed values stay on disk for longer, in words."""


async def create_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> list[TopicOutcome]:
    """Create the missing topics and return the outcome of each. An existing topic stays unchanged.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    new_topics = {settings.topic(topic.name): _new_topic(settings, topic) for topic in topics}
    async with _open_admin(settings) as admin:
        existing = await _partition_counts(admin)
        missing = [new_topic for name, new_topic in new_topics.items() if name not in existing]
        created = await _create(admin, missing) if missing else set[str]()
        partitions = await _wait_until_served(admin, new_topics)
        configs = await _read_configs(admin, new_topics)
    outcomes: list[TopicOutcome] = []
    for name, new_topic in new_topics.items():
        differences = _differences(new_topic, partitions[name], configs.get(name, {}))
        outcome = "differs" if differences else "created" if name in created else "there already"
        outcomes.append(
            TopicOutcome(
                name=name,
                outcome=outcome,
                partitions=partitions[name],
                requested_partitions=new_topic.num_partitions,
                differences=tuple(differences),
                advice=tuple(_advice(new_topic, configs.get(name, {}))),
            )
        )
    return outcomes


async def topic_advice(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> dict[str, tuple[str, ...]]:
    """Return, for each existing topic, the configs that let removed values stay on disk for longer, in words.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    new_topics = {settings.topic(topic.name): _new_topic(settings, topic) for topic in topics}
    async with _open_admin(settings) as admin:
        existing = await _partition_counts(admin)
        configs = await _read_configs(admin, [name for name in new_topics if name in existing])
    return {name: tuple(_advice(new_topics[name], config)) for name, config in configs.items()}


async def list_topics(
    settings: KafkaSettings, needed: Mapping[str, Collection[Right]] = MappingProxyType({})
) -> dict[str, int]:
    """Return the number of partitions of every topic of the broker, by full name.

    Args:
        settings: Connection.
        needed: Rights that the caller needs, by full name of the topic; a topic without the right to describe it would
            look missing.

    Raises:
        BrokerError: The broker cannot be reached, or does not grant a needed right.
    """
    async with _open_admin(settings) as admin:
        if needed:
            await check_rights(admin, settings, needed)
        return await _partition_counts(admin)


async def count_partitions(settings: KafkaSettings, name: str) -> int:
    """Return the number of partitions of a topic that a command is about to read.

    Args:
        settings: Address of the broker, and prefix of the topics.
        name: Full name of the topic.

    Raises:
        TopicMissingError: The topic is missing.
        BrokerError: The broker cannot be reached, or the right to read is missing.
    """
    count = (await list_topics(settings, {name: {"read"}})).get(name)
    if count is None:
        raise TopicMissingError(describe_missing_topic(settings, name))
    return count


def describe_missing_topic(settings: KafkaSettings, name: str) -> str:
    """Return the error text of a missing topic: how to create it, or how to see the existing topics.

    Args:
        settings: Prefix of the topics.
        name: Full name of the topic.
    """
    if name in {settings.topic(topic.name) for topic in TOPICS}:
        return f"topic {name} is missing. Make it with `clickscore topics create`, or correct topic_prefix"
    return f"topic {name} is missing. `clickscore topics list` shows the topics of the installation"


async def check_worker_rights(settings: KafkaSettings, group: str, *, rollouts: bool = False) -> None:
    """Check that the broker grants a worker all its rights on the topics and the group.

    Args:
        settings: Connection, and names of topics.
        group: Consumer group of the worker.
        rollouts: Whether the worker follows a rollout.

    Raises:
        BrokerError: The broker cannot be reached, or rights are missing.
    """
    async with _open_admin(settings) as admin:
        await check_rights(admin, settings, worker_rights(settings, rollouts=rollouts), group)


async def check_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> int:
    """Check that all topics exist and fit together; return the number of partitions of the user-keyed topics.

    Raises:
        TopicMissingError: A topic is missing, a user-keyed topic has another number of partitions than the events, or
            a topic that must keep the newest record of each key is not compacted.
        BrokerError: The broker cannot be reached.
    """
    names = {settings.topic(topic.name): topic for topic in topics}
    async with _open_admin(settings) as admin:
        counts = await _partition_counts(admin)
        configs = await _read_configs(admin, [name for name in names if name in counts])
    missing = [name for name in names if name not in counts]
    if missing:
        message = f"topics are missing: {', '.join(missing)}. Make them with `clickscore topics create`"
        raise TopicMissingError(message)
    events = settings.topic(EVENTS.name)
    partitions = counts.get(events, settings.partitions)
    unequal = [
        f"{name} has {counts[name]}" for name, topic in names.items() if topic.per_user and counts[name] != partitions
    ]
    if unequal:
        message = (
            f"user-keyed topics must have the same number of partitions: {events} has {partitions}, "
            f"but {', '.join(unequal)}. Give all of them the same number with `clickscore topics grow --partitions "
            f"{max(counts[name] for name, topic in names.items() if topic.per_user)}`"
        )
        raise TopicMissingError(message)
    uncompacted = [
        name
        for name, topic in names.items()
        if topic.config["cleanup.policy"] == "compact" and configs.get(name, {}).get("cleanup.policy") not in _COMPACTED
    ]
    if uncompacted:
        message = (
            f"topics must be compacted, or what they hold is lost with time: {', '.join(uncompacted)}. "
            "Set cleanup.policy=compact on them (kafka-configs.sh --alter)"
        )
        raise TopicMissingError(message)
    return partitions


async def grow_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> dict[str, int]:
    """Give all user-keyed topics the number of partitions of the settings; return the earlier number of each.

    The outputs and the changelog grow first, and the events last: no event may arrive in a partition whose decisions
    and state have no place yet.

    Raises:
        TopicMissingError: A topic is missing.
        BrokerError: A topic has more partitions already, or the broker cannot be reached, or refuses.
    """
    names = [settings.topic(topic.name) for topic in topics if topic.per_user]
    names.sort(key=lambda name: name == settings.topic(EVENTS.name))
    async with _open_admin(settings) as admin:
        counts = await _partition_counts(admin)
        missing = [name for name in names if name not in counts]
        if missing:
            message = f"topics are missing: {', '.join(missing)}. Make them with `clickscore topics create`"
            raise TopicMissingError(message)
        larger = [f"{name} has {counts[name]}" for name in names if counts[name] > settings.partitions]
        if larger:
            message = (
                f"Kafka cannot take partitions away: {', '.join(larger)}. Ask for at least "
                f"{max(counts[name] for name in names)} with --partitions"
            )
            raise BrokerError(message)
        for name in names:
            if counts[name] < settings.partitions:
                await admin.create_partitions({name: NewPartitions(settings.partitions)})
                await _wait_until_grown(admin, name, settings.partitions)
    return {name: counts[name] for name in names}


async def _wait_until_grown(admin: AIOKafkaAdminClient, name: str, partitions: int) -> None:
    """Return once a topic has so many partitions, each with a leader.

    Raises:
        BrokerError: The topic has not grown within `PROPAGATION_SECONDS`.
    """
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while (await _partition_counts(admin)).get(name, 0) < partitions:
        if time.monotonic() > deadline:
            message = f"{name} has not grown within {PROPAGATION_SECONDS:.0f} s. Run the same command again"
            raise BrokerError(message)
        await asyncio.sleep(POLL_SECONDS)


async def delete_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> None:
    """Delete the topics with their records and return once the broker has forgotten them. A missing topic is ignored.

    Raises:
        BrokerError: The broker cannot be reached, or still has a topic after `PROPAGATION_SECONDS`.
    """
    names = {settings.topic(topic.name) for topic in topics}
    deadline = time.monotonic() + PROPAGATION_SECONDS
    async with _open_admin(settings) as admin:
        await admin.delete_topics(list(names))
        while remaining := names & set(await admin.list_topics()):
            if time.monotonic() > deadline:
                listed = ", ".join(sorted(remaining))
                message = f"topics still exist {PROPAGATION_SECONDS:.0f} s after their deletion: {listed}. Try again"
                raise BrokerError(message)
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _open_admin(settings: KafkaSettings) -> AsyncGenerator[AIOKafkaAdminClient]:
    """Yield a connected admin client; an error of Kafka becomes a BrokerError.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    await wait_for_broker(settings)
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as exc:
        message = f"Kafka at {settings.bootstrap_servers}: {exc}"
        raise BrokerError(message) from exc
    finally:
        await admin.close()


def _new_topic(settings: KafkaSettings, topic: Topic) -> NewTopic:
    """Return the request to create a topic."""
    config = dict(topic.config)
    if "retention.ms" in config:
        config["retention.ms"] = str(settings.retention_ms)
        # -1 keeps records for ever.
        if settings.retention_ms > 0:
            config["segment.ms"] = str(min(settings.retention_ms, int(config["segment.ms"])))
    if topic in REFERENCE_TOPICS:
        lag_ms = settings.retention_ms if settings.retention_ms > 0 else FOR_EVER_MS
        config["min.compaction.lag.ms"] = str(lag_ms)
        config["max.compaction.lag.ms"] = str(min(lag_ms + DAY_MS, FOR_EVER_MS))
    return NewTopic(
        settings.topic(topic.name), settings.partitions if topic.per_user else 1, settings.replication, None, config
    )


def _differences(requested: NewTopic, partitions: int, config: dict[str, str]) -> list[str]:
    """Return the differences between a topic and its request, in words. Retention is the owner's choice.

    Args:
        requested: Request to create the topic.
        partitions: Number of partitions of the topic.
        config: Configs of the topic, as far as the broker shows configs.
    """
    differences: list[str] = []
    if partitions != requested.num_partitions:
        differences.append(f"has {partitions} partitions, not {requested.num_partitions}")
    for key in _EXACT_CONFIGS:
        expected, actual = requested.topic_configs.get(key), config.get(key)
        if expected and actual and actual != expected:
            differences.append(f"has {key}={actual}, not {expected}")
    expected, actual = requested.topic_configs[_SIZE_CONFIG], config.get(_SIZE_CONFIG)
    if actual and int(actual) < int(expected):
        differences.append(f"has {_SIZE_CONFIG}={actual}, less than {expected}")
    return differences


def _advice(requested: NewTopic, config: dict[str, str]) -> list[str]:
    """Return the configs of a topic that are above the requested limits, in words.

    Args:
        requested: Request to create the topic.
        config: Configs of the topic, as far as the broker shows configs.
    """
    advice: list[str] = []
    for key in _LIMIT_CONFIGS:
        expected, actual = requested.topic_configs.get(key), config.get(key)
        if expected and actual and float(actual) > float(expected):
            advice.append(f"{key}={actual} is more than {expected}")
    return advice


async def _read_configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the configs of topics, without topics with hidden configs."""
    keys = dict.fromkeys((*_EXACT_CONFIGS, _SIZE_CONFIG, *_LIMIT_CONFIGS))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs=keys) for name in names]
    responses: list[Any] = await admin.describe_configs(resources) if resources else []
    return {
        name: {key: value for key, value, *_ in entries}
        for response in responses
        for code, _, _, name, entries in response.resources
        if not code
    }


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> set[str]:
    """Create topics and return the names of the created topics; another client may create some at the same moment."""
    response: Any = await admin.create_topics(topics)  # one of seven versions of the same class
    created: set[str] = set()
    for name, code, *messages in response.topic_errors:
        error = for_code(code)
        if not code:
            created.add(name)
        elif error is not TopicAlreadyExistsError:
            if error in {TopicAuthorizationFailedError, ClusterAuthorizationFailedError}:
                message = f"topic {name} cannot be made: this client lacks the right to create it"
                raise BrokerError(message)
            message = f"topic {name} cannot be made: {messages[0] if messages and messages[0] else error.__name__}"
            raise BrokerError(message)
    return created


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return the number of partitions of each served topic: every partition of a served topic has a leader."""
    topics: list[dict[str, Any]] = await admin.describe_topics()
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in topics
        if not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


async def _wait_until_served(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Return `_partition_counts` once all names are served: brokers learn of a new topic a moment later."""
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while True:
        counts = await _partition_counts(admin)
        missing = [name for name in names if name not in counts]
        if not missing:
            return counts
        if time.monotonic() > deadline:
            message = f"topics are not served {PROPAGATION_SECONDS:.0f} s after their creation: {', '.join(missing)}"
            raise BrokerError(message)
        await asyncio.sleep(POLL_SECONDS)
