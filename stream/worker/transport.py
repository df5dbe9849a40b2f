# pyright: basic, reportPrivateUsage=false, reportIncompatibleMethodOverride=false
"""Transport: Faust's Kafka transport, handing over whole batches of a partition where Faust hands over events.

Faust moves one event at a time through its streams, at a cost of about 60 us each; here that cost falls on a batch.
Group membership, rebalancing, the commit timer, back-pressure and shutdown stay Faust's own. What is overridden, and
what else of Faust's inside is leaned on, is held by `tests/stream/test_transport_contract.py`: Faust is pinned, and a
version that moves one of these names fails there, with the reason.

Every topic of the app arrives in batches, so the app has one agent and no Faust tables.
"""

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import aiokafka
from faust import Schema
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import SchedulingStrategyT
from faust.types.tuples import ConsumerMessage

from clickscore.stream.kafka.client import be_patient

Records = Sequence[aiokafka.ConsumerRecord]
Message = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
"""Key, value and headers of a record to publish."""

# Faust asks the broker to hold an empty fetch for 1,500 ms, and one fetch is in flight for all partitions of a broker:
# an idle partition would hold up the busy ones for as long.
FETCH_MAX_WAIT_MS = 20
PATIENT = FETCH_MAX_WAIT_MS, 1
"""Terms of a fetch while events are rare: each comes at once."""
GATHER_BYTES = 64 * 1024
"""That end a gathering fetch before its time."""
HANDFUL = 8
"""Records of a fetch."""


class Batch(list[aiokafka.ConsumerRecord]):
    """Records of one partition, in order."""

    ends_fetch = False
    """Whether no other batch of the same fetch follows."""


class BatchScheduler(SchedulingStrategyT):
    """Hands out a fetch as batches, partitions in turn, at most `max_batch` records each."""

    max_batch: ClassVar[int] = 1024

    @classmethod
    def map_from_records(cls, records: Mapping[TP, Records]) -> Mapping[TP, Records]:
        """Return a fetch as it is."""
        return records

    def iterate(self, records: Mapping[TP, Records]) -> Iterator[tuple[TP, Batch]]:
        """Yield batches until every partition's records are out."""
        size = self.max_batch
        left = {
            tp: deque(Batch(found[at : at + size]) for at in range(0, len(found), size))
            for tp, found in records.items()
        }
        while left:
            for tp in list(left):
                batch = left[tp].popleft()
                if not left[tp]:
                    del left[tp]
                batch.ends_fetch = not left
                yield tp, batch


class BatchMessage(ConsumerMessage):
    """A batch as Faust's message: its offset is the last record's, its value the list of records."""

    ends_fetch: bool
    """Whether no other batch of the same fetch follows."""
    done = False
    """Whether all that the batch came to is acknowledged by the broker: only then may its offset be committed."""


class BatchSchema(Schema):
    """Hands the records on undecoded; the pipeline decodes them."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> None:
        """Return no key: a batch has many."""

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Records:
        """Return the records."""
        return message.value


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that fetches, with a fetch wait that suits a stream."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    def close(self) -> None:
        """Do nothing where a rebalance meets a stop: `on_thread_stop` closes the client, on the client's own loop.

        Faust would close it from here, on another thread's loop: seen to hang, and to crash the process (SIGSEGV).
        """

    async def on_thread_stop(self) -> None:
        """Stop. While a broker is gone aiokafka lets a cancelled fetch through here, and Faust would wait for ever."""
        with contextlib.suppress(asyncio.CancelledError):
            await super().on_thread_stop()


def fetch_terms(gather_ms: int, records: int) -> tuple[int, int]:
    """Return how long the broker is to hold a fetch, ms, and how many bytes end it before, where events come often.

    Args:
        gather_ms: How long a trickle gathers. Where it brings more than a handful, it gathers for twice as long: a
            machine that is nearly busy would spend itself on small batches, and all events would wait.
        records: What the last fetch brought.
    """
    if not gather_ms:
        return PATIENT
    return gather_ms if records < HANDFUL else 2 * gather_ms, GATHER_BYTES


class BatchConsumer(driver.Consumer):
    """A consumer whose unit of delivery and of commit is the batch."""

    gather_ms: ClassVar[int] = 0
    """How long a trickle gathers at the broker: a fetch and its batches cost about as much as ten events."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_flight: dict[TP, deque[BatchMessage]] = defaultdict(deque)  # in order of fetch
        self._fetched_at = 0.0
        self._expected: dict[TP, int] = {}  # offset that the next fetch of a partition may begin at, at the latest
        self._gap_at: dict[TP, int] = {}  # where a fetch began that left a gap, and was not believed

    def expect(self, offsets: Mapping[TP, int]) -> None:
        """Say from where the partitions of an assignment are to be read, at the latest."""
        self._expected, self._gap_at = dict(offsets), {}

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        records = await super()._getmany(active_partitions, timeout)
        self._set_terms(sum(map(len, records.values())))
        return {tp: found for tp, found in records.items() if await self._follows(tp, found)}

    def _set_terms(self, records: int) -> None:
        """Let the broker hold the next fetch while events come often; while they are rare, each is fetched at once."""
        now = time.monotonic()
        often, self._fetched_at = records and now - self._fetched_at < FETCH_MAX_WAIT_MS / 1000, now
        terms = fetch_terms(self.gather_ms, records) if often else PATIENT
        fetcher: Any = self._thread._ensure_consumer()._fetcher
        fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = terms

    async def _follows(self, tp: TP, records: Records) -> bool:
        """Return whether a fetch goes on where the last one ended; one that leaves a gap is read again first.

        A fetch that was asked for before a rebalance may come in after it, when its partition has been set back: taken
        as it is, it would move the state over events that nobody has seen. Seen in one of some hundred rebalances on a
        busy machine. A gap that is found twice is one of the log's own, by retention or transactions.
        """
        first, expected = records[0].offset, self._expected.get(tp)
        if self.flow_active and expected is not None:
            if first > expected and self._gap_at.get(tp) != first:
                self._gap_at[tp] = first
                await self.seek(tp, expected)
                return False
            self._expected[tp] = records[-1].offset + 1
        return True

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
            value=records,  # pyright: ignore[reportArgumentType]  (a list, where Faust has bytes)
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
        """Return the offset to commit: behind the leading run of batches that are done. Faust's acks do not count."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        queue, offset = self._in_flight[tp], None
        while queue and queue[0].done:
            offset = queue.popleft().offset + 1
        return offset

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Keep no account of missing offsets: a batch says where it ends."""

    async def perform_seek(self) -> None:
        """Forget what is in flight, since whatever is not committed is read again, and seek."""
        self._in_flight.clear()
        await super().perform_seek()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to the committed offsets, or to the beginning where nothing was ever committed.

        Faust leaves a partition of the second kind where it is. Yet a fetch that was under way as a rebalance began
        brings records of the new assignment, which Faust drops: they would be lost.
        """
        committed = await super().seek_to_committed()
        never = [tp for tp, offset in committed.items() if not offset]
        if never:
            await self._thread.seek_to_beginning(*driver.ensure_aiokafka_TPset(never))
        return committed

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: the blocking put into a short queue is the back-pressure, where Faust would sleep for seconds."""


class BatchProducer(driver.Producer):
    """A producer that sends whole record batches to a partition, idempotent and acknowledged by all replicas."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:
        return be_patient(super()._new_producer(transactional_id))

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Send messages to a partition in order, in as few record batches as hold them; return once they are stored.

        Raises:
            KafkaError: The broker refused, or did not answer in time; whether it stored them is unknown.
            ValueError: A message is larger than a record batch may be.
        """
        acknowledged, left = [], messages
        while left:
            sent, left = await self._send(topic, partition, left)
            acknowledged.append(sent)
        for sent in acknowledged:
            await sent

    async def publish_whole(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        """Send messages as one record batch, which is stored whole or not at all; return the offset after it.

        Raises:
            KafkaError: As `publish`.
            ValueError: They are larger than a record batch may be.
        """
        sent, left = await self._send(topic, partition, messages)
        if left:
            error = f"{len(messages)} records of {topic} are larger than one record batch may be: lower max_batch"
            raise ValueError(error)
        return (await sent).offset + len(messages)

    async def _send(
        self, topic: str, partition: int, messages: Sequence[Message]
    ) -> tuple[Awaitable[Any], Sequence[Message]]:
        """Send as many messages as a record batch holds; return what to await, and the messages that are left."""
        producer = self._ensure_producer()
        batch, taken = producer.create_batch(), 0
        for key, value, headers in messages:
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                break
            taken += 1
        if not taken:
            error = f"a message of {len(messages[0][1] or b'')} bytes is larger than a record batch may be"
            raise ValueError(error)
        return await producer.send_batch(batch, topic, partition=partition), messages[taken:]


class PromptTableManager(TableManager):
    """Starts at once: Faust sleeps for a second here, for tables, which this app has none of."""

    async def on_start(self) -> None:
        """Do what Faust does after its sleep."""
        await self._update_channels()
        await self.recovery.start()


class BatchTransport(driver.Transport):
    """Faust's transport with our consumer and producer."""

    Consumer = BatchConsumer
    Producer = BatchProducer
