"""Publisher: stores the outputs of batches in an order that survives a crash at any point.

1. Publish decisions, closed sessions and dead letters, and wait for the acknowledgements; then erasure receipts.
2. Publish the snapshots of the batch as a single record batch, with the partition's own record last.
3. Mark the batch as committable.

So the log has the decisions behind every stored state. After a crash before step 2 the next worker decides on the same
events again, with the same bytes. Each step takes all waiting batches at once, and the steps run side by side: the
decisions of batch n+1 need not wait for the snapshots of batch n.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from clickscore.schemas.snapshots import OFFSET_HEADER, PARTITION_KEY
from clickscore.schemas.topics import (
    ADS,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    ERASURE_RECEIPTS,
    EVENTS,
    MAX_RECORD_BYTES,
    RECOMMENDATIONS,
    SNAPSHOTS,
)
from clickscore.stream.cut_bytes import full_size
from clickscore.stream.errors import BrokerError
from clickscore.stream.pipeline import MAX_KEY_BYTES, DeadLetter, Output
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.state.partition import ChangelogRecord
from clickscore.stream.worker.group import ConsumerGroup, FetchedBatch, Headers, OutgoingRecord
from clickscore.stream.worker.notices import Notices
from clickscore.stream.worker.overlays import Overlay, Overlays
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

OUTPUT_QUEUE = 8
"""Queue length in front of the writer of decisions: enough to share a request, few enough for a prompt stop."""
SNAPSHOT_QUEUE = 256
"""Queue length in front of the snapshot writer. Large enough for light traffic to never block."""
SNAPSHOT_BATCH_BYTES = 4 * 1024 * 1024
"""Size of a full record batch of snapshots, bytes. The last job may exceed this size, and still fits Kafka's limit."""
LIGHT_SNAPSHOTS = 64
"""Smallest number of snapshots to write at once: a request per small batch would double the cost of the batch."""
LIGHT_WAIT_S = 0.02
"""How long a small write of snapshots waits for more, s."""
WARN_AFTER_S = 3.0
"""Time without an acknowledgement before a warning, s."""
DEAD_LETTER_BYTES = MAX_RECORD_BYTES // 2
"""Largest value of a dead letter whatever `max_event_bytes` says, bytes: the topic takes no larger record."""
MAX_ERROR_CHARACTERS = 1000
"""Largest length of the reason. The reason may quote the event."""


@dataclass
class PublishJob:
    """A computed batch with output to store."""

    batch: FetchedBatch
    output: Output
    headers: Headers
    """Headers of the decisions: wall-clock facts."""

    @property
    def snapshot_bytes(self) -> int:
        """Size of the snapshots, bytes."""
        return sum([len(change.value or b"") for change in self.output.changes])


class Publisher:
    """Stores jobs in cycles, each cycle with all waiting jobs."""

    def __init__(
        self,
        kafka: KafkaSettings,
        group: ConsumerGroup,
        ownership: Ownership,
        metrics: Metrics,
        *,
        max_event_bytes: int,
        warn_after_s: float = WARN_AFTER_S,
        light_wait_s: float = LIGHT_WAIT_S,
    ) -> None:
        """Build the publisher.

        Args:
            kafka: Names of topics, and how long to wait for Kafka.
            group: Has the producer and the present generation.
            ownership: Learns of released batches and discarded states.
            metrics: Counts published records and outcomes of events.
            max_event_bytes: Largest value of a dead letter, bytes.
            warn_after_s: Time without an acknowledgement before a warning, s.
            light_wait_s: How long a small write of snapshots waits for more, s.
        """
        self.written: dict[int, int] = {}
        """Offset of each partition's changelog after this worker's own last write."""
        self.overlays = Overlays()
        """Foreign records between two own writes, to be repaired."""
        self._kafka = kafka
        self._group = group
        self._ownership = ownership
        self._metrics = metrics
        self._max_letter_bytes = min(max_event_bytes, DEAD_LETTER_BYTES)
        self._notices = Notices(kafka.topic(EVENTS.name), group, metrics)
        self._warn_after_s = warn_after_s
        self._light_wait_s = light_wait_s
        self._computed: asyncio.Queue[PublishJob] = asyncio.Queue(OUTPUT_QUEUE)
        self._decided: asyncio.Queue[PublishJob] = asyncio.Queue(SNAPSHOT_QUEUE)

    async def put(self, job: PublishJob) -> None:
        """Queue a job; wait while the queue is full."""
        await self._computed.put(job)

    async def publish_decisions(self) -> None:
        """Publish the outputs of batches as they are computed, until cancelled.

        Raises:
            BrokerError: Kafka refused a record, or did not acknowledge within `broker_wait_ms`.
        """
        while True:
            jobs = self._drop_stale(await _take_waiting(self._computed))
            started_at = time.monotonic()
            async with self._waiting_for_kafka(jobs):
                await self._send_all(self._outgoing(jobs))
                await self._send_all(self._receipts(jobs))  # a receipt says that the decisions before it are stored
            self._metrics.publish_seconds.observe(time.monotonic() - started_at)
            for job in jobs:
                await self._decided.put(job)

    async def publish_states(self) -> None:
        """Publish the snapshots of batches after the outputs, and make the batches committable, until cancelled.

        Raises:
            BrokerError: Kafka refused a record batch, or did not acknowledge within `broker_wait_ms`.
        """
        while True:
            jobs = self._drop_stale(await _take_waiting(self._decided, self._light_wait_s))
            newest: dict[int, dict[bytes, ChangelogRecord]] = defaultdict(dict)
            for job in jobs:
                changes = newest[job.batch.partition]
                changes.pop(PARTITION_KEY, None)  # a key keeps its first position, but the partition's must be last
                changes |= {change.key: change for change in job.output.changes}
            async with self._waiting_for_kafka(jobs):
                writes = (self.write(partition, list(changes.values())) for partition, changes in newest.items())
                ends = await asyncio.gather(*writes)
            for (partition, changes), end in zip(newest.items(), ends, strict=True):
                self._note_write(partition, end - len(changes), end)
            for job in jobs:
                job.batch.mark_committable()
                self._count(job.output)
                self._notices.note(job.batch.partition, job.output)
                self._ownership.release(job.batch)

    def _note_write(self, partition: int, start: int, end: int) -> None:
        """Note the end of an own write; a write that does not continue at the own last write shows an overlay.

        Args:
            partition: Partition of the changelog.
            start: Offset of the first record of the write.
            end: Offset after the write.
        """
        expected = self.written.get(partition, start)
        if start > expected >= 0 and end > start:
            self.overlays.note(Overlay(partition, expected, start))
        self.written[partition] = end

    def _count(self, output: Output) -> None:
        self._metrics.unscored.inc(output.unscored)
        self._metrics.count_items(output.items)
        for outcome, count in output.outcomes.items():
            self._metrics.events.labels(outcome).inc(count)

    def _drop_stale(self, jobs: list[PublishJob]) -> list[PublishJob]:
        """Give up the jobs of another generation, since another worker may own the partition; return the rest."""
        current: list[PublishJob] = []
        for job in jobs:
            if job.batch.generation == self._group.generation:
                current.append(job)
            else:
                self._ownership.discard_state(job.batch)
                self._ownership.release(job.batch)
        return current

    @contextlib.asynccontextmanager
    async def _waiting_for_kafka(self, jobs: list[PublishJob]) -> AsyncGenerator[None]:
        """Bound the wait for Kafka in a block; when Kafka refuses or is gone, give up the state of the jobs.

        Raises:
            BrokerError: Kafka refused, or did not acknowledge within `broker_wait_ms`.
        """
        limit = self._kafka.broker_wait_ms / 1000
        warning = asyncio.get_running_loop().call_later(self._warn_after_s, self._warn_waiting)
        try:
            async with asyncio.timeout(limit):  # aiokafka's own limit applies only while a partition has no leader
                yield
        except TimeoutError as exc:
            self._discard_states(jobs)
            message = (
                f"Kafka has not acknowledged for {limit:.0f} s (broker_wait_ms) what was published. "
                "Nothing of it is committed; start the worker again once a broker answers"
            )
            raise BrokerError(message) from exc
        except (KafkaError, ValueError) as exc:
            self._discard_states(jobs)
            message = (
                f"Kafka did not take what was published ({type(exc).__name__}: {exc}). Nothing of it is committed; "
                "check the topics with `clickscore topics list`, make missing ones with `clickscore topics create`, "
                "and start the worker again"
            )
            raise BrokerError(message) from exc
        finally:
            warning.cancel()

    def _discard_states(self, jobs: list[PublishJob]) -> None:
        for job in jobs:
            self._ownership.discard_state(job.batch)

    def _warn_waiting(self) -> None:
        limit = self._kafka.broker_wait_ms / 1000
        log.warning("waiting for Kafka to acknowledge what was published, for at most %.0f s", limit)

    def _outgoing(self, jobs: list[PublishJob]) -> dict[tuple[str, int], list[OutgoingRecord]]:
        """Return the records to publish, by topic and partition."""
        outgoing: dict[tuple[str, int], list[OutgoingRecord]] = defaultdict(list)
        for job in jobs:
            output, partition = job.output, job.batch.partition
            for topic, messages in (
                (RECOMMENDATIONS, output.recommendations),
                (ADS, output.ads),
                (CLOSED_SESSIONS, output.closed_sessions),
            ):
                if messages:
                    outgoing[topic.name, partition] += [
                        (message.key, message.value, job.headers) for message in messages
                    ]
            if output.dead_letters:
                letters = [
                    dead_letter(self._kafka, partition, letter, self._max_letter_bytes)
                    for letter in output.dead_letters
                ]
                outgoing[DEAD_LETTERS.name, partition] += letters
        return outgoing

    def _receipts(self, jobs: list[PublishJob]) -> dict[tuple[str, int], list[OutgoingRecord]]:
        """Return the erasure receipts to publish, by topic and partition."""
        outgoing: dict[tuple[str, int], list[OutgoingRecord]] = defaultdict(list)
        for job in jobs:
            for receipt in job.output.receipts:
                outgoing[ERASURE_RECEIPTS.name, job.batch.partition].append((receipt.key, receipt.value, []))
        return outgoing

    async def write(self, partition: int, changes: Sequence[ChangelogRecord]) -> int:
        """Store changes of a partition's state as a single record batch; return the offset after the batch."""
        messages = [
            (change.key, change.value, tombstone_headers(change) if change.value is None else []) for change in changes
        ]
        if not messages:
            return self.written.get(partition, -1)
        topic = self._kafka.topic(SNAPSHOTS.name)
        end = await self._group.producer.publish_whole(topic, partition, messages)
        self._metrics.published.labels(SNAPSHOTS.name).inc(len(messages))
        return end

    async def _send_all(self, outgoing: dict[tuple[str, int], list[OutgoingRecord]]) -> None:
        producer = self._group.producer
        await asyncio.gather(
            *(
                producer.publish(self._kafka.topic(topic), partition, messages)
                for (topic, partition), messages in outgoing.items()
            )
        )
        for (topic, _), messages in outgoing.items():
            self._metrics.published.labels(topic).inc(len(messages))


async def _take_waiting(queue: asyncio.Queue[PublishJob], light_wait_s: float = 0.0) -> list[PublishJob]:
    """Wait for a job; return all waiting jobs, as long as the snapshots fit a record batch.

    Args:
        queue: Queue to take the jobs from.
        light_wait_s: How long more jobs may take to come when few snapshots wait, s.
    """
    jobs = [await queue.get()]
    if light_wait_s and len(jobs[0].output.changes) + queue.qsize() < LIGHT_SNAPSHOTS:
        await asyncio.sleep(light_wait_s)
    size = jobs[0].snapshot_bytes
    while not queue.empty() and size < SNAPSHOT_BATCH_BYTES:
        jobs.append(queue.get_nowait())
        size += jobs[-1].snapshot_bytes
    return jobs


def tombstone_headers(change: ChangelogRecord) -> Headers:
    """Return the headers of a tombstone: the event offset. Other records have the offset in the value."""
    return [(OFFSET_HEADER, str(change.offset).encode())]


def dead_letter(kafka: KafkaSettings, partition: int, letter: DeadLetter, max_bytes: int) -> OutgoingRecord:
    """Return a rejected record with the source position and the reason as headers.

    A value or a key that is too long is cut, and a header gives the full length.

    Args:
        kafka: Names of topics.
        partition: Source partition of the record.
        letter: The record and the reason of the rejection.
        max_bytes: Largest value, bytes.
    """
    key, value = letter.record.key, letter.record.value
    headers = [
        ("topic", kafka.topic(EVENTS.name).encode()),
        ("partition", str(partition).encode()),
        ("offset", str(letter.record.offset).encode()),
        ("error", letter.error[:MAX_ERROR_CHARACTERS].encode()),
    ]
    if value is not None and len(value) > max_bytes:
        headers.append(("cut-from-bytes", str(full_size(value)).encode()))
        value = value[:max_bytes]
    if key is not None and len(key) > MAX_KEY_BYTES:
        headers.append(("key-cut-from-bytes", str(full_size(key)).encode()))
        key = key[:MAX_KEY_BYTES]
    return key, value, headers
