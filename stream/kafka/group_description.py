"""Group description: ask the coordinator of a consumer group for the committed offsets and the assigned partitions."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest


async def committed_offsets(
    client: Any,  # noqa: ANN401 (aiokafka types no client)
    group: str,
    partitions: Iterable[TopicPartition],
) -> dict[TopicPartition, int]:
    """Return the committed offsets of a consumer group; nothing where no coordinator answers, or without an offset.

    Args:
        client: A connected client of aiokafka.
        group: Name of the group.
        partitions: Partitions to look up.
    """
    by_topic: dict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        by_topic[tp.topic].append(tp.partition)
    request = OffsetFetchRequest(group, list(by_topic.items()))
    try:
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await client.send(coordinator, request)
    except KafkaError:  # a new cluster has no coordinator yet
        return {}
    return {
        TopicPartition(topic, partition): offset
        for topic, answers in response.topics
        for partition, offset, _, code, *_ in answers
        if not code and offset >= 0
    }


async def served_partitions(
    client: Any,  # noqa: ANN401 (aiokafka types no client)
    group: str,
    topic: str,
) -> set[int] | None:
    """Return the partitions of a topic that members of a group read; None during a rebalance, or without an answer.

    Args:
        client: A connected client of aiokafka.
        group: Name of the group.
        topic: Full name of the topic.
    """
    try:
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await client.send(coordinator, DescribeGroupsRequest([group]))
    except KafkaError:  # a new cluster has no coordinator yet
        return None
    ((code, _, state, _, _, members, *_),) = response.groups
    if code or state != "Stable":
        return None
    return {
        tp.partition
        for *_, assignment in members
        for tp in ConsumerProtocolMemberAssignment.decode(assignment).partitions()
        if tp.topic == topic
    }
