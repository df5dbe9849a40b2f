# pyright: basic, reportPrivateUsage=false, reportIncompatibleMethodOverride=false
"""Transport: Faust's Kafka transport, changed to deliver whole batches of a partition instead of single events.

Faust moves single events through streams, at a cost of about 60 us an event; here a batch pays this cost once. Group
membership, rebalancing, the commit timer, back-pressure and shutdown stay Faust's own. Faust is pinned. The tests in
`tests/stream/worker/test_transport_contract.py` check every overridden method and every private name, and explain the
damage of a change.

Every topic of the app arrives in batches, so the app has a single agent and no Faust tables.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import aiokafka
from faust import Schema
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import SchedulingStrategyT
from faust.types.tuples import ConsumerMessage

from clickscore.stream.kafka.bounded_fetch import bound_unpacking
from clickscore.stream.kafka.client import with_retry_backoff
from clickscore.stream.kafka.rights import RIGHT_ERRORS
from clickscore.stream.pipeline_records import MAX_KEY_BYTES
from clickscore.stream.worker.group import LossReporter, OutgoingRecord
from clickscore.stream.worker.whole_batches import send_batches, send_whole_batch

log = logging.getLogger(__name__)

Records = Sequence[aiokafka.ConsumerRecord]

FETCH_MAX_WAIT_MS = 20
"""How long the broker holds an empty fetch, ms. A fetch serves all partitions of a broker, so with Faust's 1,500 ms an
idle partition would delay the busy partitions."""
IDLE_FETCH = FETCH_MAX_WAIT_MS, 1
"""Wait (ms) and minimum size (bytes) of a fetch while events are rare: each event is fetched at once."""
STEADY_FETCH_BYTES = 64 * 1024
"""Minimum size of a fetch while events are frequent, bytes: this size ends the wait early."""
BUSY_FETCH_RECORDS = 8
"""Smallest number of records of a busy fetch. The fetch after a busy fetch waits twice as long."""


class Batch(list[aiokafka.ConsumerRecord]):
    """Records of a partition, in order."""

    ends_fetch = False
    """Whether this batch is the last batch of the fetch."""


class BatchScheduler(SchedulingStrategyT):
    """Splits a fetch into batches of at most `max_batch` records, and takes the partitions in turn."""

    max_batch: ClassVar[int] = 1024

    @classmethod
    def map_from_records(cls, records: Mapping[TP, Records]) -> Mapping[TP, Records]:
        """Return a fetch unchanged."""
        return records

    def iterate(self, records: Mapping[TP, Records]) -> Iterator[tuple[TP, Batch]]:
        """Yield batches until the records of every partition are used up."""
        size = self.max_batch
        remaining = {
            tp: deque(Batch(fetched[start : start + size]) for start in range(0, len(fetched), size))
            for tp, fetched in records.items()
        }
        while remaining:
            for tp in list(remaining):
                batch = remaining[tp].popleft()
                if not remaining[tp]:
                    del remaining[tp]
                batch.ends_fetch = not remaining
                yield tp, batch


class BatchMessage(ConsumerMessage):
    """A batch as Faust's message, with the last record's offset, and the list of records as the value."""

    ends_fetch: bool
    """Whether this batch is the last batch of the fetch."""
    committable = False
    """Whether the broker has acknowledged all output of the batch: only then may the offset be committed."""


class BatchSchema(Schema):
    """Passes the records on undecoded; decoding is part of the pipeline."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> None:
        """Return no key: a batch has many."""

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Records:
        """Return the records.

        Args:
            app: The Faust app.
            message: The batch.
            kwargs: Faust's other arguments, without meaning here.
        """
        return message.value


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread of fetches, with a fetch wait for streams."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = self.consumer.isolation_level  # pyright: ignore[reportAttributeAccessIssue]  (BatchConsumer)
        max_event_bytes = self.consumer.max_event_bytes  # pyright: ignore[reportAttributeAccessIssue]  (BatchConsumer)
        consumer.commit = partial(_commit_if_allowed, consumer.commit)  # pyright: ignore[reportAttributeAccessIssue]  (offsets are always given)
        return bound_unpacking(consumer, max_key_bytes=MAX_KEY_BYTES, max_value_bytes=max_event_bytes)

    def fetch_position(self, tp: TP) -> int | None:
        """Return the next offset to fetch, or no offset while the client looks for a position."""
        assignment: Any = self._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(tp) if assignment and tp in assignment.tps else None
        return state.position if state and state.has_valid_position else None

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look for a stalled stream, as Faust does every few seconds.

        While the client looks for a position, such as after a reset, Faust's look would end the worker with an
        AssertionError. Between the two looks here the client may lose its position in the other thread.
        """
        if self.fetch_position(tp) is not None:
            with contextlib.suppress(AssertionError):
                super().verify_event_path(now, tp)

    def partition_count(self, topic: str) -> int | None:
        """Return the number of partitions of a topic in the newest metadata; None before the first metadata."""
        partitions = self._ensure_consumer().partitions_for_topic(topic)
        return len(partitions) if partitions else None

    def close(self) -> None:
        """Do nothing when a rebalance meets a stop: `on_thread_stop` closes the client, on the client's own loop.

        Faust would close the client from here, on another thread's loop: seen to hang, and to crash with SIGSEGV.
        """

    async def commit(self, offsets: Any) -> bool:
        """Commit offsets; commit nothing where a crash has ended the thread already.

        The state in the changelog knows what is finished, so an offset that is not committed costs nothing.
        """
        try:
            return await super().commit(offsets)
        except RuntimeError:
            if not self.thread_loop.is_closed():
                raise
            return False

    def _stopped_set(self) -> None:
        """Mark the thread as stopped, also where a crash has ended the thread and closed its loop already."""
        try:
            super()._stopped_set()
        except RuntimeError:
            if not self.thread_loop.is_closed():
                raise
            self._stopped.set()

    async def on_thread_stop(self) -> None:
        """Stop the client.

        While no broker answers, aiokafka lets a cancelled fetch through here, and Faust would wait for ever.
        """
        with contextlib.suppress(asyncio.CancelledError):
            await super().on_thread_stop()


async def _commit_if_allowed(commit: Callable[[Any], Awaitable[None]], offsets: Any) -> None:
    """Commit; without the right to do so, wait for the watch of topics to name the right and to stop the worker.

    Faust would end the thread with a traceback.

    Args:
        commit: Commits offsets.
        offsets: Offsets to commit.
    """
    try:
        await commit(offsets)
    except RIGHT_ERRORS as exc:
        log.warning("offsets cannot be committed: %s", exc)


def fetch_limits(fetch_wait_ms: int, records: int) -> tuple[int, int]:
    """Return the longest wait of a fetch (ms), and the size for an earlier end (bytes).

    Args:
        fetch_wait_ms: Wait of a fetch while traffic is steady, ms; doubled when a fetch returns `BUSY_FETCH_RECORDS`
            records or more. A nearly busy machine would waste time on small batches otherwise.
        records: Number of records of the last fetch.
    """
    if not fetch_wait_ms:
        return IDLE_FETCH
    return fetch_wait_ms if records < BUSY_FETCH_RECORDS else 2 * fetch_wait_ms, STEADY_FETCH_BYTES


class BatchConsumer(driver.Consumer):
    """A consumer of batches: delivers and commits whole batches."""

    fetch_wait_ms: ClassVar[int] = 0
    """Wait of a fetch while traffic is steady, ms. A fetch costs about as much as ten events."""
    max_event_bytes: ClassVar[int] = 64 * 1024
    """Bytes of a value that are kept: a larger value is cut, because it becomes a dead letter anyway."""
    isolation_level: ClassVar[str] = "read_committed"
    """Whether records of aborted and open transactions are left out, in Kafka's words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_flight: dict[TP, deque[BatchMessage]] = defaultdict(deque)  # in order of fetch
        self._fetched_at = 0.0
        self._expected: dict[TP, int] = {}  # offset from which the next fetch of a partition begins, at the latest
        self._gap_ends: dict[TP, int] = {}  # first offset of a fetch that left a gap and was refused
        self._following: set[TP] = set()  # partitions with a fetch since `expect`, which only move forward
        self._passed: dict[TP, int] = {}  # offset of the next fetch, with all earlier records delivered
        self._losses: LossReporter | None = None

    def expect(self, offsets: Mapping[TP, int], losses: LossReporter | None = None) -> None:
        """Set the latest offset to start each partition of an assignment from.

        Args:
            offsets: Offset by partition.
            losses: Takes lost ranges.
        """
        self._expected, self._gap_ends, self._losses = dict(offsets), {}, losses
        self._following, self._passed = set(), {}

    def readable_end(self, tp: TP) -> int | None:
        """Return the offset after the last readable record, or no offset before the first fetch.

        A partition may end with a transaction's marker or an aborted record; no consumer ever receives these.
        """
        thread: Any = self._thread  # a BatchConsumerThread
        end, position = self.highwater(tp), thread.fetch_position(tp)
        if end is None or position is None or position < end:
            return end
        return self._expected.get(tp, end)

    def partition_count(self, topic: str) -> int | None:
        """Return the number of partitions of a topic in the newest metadata; None before the first metadata."""
        thread: Any = self._thread  # a BatchConsumerThread
        return thread.partition_count(topic)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 (Faust's name)
        self._note_positions()
        try:
            fetched = await super()._getmany(active_partitions, timeout)
        except RIGHT_ERRORS as exc:  # the watch of topics names the right, and stops the worker
            log.warning("events cannot be read: %s", exc)
            await asyncio.sleep(timeout)
            return {}
        self._set_fetch_limits(sum(map(len, fetched.values())))
        return {tp: records for tp, records in fetched.items() if await self._is_contiguous(tp, records)}

    def _set_fetch_limits(self, records: int) -> None:
        """Let the broker hold the next fetch while events are frequent; while they are rare, fetch each at once."""
        now = time.monotonic()
        is_steady, self._fetched_at = records and now - self._fetched_at < FETCH_MAX_WAIT_MS / 1000, now
        limits = fetch_limits(self.fetch_wait_ms, records) if is_steady else IDLE_FETCH
        fetcher: Any = self._thread._ensure_consumer()._fetcher
        fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = limits

    def _note_positions(self) -> None:
        """Note how far each partition is read: markers and aborted records of transactions are passed in silence."""
        thread: Any = self._thread  # a BatchConsumerThread
        for tp in self._following:
            position = thread.fetch_position(tp)
            if position is not None and position >= self._expected[tp]:
                self._passed[tp] = position

    async def _is_contiguous(self, tp: TP, records: Records) -> bool:
        """Return whether a fetch continues at the expected offset; a fetch with a gap is read again first.

        A fetch from before a rebalance may arrive after the rebalance has set the partition back. The state would move
        over unseen events. This happened about once in a hundred rebalances on a busy machine. A gap in both reads is
        a gap of the log: before the log's beginning the records are lost, after it they belong to transactions.
        """
        first, expected = records[0].offset, self._expected.get(tp)
        if self.flow_active and expected is not None:
            if first < expected and tp in self._following:
                self._report_cut_back(tp, expected - 1, first)
                return False
            if first > expected and self._gap_ends.get(tp) != first:
                self._gap_ends[tp] = first
                await self.seek(tp, expected)
                return False
            if first > expected:
                await self._look_for_loss(tp, max(expected, self._passed.get(tp, 0)), first)
            self._expected[tp] = records[-1].offset + 1
            self._following.add(tp)
        return True

    async def _look_for_loss(self, tp: TP, start: int, end: int) -> None:
        """Report the part of a gap that lies before the beginning of the log.

        Args:
            tp: Partition with the gap.
            start: First missing offset.
            end: Offset after the last missing offset.
        """
        beginning = (await self.earliest_offsets(tp))[tp]
        if self._losses and beginning > start:
            self._losses.report(tp.partition, start, min(end, beginning))

    def _report_cut_back(self, tp: TP, offset: int, start: int) -> None:
        """Report that the client was sent back: the broker has no such offset any more.

        Args:
            tp: Partition of the fetch.
            offset: Last offset that was read.
            start: First offset of the fetch.
        """
        if self._losses:
            self._losses.report_cut_back(tp.partition, offset, start)

    def _to_message(self, tp: TP, record: Any) -> BatchMessage:
        records: Batch = record
        last = records[-1]
        message = BatchMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000,
            timestamp_type=last.timestamp_type,
            headers=None,
            key=None,
            value=records,  # pyright: ignore[reportArgumentType]  (a list in place of Faust's bytes)
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.ends_fetch = records.ends_fetch
        self._in_flight[tp].append(message)
        return message

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: the offset after the leading run of committable batches.

        When no batch waits, the markers behind the last batch are committed, too: at the next start, a log that ends
        with markers, and that retention has emptied, has lost no event.

        Faust's own acknowledgements do not count: Faust acknowledges an event even after an error of the agent.
        """
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        queue, offset = self._in_flight[tp], None
        while queue and queue[0].committable:
            offset = queue.popleft().offset + 1
        return offset if queue else self._passed.get(tp, offset)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore missing offsets: a batch knows the last offset."""

    async def perform_seek(self) -> None:
        """Forget the batches in flight, since all uncommitted records are read again, and seek."""
        self._in_flight.clear()
        self._following.clear()
        self._passed.clear()
        await super().perform_seek()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to the committed offsets, or to the beginning of partitions without a committed offset.

        Faust does not seek in a partition without a committed offset. A fetch from the beginning of a rebalance returns
        records of the new assignment, and Faust drops these records: they would be lost.
        """
        committed = await super().seek_to_committed()
        uncommitted = [tp for tp, offset in committed.items() if not offset]
        if uncommitted:
            await self._thread.seek_to_beginning(*driver.ensure_aiokafka_TPset(uncommitted))
        return committed

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: the blocking put into a short queue is the back-pressure. Faust would sleep for seconds."""


class BatchProducer(driver.Producer):
    """A producer of whole record batches, idempotent and acknowledged by all replicas."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:
        return with_retry_backoff(super()._new_producer(transactional_id))

    async def publish(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int | None:
        """Send records in order and return the append time once all are stored, as in `group.Producer`.

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.
        """
        return await send_batches(self._ensure_producer(), topic, partition, messages)

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[OutgoingRecord]) -> int:
        """Send records as a single record batch and return the offset after the batch, as in `group.Producer`.

        Args:
            topic: Full name of the topic.
            partition: Partition to store the records in.
            messages: Key, value and headers of each record.
        """
        return await send_whole_batch(self._ensure_producer(), topic, partition, messages)


class PromptTableManager(TableManager):
    """A table manager with a prompt start. Faust sleeps for a second here, for tables; this app has no tables."""

    async def on_start(self) -> None:
        """Do Faust's work without the sleep."""
        await self._update_channels()
        await self.recovery.start()


class BatchTransport(driver.Transport):
    """Faust's transport with the batch consumer and the batch producer."""

    Consumer = BatchConsumer
    Producer = BatchProducer
