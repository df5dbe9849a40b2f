"""Topic description: ask a broker for a topic's id, number of partitions and the client's rights.

A topic that is deleted and created again has another id. aiokafka's own metadata requests end at version 5, without the
id, so version 10 is declared here (Kafka protocol guide, Metadata API; brokers answer it since Kafka 2.8).
"""

import asyncio
import time
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from clickscore.stream.kafka.client import RETRY_SECONDS

ANSWER_SECONDS = 10.0
"""Timeout until a broker describes a topic. A cluster that has lost a broker has others to ask."""
NO_ID = bytes(16)
"""Id of a topic that is named instead, or whose broker gives topics no ids."""


class TopicDescription(NamedTuple):
    """A topic, as a broker describes it."""

    partitions: int
    """Number of partitions; 0 where the topic does not exist."""
    topic_id: str = ""
    """Id of the topic, in hexadecimal digits; empty where the broker gives topics no ids."""


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _MetadataResponse(Response):
    API_KEY = 3  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]  (as in aiokafka)
    API_VERSION = 10  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]  (as in aiokafka)
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV10]):
    API_KEY = 3

    def __init__(self, topics: Iterable[str], *, with_operations: bool = False) -> None:
        self._topics = [(NO_ID, topic, {}) for topic in topics]
        self._with_operations = with_operations

    def build(self, request_struct_class: type[_MetadataRequestV10]) -> _MetadataRequestV10:
        return request_struct_class(self._topics, False, False, self._with_operations, {})


async def describe_topic(client: Any, topic: str) -> TopicDescription:  # noqa: ANN401 (aiokafka types no client)
    """Return a topic's number of partitions and id; ask other brokers for a while when one does not answer.

    Args:
        client: A connected client of aiokafka.
        topic: Full name of the topic.

    Raises:
        KafkaError: No broker answers within `ANSWER_SECONDS`, or the broker refuses.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return await _describe(client, topic)
        except KafkaError as exc:
            if not exc.retriable or time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


async def _describe(client: Any, topic: str) -> TopicDescription:  # noqa: ANN401 (aiokafka types no client)
    """Ask a random broker for the description of a topic."""
    try:
        response = await client.send(client.get_random_node(), _MetadataRequest([topic]))
    except (IncompatibleBrokerVersion, NotImplementedError):  # a broker older than Kafka 2.8
        await client.force_metadata_update()
        return TopicDescription(len(client.cluster.partitions_for_topic(topic) or ()))
    ((code, _, topic_id, _, partitions, *_),) = response.topics
    error = for_code(code)
    if code and error is not UnknownTopicOrPartitionError:
        raise error(topic)
    return TopicDescription(len(partitions or ()), topic_id.hex() if topic_id != NO_ID else "")


async def authorized_operations(client: Any, topics: Iterable[str]) -> dict[str, tuple[type[KafkaError] | None, int]]:  # noqa: ANN401 (aiokafka types no client)
    """Return the error of each topic, if any, and the operations that the client may do, as bits by Kafka's codes.

    Args:
        client: A connected client of aiokafka.
        topics: Full names of the topics.

    Raises:
        KafkaError: The broker does not answer.
    """
    try:
        response = await client.send(client.get_random_node(), _MetadataRequest(topics, with_operations=True))
    except (IncompatibleBrokerVersion, NotImplementedError):  # a broker older than Kafka 2.8
        return {}
    return {
        name: (for_code(code) if code else None, operations) for code, name, _, _, _, operations, _ in response.topics
    }
