"""Bounded fetch: a consumer unpacks at most a fixed number of bytes at a time, whatever its brokers hold."""

import asyncio
import logging
import threading
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.cut_bytes import cut_bytes
from clickscore.stream.kafka.record_batches import (
    BatchHead,
    ContentLimits,
    LargeBatch,
    broken_batch,
    is_intact,
    read_batches,
    unpack_whole,
)
from clickscore.stream.kafka.record_codecs import UnpackError

log = logging.getLogger(__name__)

FETCH_KEY = 1
"""API key of a fetch, by Kafka's protocol."""
UNPACKED_BYTES = 32 * 1024 * 1024
"""Most unpacked bytes that a consumer holds for all its partitions. Each partition has an equal share."""
PARTITION_BYTES = 4 * 1024 * 1024
"""Smallest share of a partition, bytes: a fetch of 1 MB of compressed events mostly fits."""


Consumer = TypeVar("Consumer", bound=AIOKafkaConsumer)


class BoundedUnpacking:
    """Unpacks the compressed batches of fetch responses."""

    def __init__(self, limits: ContentLimits) -> None:
        """Start without a batch.

        Args:
            limits: Most bytes of a key and of a value.
        """
        self._limits = limits
        self._lock = threading.Lock()  # brokers answer at the same time
        self._large: tuple[TopicPartition, LargeBatch] | None = None  # the large batch that is read at present

    def unpack(self, tp: TopicPartition, fetched: bytes, start: int, max_bytes: int) -> bytes:
        """Return the batches of a partition without compression; batches beyond the bound are left to the next fetch.

        Args:
            tp: Partition of the batches.
            fetched: Batches as fetched.
            start: Offset of the fetch.
            max_bytes: Most unpacked bytes to return, about.
        """
        with self._lock:
            unpacked: list[bytes | memoryview] = []
            remaining = max_bytes
            for head, batch in read_batches(memoryview(fetched)):
                plain = self._plain(tp, head, batch, start, remaining, is_first=not unpacked)
                if plain is None:
                    break
                unpacked.append(plain)
                remaining -= len(plain)
                if self._large and self._large[0] == tp:
                    break  # the rest of the batch is the next fetch's
            return b"".join(unpacked) or fetched

    def _plain(
        self,
        tp: TopicPartition,
        head: BatchHead | None,
        batch: memoryview,
        start: int,
        max_bytes: int,
        *,
        is_first: bool,
    ) -> bytes | memoryview | None:
        """Return a batch without compression, or a part of it; None if it does not fit behind earlier batches.

        Args:
            tp: Partition of the batch.
            head: Header of the batch.
            batch: The batch.
            start: Offset of the fetch.
            max_bytes: Most unpacked bytes to return, about.
            is_first: Whether no other batch is returned before this one.
        """
        if head is None or not head.codec or not is_intact(head, batch):  # aiokafka refuses a broken batch
            return batch if is_first or len(batch) <= max_bytes else None
        try:
            large = self._continued(tp, head, start)
            if large is None:
                plain = unpack_whole(head, batch, max_bytes)
                if plain is not None or not is_first:
                    return plain
                log.warning(
                    "%s-%d, offset %d: a large record batch is unpacked in parts", tp.topic, tp.partition, start
                )
                large = LargeBatch(head, batch, self._limits)
            part = large.read(start, max_bytes)
        except UnpackError as exc:
            log.error(  # noqa: TRY400 (the words are the cause)
                "%s-%d: the record batch at %d cannot be unpacked: %s", tp.topic, tp.partition, head.offset, exc
            )
            self._large = None
            return broken_batch(head)
        self._large = None if large.is_finished else (tp, large)
        return part

    def _continued(self, tp: TopicPartition, head: BatchHead, start: int) -> LargeBatch | None:
        """Return the large batch that an earlier fetch began, or None.

        Args:
            tp: Partition of the batch.
            head: Header of the batch.
            start: Offset of the fetch.
        """
        if self._large is None or self._large[0] != tp:
            return None
        large, self._large = self._large[1], None
        return large if large.head == head and large.next_offset == start else None


def bound_unpacking(
    consumer: Consumer,
    *,
    max_key_bytes: int = MAX_RECORD_BYTES,
    max_value_bytes: int = MAX_RECORD_BYTES,
) -> Consumer:
    """Return the same consumer, which unpacks within bounds and cuts large keys and values to `CutBytes`.

    Args:
        consumer: A consumer that has not started.
        max_key_bytes: Most bytes of a key that are kept.
        max_value_bytes: Most bytes of a value that are kept.
    """
    internals: Any = consumer
    client = internals._client  # noqa: SLF001 (no port of aiokafka sees a batch before it is unpacked)
    internals._key_deserializer = partial(cut_bytes, max_key_bytes)  # noqa: SLF001 (Faust builds its own consumer)
    internals._value_deserializer = partial(cut_bytes, max_value_bytes)  # noqa: SLF001
    unpacking = BoundedUnpacking(ContentLimits(max_key_bytes, max_value_bytes))
    send = client.send

    async def send_and_unpack(node_id: Any, request: Any, **options: Any) -> Any:  # noqa: ANN401 (aiokafka's own)
        response = await send(node_id, request, **options)
        if response is not None and response.API_KEY == FETCH_KEY:
            share = max(PARTITION_BYTES, UNPACKED_BYTES // max(1, len(consumer.assignment())))
            await _unpack_response(unpacking, request, response, share)
        return response

    client.send = send_and_unpack
    return consumer


async def _unpack_response(
    unpacking: BoundedUnpacking,
    request: Any,  # noqa: ANN401 (aiokafka types no request)
    response: Any,  # noqa: ANN401 (aiokafka types no response)
    max_bytes: int,
) -> None:
    """Replace the compressed batches of a fetch response, in another thread: the consumer's loop sends heartbeats.

    Args:
        unpacking: Unpacks the batches.
        request: Request of the fetch, with the offsets.
        response: Response to change.
        max_bytes: Most unpacked bytes for each partition.
    """
    starts = {
        TopicPartition(topic, partition): offset
        for topic, partitions in request.topics
        for partition, offset, *_ in partitions
    }
    topics: list[Any] = []
    for topic, partitions in response.topics:
        answers: list[Any] = []
        for partition, *answer, fetched in partitions:
            batches = fetched
            if fetched and any(head and head.codec for head, _ in read_batches(memoryview(fetched))):
                tp = TopicPartition(topic, partition)
                batches = await asyncio.to_thread(unpacking.unpack, tp, fetched, starts[tp], max_bytes)
            answers.append((partition, *answer, batches))
        topics.append((topic, answers))
    response.topics = topics
