"""Rights: check that a broker grants a client what it needs, and name each missing right at once."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from aiokafka.client import CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.group import HeartbeatRequest

from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS, ROLLOUTS, SNAPSHOTS, TOPICS
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.topic_description import authorized_operations
from clickscore.stream.settings import KafkaSettings

Right = Literal["read", "write"]
"""An operation on a topic; both include the right to describe the topic."""

_OPERATIONS: Mapping[Right, int] = {"read": 3, "write": 4}
"""Codes of Kafka's operations (AclOperation): the numbers of the bits of the authorized operations."""
_UNKNOWN = -(2**31)
"""Authorized operations of a broker that does not tell them."""


def worker_rights(settings: KafkaSettings, *, rollouts: bool = False) -> dict[str, set[Right]]:
    """Return the rights that a worker needs on each topic, by full name. A worker writes ticks into the events.

    Args:
        settings: Names of topics.
        rollouts: Whether the worker follows a rollout.
    """
    rights: dict[str, set[Right]] = {}
    for topic in TOPICS:
        if topic is ROLLOUTS and not rollouts:
            continue
        if topic in (CATALOGUE, CAMPAIGNS):
            rights[settings.topic(topic.name)] = {"read"}
        elif topic in (EVENTS, ROLLOUTS, SNAPSHOTS):
            rights[settings.topic(topic.name)] = {"read", "write"}
        else:
            rights[settings.topic(topic.name)] = {"write"}
    return rights


async def check_rights(
    owner: Any,  # noqa: ANN401 (aiokafka types no client)
    settings: KafkaSettings,
    topics: Mapping[str, Collection[Right]],
    group: str = "",
) -> None:
    """Return if the client has all rights.

    Args:
        owner: A connected consumer or admin client of aiokafka.
        settings: Login, for the message.
        topics: Needed rights by full name of the topic; a missing topic is passed over.
        group: Consumer group to join; empty for none.

    Raises:
        BrokerError: Rights are missing. The message names each of them.
    """
    client = owner._client  # noqa: SLF001 (aiokafka has no request for rights)
    answers = await authorized_operations(client, topics)
    lacking: list[str] = []
    for name in (topic for topic in topics if topic in answers):
        error, operations = answers[name]
        if error is TopicAuthorizationFailedError:
            lacking.append(f"{', '.join(('describe', *sorted(topics[name])))} on topic {name}")
        elif not error and operations != _UNKNOWN:
            missing = [right for right in sorted(topics[name]) if not operations >> _OPERATIONS[right] & 1]
            if missing:
                lacking.append(f"{', '.join(missing)} on topic {name}")
    if group and not await _may_join(client, group):
        lacking.append(f"read on group {group}")
    if lacking:
        client = f"user {settings.sasl_username!r}" if settings.sasl_username else "this client"
        message = (
            f"Kafka at {settings.bootstrap_servers}: {client} lacks rights: {'; '.join(lacking)}. "
            "Grant these (docs/operations.md, Rights)"
        )
        raise BrokerError(message)


async def _may_join(client: Any, group: str) -> bool:  # noqa: ANN401 (aiokafka types no client)
    """Return whether the client may read a group. A heartbeat of no member changes nothing, and needs this right."""
    try:
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await client.send(coordinator, HeartbeatRequest(group, -1, ""))
    except GroupAuthorizationFailedError:
        return False
    except (KafkaError, TimeoutError):  # a new cluster has no coordinator yet
        return True
    return for_code(response.error_code) is not GroupAuthorizationFailedError


RIGHT_ERRORS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
"""Errors of a client that lacks a right. They name the topic or the group, but not the operation."""


def is_lacking_right(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is a missing right."""
    while error:
        if isinstance(error, RIGHT_ERRORS):
            return True
        error = error.__cause__
    return False
