"""Publisher: stores the outputs of batches in an order that survives a crash at any point.

1. Publish decisions, closed sessions, dead letters and hand-overs, and wait for the acknowledgements; then erasure
   receipts.
2. Publish the snapshots of the batch as a single record batch, with the partition's own record last.
3. Mark the batch as committable.

So the log has the decisions behind every stored state. After a crash before step 2 the next worker decides on the same
events again, with the same bytes. Each step takes all waiting batches at once, and the steps run side by side: the
decisions of batch n+1 need not wait for the snapshots of batch n.

For delivery exactly once, steps 1 and 2 are one Kafka transaction a partition, which only the present owner of the
partition can finish. After a crash the next owner aborts the unfinished transaction. Hand-overs are acknowledged
before: an open transaction would hold up the readers of another partition, and the receiver knows repeats.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from itertools import compress

from aiokafka.errors import KafkaError, ProducerFenced

from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, SNAPSHOTS
from clickscore.stream.errors import BrokerError
from clickscore.stream.pipeline_records import Output
from clickscore.stream.settings import KafkaSettings
from clickscore.stream.state.changelog_record import ChangelogRecord
from clickscore.stream.worker.decision_lines import DecisionLines
from clickscore.stream.worker.group import ConsumerGroup, Producer, Transactions
from clickscore.stream.worker.notices import Notices
from clickscore.stream.worker.outgoing import (
    DEAD_LETTER_BYTES,
    OutgoingRecords,
    PublishJob,
    handovers,
    newest_changes,
    outputs,
    receipts,
    snapshots,
)
from clickscore.stream.worker.overlays import Overlay, Overlays
from clickscore.stream.worker.ownership import Ownership
from clickscore.stream.worker.prometheus_metrics import Metrics

log = logging.getLogger(__name__)

Loop = Callable[[], Awaitable[None]]
"""Work that runs until cancelled."""

AppendTimes = dict[tuple[str, int], int | None]
"""Append time (ms) of the last record by topic, without the prefix, and partition; None where Kafka does not say."""

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
PARTITION_COUNT_S = 0.05
"""Time between two looks for the number of partitions, s. The client knows it, but for moments after a reconnect."""
WARN_AFTER_S = 3.0
"""Time without an acknowledgement before a warning, s."""


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
        log_share: float = 0.0,
        transactions: Transactions | None = None,
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
            log_share: Share of the decisions with a line in the log.
            transactions: Transactions of the partitions, for delivery exactly once.
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
        self._transactions = transactions
        self._max_letter_bytes = min(max_event_bytes, DEAD_LETTER_BYTES)
        self._notices = Notices(kafka.topic(EVENTS.name), group, metrics)
        self._decision_lines = DecisionLines(kafka.topic(EVENTS.name), log_share)
        self._warn_after_s = warn_after_s
        self._light_wait_s = light_wait_s
        self._computed: asyncio.Queue[PublishJob] = asyncio.Queue(OUTPUT_QUEUE)
        self._decided: asyncio.Queue[PublishJob] = asyncio.Queue(SNAPSHOT_QUEUE)

    @property
    def loops(self) -> Sequence[Loop]:
        """Work to run side by side until cancelled."""
        return (self.publish_transactions,) if self._transactions else (self.publish_decisions, self.publish_states)

    async def put(self, job: PublishJob) -> None:
        """Queue a job; wait while the queue is full."""
        await self._computed.put(job)

    async def take_over(self, partitions: Collection[int]) -> None:
        """Fence every earlier owner of the partitions of this worker, where there are transactions."""
        if self._transactions:
            await self._transactions.take_over(partitions)

    async def publish_decisions(self) -> None:
        """Publish the outputs of batches as they are computed, until cancelled.

        Raises:
            BrokerError: Kafka refused a record, or did not acknowledge within `broker_wait_ms`.
        """
        while True:
            jobs = self._drop_stale(await _take_waiting(self._computed))
            started_at = time.monotonic()
            async with self._waiting_for_kafka(jobs):
                outgoing = outputs(self._kafka, jobs, self._max_letter_bytes) | await self._handovers(jobs)
                append_times = await self._send_all(self._group.producer, outgoing)
                await self._send_all(self._group.producer, receipts(jobs))
            self._metrics.publish_seconds.observe(time.monotonic() - started_at)
            self._note_stored(jobs, append_times)
            for job in jobs:
                await self._decided.put(job)

    async def publish_states(self) -> None:
        """Publish the snapshots of batches after the outputs, and make the batches committable, until cancelled.

        Raises:
            BrokerError: Kafka refused a record batch, or did not acknowledge within `broker_wait_ms`.
        """
        while True:
            jobs = self._drop_stale(await _take_waiting(self._decided, self._light_wait_s))
            newest = {partition: newest_changes(waiting) for partition, waiting in _by_partition(jobs).items()}
            async with self._waiting_for_kafka(jobs):
                writes = (self.write(partition, changes) for partition, changes in newest.items())
                ends = await asyncio.gather(*writes)
            for (partition, changes), end in zip(newest.items(), ends, strict=True):
                self._note_write(partition, end - len(changes), end)
            self._finish(jobs)

    def _finish(self, jobs: Sequence[PublishJob]) -> None:
        """Make stored batches committable, and release them."""
        for job in jobs:
            job.batch.mark_committable()
            self._count(job.output)
            self._notices.note(job.batch.partition, job.output)
            self._ownership.release(job.batch)

    def _give_up(self, jobs: Sequence[PublishJob]) -> None:
        """Release batches without a commit: another worker owns the partition, or will."""
        for job in jobs:
            self._ownership.discard_state(job.batch)
            self._ownership.release(job.batch)

    async def publish_transactions(self) -> None:
        """Store the outputs and the snapshots of each partition's batches in a transaction, until cancelled.

        Raises:
            BrokerError: Kafka refused a record, or did not acknowledge within `broker_wait_ms`.
        """
        while True:
            jobs = self._drop_stale(await _take_waiting(self._computed))
            started_at = time.monotonic()
            async with self._waiting_for_kafka(jobs):
                await self._send_all(self._group.producer, await self._handovers(jobs))
                await asyncio.gather(*(self._transact(*waiting) for waiting in _by_partition(jobs).items()))
            self._metrics.publish_seconds.observe(time.monotonic() - started_at)

    async def _handovers(self, jobs: Sequence[PublishJob]) -> OutgoingRecords:
        """Return the hand-overs of jobs, once the number of partitions is known."""
        if not any(job.output.handovers or job.output.budget_records for job in jobs):
            return {}
        while (partitions := self._group.partition_count()) is None:  # noqa: ASYNC110 (the client tells no change)
            await asyncio.sleep(PARTITION_COUNT_S)
        return handovers(jobs, partitions)

    async def _transact(self, partition: int, jobs: list[PublishJob]) -> None:
        """Store the jobs of a partition in a transaction; give them up where another worker owns the partition.

        Args:
            partition: Partition of all jobs.
            jobs: Jobs in the order of their batches.
        """
        changes = newest_changes(jobs)
        try:
            if changes:  # a batch that was decided before a crash changes nothing
                await self._commit(partition, jobs, changes)
        except ProducerFenced:
            log.warning("partition %d: another worker has taken over; %d batches are given up", partition, len(jobs))
            self._give_up(jobs)
        else:
            self._finish(jobs)

    async def _commit(self, partition: int, jobs: list[PublishJob], changes: list[ChangelogRecord]) -> None:
        """Store outputs and changes in a transaction.

        Args:
            partition: Partition of all jobs.
            jobs: Jobs in the order of their batches.
            changes: Last change of each key, at least one.

        Raises:
            ProducerFenced: Another worker owns the partition.
        """
        assert self._transactions
        outgoing = outputs(self._kafka, jobs, self._max_letter_bytes) | receipts(jobs)
        async with self._transactions.begin(partition) as producer:
            append_times, end = await asyncio.gather(
                self._send_all(producer, outgoing),
                producer.publish_whole(self._kafka.topic(SNAPSHOTS.name), partition, snapshots(changes)),
            )
        self._metrics.published.labels(SNAPSHOTS.name).inc(len(changes))
        self.written[partition] = end + 1  # the marker of the transaction takes an offset
        self._note_stored(jobs, append_times)

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
        for rule, count in output.removed.items():
            self._metrics.removed.labels(rule).inc(count)
        for rule, count in output.moved.items():
            self._metrics.moved.labels(rule).inc(count)
        for result, count in output.feedback.items():
            self._metrics.feedback.labels(result).inc(count)
        for labels, count in output.reactions.items():
            self._metrics.reactions.labels(*labels).inc(count)
        for labels, amount in output.revenue.items():
            self._metrics.revenue.labels(*labels).inc(amount)
        for name, amount in output.charged.items():
            self._metrics.charged.labels(name).inc(amount)
        for outcome, count in output.outcomes.items():
            self._metrics.events.labels(outcome).inc(count)

    def _drop_stale(self, jobs: list[PublishJob]) -> list[PublishJob]:
        """Give up the jobs that are no longer current; return the rest.

        Another worker may own a partition of an earlier generation. And a batch that was computed after its partition's
        state was discarded began on an empty state.
        """
        current = [self._ownership.is_current(job.batch) for job in jobs]
        self._give_up([job for job, is_current in zip(jobs, current, strict=True) if not is_current])
        return list(compress(jobs, current))

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

    async def write(self, partition: int, changes: Sequence[ChangelogRecord]) -> int:
        """Store changes of a partition's state as a single record batch; return the offset after the batch.

        Raises:
            ProducerFenced: Another worker owns the partition; only with transactions.
        """
        if not changes:
            return self.written.get(partition, -1)
        topic, records = self._kafka.topic(SNAPSHOTS.name), snapshots(changes)
        if self._transactions:
            async with self._transactions.begin(partition) as producer:
                end = await producer.publish_whole(topic, partition, records)
            end += 1  # the marker of the transaction takes an offset
        else:
            end = await self._group.producer.publish_whole(topic, partition, records)
        self._metrics.published.labels(SNAPSHOTS.name).inc(len(changes))
        return end

    def _note_stored(self, jobs: Sequence[PublishJob], append_times: AppendTimes) -> None:
        """Count the time from the append of each event to the append of its recommendation; end the traces.

        Args:
            jobs: Jobs whose decisions are stored.
            append_times: Append times of their records.
        """
        for job in jobs:
            appended_at = append_times.get((RECOMMENDATIONS.name, job.batch.partition))
            job.traces.finish(appended_at)
            self._decision_lines.write(job)
            if appended_at is not None:
                self._metrics.event_to_decision.observe(
                    appended_at - timestamp for timestamp in job.event_times() if timestamp >= 0
                )

    async def _send_all(self, producer: Producer, outgoing: OutgoingRecords) -> AppendTimes:
        """Send the outputs of batches; return the append times once all are stored.

        Args:
            producer: Producer to send with.
            outgoing: Records by topic, without the prefix, and partition.
        """
        append_times = await asyncio.gather(
            *(
                producer.publish(self._kafka.topic(topic), partition, messages)
                for (topic, partition), messages in outgoing.items()
            )
        )
        for (topic, _), messages in outgoing.items():
            self._metrics.published.labels(topic).inc(len(messages))
        return dict(zip(outgoing, append_times, strict=True))


def _by_partition(jobs: Sequence[PublishJob]) -> dict[int, list[PublishJob]]:
    """Return the jobs of each partition, in order."""
    partitions: dict[int, list[PublishJob]] = defaultdict(list)
    for job in jobs:
        partitions[job.batch.partition].append(job)
    return partitions


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
