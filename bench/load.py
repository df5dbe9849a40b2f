# pyright: basic
"""Load: fill topics before a run, count records during the run, and read records after the run.

The client is librdkafka, which needs less of the two cores than aiokafka.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from bench.logs import PARTITIONS, Keyed
from clickscore.schemas.topics import MAX_RECORD_BYTES, Topic
from clickscore.stream.settings import Settings

_QUIET_SECONDS = 10.0  # a read that gets nothing for so long has failed


def producer(settings: Settings, linger_ms: int = 0) -> Producer:
    """Return a producer of events. The caller chooses the partition of each record."""
    return Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "acks": "all",
            "linger.ms": linger_ms,
            "queue.buffering.max.messages": 2_000_000,
            "batch.size": 500_000,
        }
    )


def fill(settings: Settings, topic: Topic, records: Iterable[Keyed]) -> None:
    """Write records to a topic and wait until the broker has stored all records.

    Args:
        settings: Broker and topic names.
        topic: Topic.
        records: Records to write.
    """
    sender, name = producer(settings, linger_ms=20), settings.kafka.topic(topic.name)
    for record in records:
        sender.produce(name, value=record.value, key=record.key, partition=record.partition)
    unsent = sender.flush(60)
    if unsent:
        message = f"{unsent} records of {name} could not be produced"
        raise TimeoutError(message)


class Watch:
    """Observer of one topic."""

    def __init__(self, settings: Settings, topic: Topic) -> None:
        self.settings = settings
        self._partitions = [
            TopicPartition(settings.kafka.topic(topic.name), partition) for partition in range(PARTITIONS)
        ]
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": f"{settings.worker.group}-watch",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.message.max.bytes": 16 * 1024 * 1024,
                "message.max.bytes": MAX_RECORD_BYTES,
            }
        )

    def count(self) -> int:
        """Return the number of records in the topic."""
        return sum(self._end(partition) for partition in self._partitions)

    def records(self) -> Iterator[Message]:
        """Yield all records, in order within each partition."""
        remaining = {partition.partition for partition in self._partitions}
        self._consumer.assign([TopicPartition(tp.topic, tp.partition, 0) for tp in self._partitions])
        quiet_since = time.monotonic()
        while remaining:
            messages = self._consumer.consume(10_000, timeout=0.2)
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _QUIET_SECONDS:
                message = f"partitions {sorted(remaining)} give nothing"
                raise TimeoutError(message)
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the client's own name for it)
                    remaining.discard(message.partition())
                else:
                    raise RuntimeError(str(error))
        self._consumer.unassign()

    def close(self) -> None:
        """Close the connection to the broker."""
        self._consumer.close()

    def _end(self, partition: TopicPartition) -> int:
        deadline = time.monotonic() + _QUIET_SECONDS
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(partition, timeout=_QUIET_SECONDS)
            except KafkaException:  # leaders move about while topics are new
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return end


@contextmanager
def watching(settings: Settings, topic: Topic) -> Generator[Watch]:
    """Provide an observer of a topic."""
    watch = Watch(settings, topic)
    try:
        yield watch
    finally:
        watch.close()
