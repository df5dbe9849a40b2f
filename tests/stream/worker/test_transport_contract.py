"""Contract with Faust and aiokafka: every private or undocumented behaviour that the transport depends on.

A test that fails after an upgrade explains the damage in the worker. No broker is needed: the objects are real and are
never started.
"""

import asyncio
import inspect
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
import faust
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.producer.producer import AIOKafkaProducer
from faust import Event
from faust.app import App
from faust.exceptions import ConsumerNotStarted
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import conductor
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.consumer import ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import ServiceThread

from clickscore.schemas.topics import EVENTS
from clickscore.stream.kafka.client import RETRY_SECONDS
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.worker import transport
from clickscore.stream.worker.app import create_app, faust_app
from clickscore.stream.worker.transport import BatchConsumer

HERE = TP(EVENTS.name, 0)
OTHER = TP(EVENTS.name, 1)

Use = Callable[[faust.App], Awaitable[Any]]


def in_app(use: Use, **settings: Any) -> Any:
    """Return the result of `use` on an app that is built but not started, inside an event loop for the clients."""

    async def run() -> Any:
        return await use(faust_app(Settings.of(**settings)))

    return asyncio.run(run())


def record(offset: int, partition: int = 0) -> ConsumerRecord:
    return ConsumerRecord(EVENTS.name, partition, offset, 1_000 * offset, 0, None, b"{}", None, 0, 2, ())


def messages(consumer: Any, *offsets: tuple[int, ...], tp: TP = HERE) -> list[transport.BatchMessage]:
    batches = [transport.Batch(record(offset, tp.partition) for offset in batch) for batch in offsets]
    return [consumer._to_message(tp, batch) for batch in batches]


def source(thing: Any) -> str:
    return " ".join(inspect.getsource(thing).split())


def in_order(text: str, *parts: str) -> bool:
    positions = [text.find(part) for part in parts]
    return -1 not in positions and positions == sorted(positions)


class Recorded(transport.BatchConsumer):
    """A consumer with prepared fetches, which remembers the arguments of each fetch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetch_arguments: list[dict[str, Any]] = []
        self.assigned = {HERE, OTHER}

    def assignment(self) -> set[TP]:
        return self.assigned

    def highwater(self, tp: TP) -> int:
        del tp
        return 1_000

    async def seek_to_committed(self) -> dict[TP, int]:
        return {HERE: 2}

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109 (Faust's)
        self.fetch_arguments.append({"active_partitions": active_partitions, "timeout": timeout})
        return {HERE: [record(n) for n in range(5)], OTHER: [record(n, 1) for n in range(2)]}


def recorded(app: faust.App) -> Recorded:
    async def nothing(*_: Any) -> None:
        """Take no notice."""

    consumer = Recorded(app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing)
    consumer._set_active_tps({HERE, OTHER})
    return consumer


# Versions


@pytest.mark.parametrize(("package", "pinned"), [("faust-streaming", "0.15.3"), ("aiokafka", "0.14.0")])
def test_version_is_the_pinned_one(package: str, pinned: str) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert f"{package}=={pinned}" in project["project"]["dependencies"], (
        f"{package} is no longer pinned: these contracts were read from {pinned}; read them again before moving it"
    )
    assert version(package) == pinned


# Installation: without these Faust's own transport runs, event by event, and the agent gets no lists


def test_app_takes_a_transport_by_its_setter() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.transport, transport.BatchTransport)

    in_app(use)


def test_transport_builds_the_consumer_class_that_it_names() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.consumer, transport.BatchConsumer)

    in_app(use)


def test_transport_builds_the_producer_class_that_it_names() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.producer, transport.BatchProducer)

    in_app(use)


def test_consumer_uses_the_scheduler_of_the_settings_without_arguments() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.consumer.scheduler, transport.BatchScheduler)
        assert app.consumer.scheduler.max_batch == 7

    in_app(use, max_batch=7)


def test_consumer_builds_its_thread_by_new_consumer_thread() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.consumer._thread, transport.BatchConsumerThread), (
            "the fetch wait stays at Faust's 1,500 ms, which parks busy partitions"
        )

    in_app(use)


def test_app_uses_the_table_manager_of_the_settings() -> None:
    async def use(app: faust.App) -> None:
        assert isinstance(app.tables, transport.PromptTableManager), "a worker's start takes a second more"

    in_app(use)


# Fetching


def test_fetch_wait_is_an_attribute_that_start_hands_to_the_fetcher() -> None:
    async def use(app: faust.App) -> None:
        consumer = app.consumer._thread._create_worker_consumer(app.transport)
        assert consumer._fetch_max_wait_ms == transport.FETCH_MAX_WAIT_MS
        await consumer.stop()

    in_app(use)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in source(aiokafka.AIOKafkaConsumer.start), (
        "an idle partition holds up the busy ones for 1,500 ms"
    )
    assert "fetch_max_wait_ms" in inspect.signature(Fetcher).parameters


def test_offsets_are_committed_by_the_client_that_the_thread_made() -> None:
    assert "await consumer.commit(aiokafka_offsets)" in source(driver.AIOKafkaConsumerThread._commit), (
        "a right to commit that is taken away ends the thread with a traceback"
    )


def test_fetcher_parses_the_batches_that_its_client_returns() -> None:
    code = source(Fetcher._proc_fetch_request)
    assert in_order(
        code,
        "response = await self._client.send(node_id, request)",
        "for topic, partitions in request.topics:",
        "for topic, partitions in response.topics:",
        "records = MemoryRecords(part_data[-1])",
    ), "compressed batches are no longer unpacked by stream/kafka/bounded_fetch.py, and may take gigabytes"


def test_fetch_asks_for_what_the_fetcher_says_at_that_moment() -> None:
    code = source(Fetcher._get_actions_per_node)
    assert "FetchRequest( self._fetch_max_wait_ms, self._fetch_min_bytes," in code, (
        "the broker no longer holds fetches: light traffic takes twice the CPU time, on a busy machine many times"
    )


@pytest.mark.parametrize(
    ("fetch_wait_ms", "records", "limits"),
    [
        (4, 7, (4, transport.STEADY_FETCH_BYTES)),
        (4, 8, (8, transport.STEADY_FETCH_BYTES)),
        (0, 100, transport.IDLE_FETCH),
    ],
)
def test_events_gather_longer_where_more_come(fetch_wait_ms: int, records: int, limits: tuple[int, int]) -> None:
    assert transport.fetch_limits(fetch_wait_ms, records) == limits


def test_last_batch_of_a_fetch_says_so() -> None:
    async def use(app: faust.App) -> list[bool]:
        fetched: AsyncIterator[tuple[TP, Any]] = recorded(app).getmany(timeout=1.0)
        return [message.ends_fetch async for _, message in fetched]

    assert in_app(use, max_batch=3) == [False, False, True], "partitions of a fetch are scored in a call each"


def test_getmany_yields_one_message_a_batch_of_the_scheduler() -> None:
    async def use(app: faust.App) -> list[tuple[TP, list[int]]]:
        fetched: AsyncIterator[tuple[TP, Any]] = recorded(app).getmany(timeout=1.0)
        return [(tp, [each.offset for each in message.value]) async for tp, message in fetched]

    batches = in_app(use, max_batch=3)
    assert batches == [(HERE, [0, 1, 2]), (OTHER, [0, 1]), (HERE, [3, 4])], (
        "the agent gets no batches, or broken batches"
    )


def test_getmany_fetches_by_getmany_of_active_partitions_and_timeout() -> None:
    async def use(app: faust.App) -> list[dict[str, Any]]:
        consumer = recorded(app)
        async for _ in consumer.getmany(timeout=0.5):
            pass
        return consumer.fetch_arguments

    assert in_app(use) == [{"active_partitions": {HERE, OTHER}, "timeout": 0.5}], "a fetch with a gap is not noticed"


def test_message_takes_the_fields_of_a_batch_and_those_that_faust_and_we_set() -> None:
    async def use(app: faust.App) -> transport.BatchMessage:
        return messages(app.consumer, (4, 5, 6))[0]

    message = in_app(use)
    assert (message.offset, message.tp, message.timestamp, message.generation_id) == (6, HERE, 6.0, 0)
    assert (message.acked, message.tracked, message.refcount, message.committable) == (False, False, 0, False)
    message.committable = True


def test_drain_passes_gaps_to_add_gap_and_batches_to_the_callback() -> None:
    drain = source(BaseConsumer._drain_messages)
    assert "await self._add_gap(tp, r_offset + 1, offset)" in drain, (
        "Faust would book the offsets between two batches as processed, and commit what is not"
    )
    assert "self.wait_first( callback(message), self.suspend_flow.wait() )" in drain, (
        "a rebalance would wait for the agent's queue"
    )


def test_full_queue_is_said_by_on_buffer_full_and_then_waited_for() -> None:
    assert inspect.signature(BaseConsumer.on_buffer_full).parameters.keys() == {"self", "tp"}
    assert "consumer_on_buffer_full = app.consumer.on_buffer_full" in source(conductor), (
        "Faust drops full partitions, and the worker sleeps for a second when all partitions are full"
    )
    assert "dest_chan.put(dest_event)" in source(conductor), "nothing holds fetching back any more"


# Commits: without these Faust commits offsets of unstored output (events are lost), or no offsets (lag for ever)


def test_offset_to_commit_is_asked_of_new_offset() -> None:
    async def use(app: faust.App) -> dict[TP, int]:
        consumer = app.consumer
        first, second, _ = messages(consumer, (0, 1), (2, 3), (4, 5))
        first.committable = second.committable = True
        return consumer._filter_committable_offsets([HERE])

    assert in_app(use) == {HERE: 4}


def test_uncommittable_batch_holds_back_the_batches_behind_it() -> None:
    async def use(app: faust.App) -> dict[TP, int]:
        consumer = app.consumer
        first, _, third = messages(consumer, (0, 1), (2, 3), (4, 5))
        first.committable = third.committable = True
        return consumer._filter_committable_offsets([HERE])

    assert in_app(use) == {HERE: 2}


def test_acked_message_that_is_not_committable_is_not_committed() -> None:
    async def use(app: faust.App) -> dict[TP, int]:
        consumer = app.consumer
        app.topics.acking_topics.add(EVENTS.name)
        consumer.ack(messages(consumer, (0, 1))[0])
        return consumer._filter_committable_offsets([HERE])

    assert in_app(use) == {}


def test_ack_puts_a_partition_among_those_that_are_looked_at_for_a_commit() -> None:
    async def use(app: faust.App) -> list[TP]:
        consumer = app.consumer
        app.topics.acking_topics.add(EVENTS.name)
        consumer.ack(messages(consumer, (0, 1))[0])
        return list(consumer._filter_tps_with_pending_acks())

    assert in_app(use) == [HERE]


def test_partition_is_still_looked_at_once_its_acks_are_cleared() -> None:
    async def use(app: faust.App) -> list[TP]:
        consumer = app.consumer
        app.topics.acking_topics.add(EVENTS.name)
        consumer.ack(messages(consumer, (0, 1))[0])
        consumer._new_offset(HERE)
        return list(consumer._filter_tps_with_pending_acks())

    assert in_app(use) == [HERE], "a batch that becomes committable after its ack was cleared is never committed"


def test_ack_frees_a_message_that_wait_empty_waits_for() -> None:
    async def use(app: faust.App) -> int:
        consumer = app.consumer
        app.topics.acking_topics.add(EVENTS.name)
        message = messages(consumer, (0, 1))[0]
        consumer.track_message(message)
        assert len(consumer._unacked_messages) == 1
        consumer.ack(message)
        return len(consumer._unacked_messages)

    assert in_app(use) == 0, "a shutdown never ends"


def test_shutdown_and_rebalance_wait_for_what_is_not_acked() -> None:
    assert "while not self.should_stop and self._unacked_messages" in source(BaseConsumer.wait_empty)
    assert "await T(self._consumer_wait_empty)(consumer, on_timeout)" in source(App._on_partitions_revoked), (
        "a partition is given away while its batches are on their way"
    )
    assert "await self._consumer_wait_empty(consumer, self.log)" in source(App._stop_consumer), (
        "SIGTERM leaves batches half published"
    )


# Faust runs the second where it was compiled, as in its wheels.
@pytest.mark.parametrize(
    "loop", [source(Stream), (files("faust._cython") / "streams.pyx").read_text()], ids=["py", "c"]
)
def test_stream_tracks_what_it_hands_out_and_skips_what_another_generation_fetched(loop: str) -> None:
    assert "add_unacked(message)" in loop, "Faust no longer waits for unfinished batches"
    assert "message.generation_id != self.app.consumer_generation_id" in loop


def test_noack_leaves_the_ack_to_us() -> None:
    async def use(app: faust.App) -> bool:
        return app.stream(app.topic(EVENTS.name)).noack().enable_acks

    assert in_app(use) is False, (
        "Faust acks a batch when the agent asks for the next batch, before the output is stored"
    )


def test_events_of_a_stream_have_the_message_and_an_ack() -> None:
    assert inspect.isasyncgenfunction(Stream.events)
    assert callable(Event.ack)


# Assignment


def test_restore_ends_before_any_event_is_read() -> None:
    assert in_order(
        source(Recovery._resume_streams),
        "await app.on_rebalance_complete.send()",
        "consumer.resume_partitions(",
        "consumer.perform_seek()",
        "consumer.resume_flow()",
    ), "events are processed on a state that is not restored"


def test_an_app_without_tables_goes_straight_to_resuming() -> None:
    assert in_order(
        source(Recovery), "if not self.tables or", "await T(self._resume_streams)(generation_id=generation_id)"
    ), "on_rebalance_complete comes late, or never: nothing is restored"


def test_perform_seek_forgets_what_is_in_flight() -> None:
    async def use(app: faust.App) -> tuple[int | None, Any]:
        consumer = recorded(app)
        messages(consumer, (0, 1))[0].committable = True
        await consumer.perform_seek()
        return consumer._new_offset(HERE), consumer._read_offset[HERE]

    assert in_app(use) == (None, 2), "after a rebalance, offsets of another worker's partition are committed"


class Seeks:
    """A consumer thread of which one partition was committed and one never was."""

    def __init__(self) -> None:
        self.to_beginning: list[TP] = []

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return {HERE: 5, OTHER: None}

    async def seek_to_beginning(self, *partitions: TP) -> None:
        self.to_beginning += partitions


def test_partition_of_which_nothing_was_committed_is_read_from_its_beginning() -> None:
    async def use(app: faust.App) -> list[TP]:
        consumer, thread = app.consumer, Seeks()
        consumer._thread = thread
        assert await consumer.seek_to_committed() == {HERE: 5, OTHER: None}
        return thread.to_beginning

    assert in_app(use) == [OTHER], "records of a fetch in the middle of a rebalance are lost"


def test_faust_drops_what_a_fetch_brings_in_a_rebalance_and_trusts_in_the_seek() -> None:
    assert in_order(source(BaseConsumer.getmany), "if self.flow_active:", "else:", "await self.perform_seek()")
    assert "if offset and offset > 0:" in source(aiokafka.AIOKafkaConsumer.seek_to_committed), (
        "aiokafka now seeks without a committed offset too: our own seek may go"
    )


def test_generation_is_set_before_an_assignment_is_told() -> None:
    assert in_order(
        source(driver.ConsumerRebalanceListener.on_partitions_assigned),
        "self._thread.app.consumer_generation_id = generation",
        "await self._thread.on_partitions_assigned(",
    ), "batches of the old assignment count as batches of the new assignment"


def test_app_has_the_generation_from_its_start() -> None:
    async def use(app: faust.App) -> int:
        return app.consumer_generation_id

    assert in_app(use) == 0


def test_app_says_whether_it_is_rebalancing() -> None:
    async def use(app: faust.App) -> bool:
        return app.rebalancing

    assert in_app(use) is False


def test_workers_share_partitions_by_round_robin_as_long_as_there_is_no_table() -> None:
    assert "else RoundRobinPartitionAssignor" in source(driver.AIOKafkaConsumerThread._create_worker_consumer), (
        "Faust's own assignor needs its leader topic and standby tables"
    )


def test_rebalance_that_meets_a_stop_closes_the_consumer_by_the_thread_s_close_and_nothing_else_does() -> None:
    assert "self.consumer.close()" in source(App._on_rebalance_when_stopped)
    assert "self._thread.close()" in source(ThreadDelegateConsumer.close), (
        "Faust closes the client of another thread's loop: the worker hangs, or crashes with SIGSEGV"
    )
    assert "self.app.loop" in source(driver.AIOKafkaConsumerThread.close), (
        "Faust no longer closes it on the wrong loop: our override may go"
    )


def test_thread_closes_its_client_as_it_stops() -> None:
    assert "await self._consumer.stop()" in source(driver.AIOKafkaConsumerThread.on_thread_stop), (
        "BatchConsumerThread.close leaves the closing to it"
    )


def test_thread_that_a_crash_has_ended_commits_nothing_and_stops_without_an_error() -> None:
    async def use(app: faust.App) -> tuple[bool, bool]:
        thread: Any = app.consumer._thread
        thread.thread_loop.close()  # as Service.crash ends it, from another thread
        committed = await thread.commit({HERE: 1})
        thread._stopped_set()
        return committed, thread._stopped.is_set()

    assert in_app(use) == (False, True)


def test_crash_closes_the_loop_of_the_thread() -> None:
    assert "self.thread_loop.close()" in source(ServiceThread._start_thread), "our guards may go"
    assert "self.thread_loop.call_soon_threadsafe" in source(ServiceThread._stopped_set), "our guard may go"


def test_assignment_of_a_consumer_that_has_not_started_is_refused_by_its_name() -> None:
    async def use(app: faust.App) -> None:
        app.consumer.assignment()

    with pytest.raises(ConsumerNotStarted):
        in_app(use)


# Start


def test_table_manager_does_after_its_sleep_what_ours_does_at_once() -> None:
    assert source(TableManager.on_start) == (
        'async def on_start(self) -> None: """Call when table manager is starting.""" '
        "await self.sleep(1.0) if not self.should_stop: "
        "await self._update_channels() await self.recovery.start()"
    ), "PromptTableManager.on_start leaves something out"


def test_app_makes_its_folders_by_a_method_of_its_own_and_ours_makes_none(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "self._create_directories()" in inspect.getsource(App.on_first_start), (
        "a worker leaves empty folders where it is started"
    )
    asyncio.run(faust_app(Settings()).on_first_start())
    assert list(tmp_path.iterdir()) == []


def test_app_builds_without_a_broker_and_with_one_agent() -> None:
    async def run() -> list[str]:
        settings = Settings()
        app, *_ = create_app(settings, Pipeline(settings.sessions, settings.policy, EVENTS.name, Catalogue()))
        return [agent.name for agent in app.agents.values()]

    assert len(asyncio.run(run())) == 1


# Producing


def test_producer_settings_extra_win_over_faust_s_own() -> None:
    async def use(app: faust.App) -> None:
        producer = app.producer._new_producer()
        assert producer._sender._acks == -1, "decisions are acknowledged before they are replicated"
        assert producer._txn_manager is not None, "a retry may write a batch twice, or out of order"
        await producer.stop()

    in_app(use)


def test_ensure_producer_gives_the_started_client() -> None:
    async def use(app: faust.App) -> None:
        client = app.producer._producer = app.producer._new_producer()
        assert app.producer._ensure_producer() is client
        await client.stop()

    in_app(use)


def test_ensure_producer_refuses_before_the_start() -> None:
    async def use(app: faust.App) -> None:
        app.producer._ensure_producer()

    with pytest.raises(faust.exceptions.NotReady):
        in_app(use)


def test_batch_builder_says_none_when_it_is_full() -> None:
    async def run() -> list[bool]:
        producer = AIOKafkaProducer(max_batch_size=1_000)
        batch = producer.create_batch()
        results = [batch.append(timestamp=None, key=None, value=bytes(600), headers=[]) is not None for _ in range(2)]
        await producer.stop()
        return results

    assert asyncio.run(run()) == [True, False], "messages are lost at the end of a full batch"


def test_send_batch_takes_the_partition_by_name() -> None:
    assert list(inspect.signature(AIOKafkaProducer.send_batch).parameters) == ["self", "batch", "topic", "partition"]


def test_producer_that_finds_no_broker_pauses_before_it_asks_again() -> None:
    async def use(app: faust.App) -> float:
        producer = app.producer._new_producer()
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        assert not await producer.client._metadata_update(producer.client.cluster, [])
        await producer.stop()
        return loop.time() - started_at

    assert in_app(use) >= 0.9 * RETRY_SECONDS
    assert "await self._metadata_update(self.cluster, topics)" in source(aiokafka.client.AIOKafkaClient), (
        "while a broker is gone the sender asks thousands of times a second"
    )


# Monitoring


def test_consumer_says_assignment_and_highwater() -> None:
    assert list(inspect.signature(BaseConsumer.assignment).parameters) == ["self"]
    assert list(inspect.signature(BaseConsumer.highwater).parameters) == ["self", "tp"]


def test_topic_partitions_of_faust_and_aiokafka_are_equal() -> None:
    assert TopicPartition(*HERE) == HERE, "lags and assignments are looked up by one and kept by the other"


class Fetched(NamedTuple):
    """The part of a record that the consumer reads in these tests."""

    offset: int


class RewoundConsumer(BatchConsumer):
    """The consumer after a rebalance: with an offset to read from, and without a broker."""

    def __init__(self, offset: int) -> None:
        self.flow_active = True
        self.seeks: list[int] = []
        self.expect({PARTITION: offset})

    async def seek(self, partition: TP, offset: int) -> None:
        assert partition == PARTITION
        self.seeks.append(offset)

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, 0)

    def accepts(self, *offsets: int) -> bool:
        return asyncio.run(self._is_contiguous(PARTITION, [Fetched(offset) for offset in offsets]))


PARTITION = TP("events", 0)


def test_fetch_from_before_a_rebalance_is_refused_when_it_leaves_a_gap():
    """Otherwise the state moves over unseen events, and their decisions are missing for good."""
    consumer = RewoundConsumer(177)
    assert not consumer.accepts(800, 801)
    assert consumer.seeks == [177]


def test_contiguous_fetch_is_accepted():
    consumer = RewoundConsumer(177)
    assert consumer.accepts(170, 171, 172, 173, 174, 175, 176, 177)
    assert consumer.accepts(178)
    assert consumer.seeks == []


def test_gap_in_both_reads_is_a_gap_of_the_log():
    consumer = RewoundConsumer(0)
    assert not consumer.accepts(500, 501)
    assert consumer.accepts(500, 501)
    assert consumer.accepts(502)
