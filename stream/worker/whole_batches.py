"""Whole batches: hand records to a Kafka client in whole record batches, as both kinds of producers do."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from clickscore.stream.worker.group import OutgoingRecord

APPEND_TIME = 1
"""Type of a timestamp that the broker has set, in Kafka's protocol."""


async def send_batches(
    client: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[OutgoingRecord]
) -> int | None:
    """Send records to a partition in order, in as few record batches as possible; return once all are stored.

    Returns:
        Append time of the last record batch, ms; None for a topic that keeps the producer's time.

    Args:
        client: Started producer of the Kafka client.
        topic: Full name of the topic.
        partition: Partition to store the records in.
        messages: Key, value and headers of each record.

    Raises:
        KafkaError: The broker refused, or did not answer in time; the records may be stored or not.
    """
    acknowledgements, remaining = [], messages
    while remaining:
        acknowledgement, remaining = await _send(client, topic, partition, remaining)
        acknowledgements.append(acknowledgement)
    stored = await asyncio.gather(*acknowledgements)  # the first error counts; the others are no news, and not logged
    return stored[-1].timestamp if stored and stored[-1].timestamp_type == APPEND_TIME else None


async def send_whole_batch(
    client: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[OutgoingRecord]
) -> int:
    """Send records as a single record batch, stored whole or not at all; return the offset after the batch.

    Args:
        client: Started producer of the Kafka client.
        topic: Full name of the topic.
        partition: Partition to store the records in.
        messages: Key, value and headers of each record.

    Raises:
        KafkaError: The broker refused, or did not answer in time; the records may be stored or not.
        ValueError: The records are too large for a record batch.
    """
    acknowledgement, remaining = await _send(client, topic, partition, messages)
    if remaining:
        error = f"{len(messages)} records of {topic} are larger than one record batch may be: lower max_batch"
        raise ValueError(error)
    return (await acknowledgement).offset + len(messages)


async def _send(
    client: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[OutgoingRecord]
) -> tuple[Awaitable[Any], Sequence[OutgoingRecord]]:
    """Send as many records as a record batch holds; return the acknowledgement and the remaining records.

    aiokafka's builder always takes the first record; the broker refuses an oversized record.
    """
    batch, count = client.create_batch(), 0
    for key, value, headers in messages:
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            break
        count += 1
    return await client.send_batch(batch, topic, partition=partition), messages[count:]
