"""Transport: how batches are fetched and published, over Faust's own objects that are never started."""

import asyncio
from typing import Any, NamedTuple

import faust
import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.producer.producer import AIOKafkaProducer
from faust.types import TP

from clickscore.schemas.topics import EVENTS
from clickscore.stream.worker import transport
from tests.stream.worker.test_transport_contract import HERE, OTHER, in_app, messages, record

BATCH_BYTES = 1_000
"""Size of a record batch of the client below."""


class Stored(NamedTuple):
    """What a broker answers: the offset of a batch's first record, and the time of the batch with its kind."""

    offset: int
    timestamp: int = 7
    timestamp_type: int = 1


class Client:
    """A Kafka client that stores record batches in memory; its batch builder is aiokafka's own."""

    def __init__(self, builder: AIOKafkaProducer) -> None:
        self.batches: list[tuple[str, int, int]] = []
        """Topic, partition and number of records of each batch."""
        self.timestamp_type = 1
        """Whether the topic keeps the broker's time (1) or the producer's (0)."""
        self.create_batch = builder.create_batch

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> "asyncio.Future[Stored]":
        acknowledgement: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        acknowledgement.set_result(Stored(100 * len(self.batches), timestamp_type=self.timestamp_type))
        self.batches.append((topic, partition, batch.record_count()))
        return acknowledgement


def published(*sizes: int, whole: bool = False) -> tuple[list[int], int | None]:
    """Publish records; return the number of records of each batch, and what the producer returns.

    A producer returns the append time, or with `whole` the offset after the last record.
    """

    async def use(app: faust.App) -> tuple[list[int], int | None]:
        builder = AIOKafkaProducer(max_batch_size=BATCH_BYTES)
        client = app.producer._producer = Client(builder)
        records = [(b"key", bytes(size), [("name", b"header")]) for size in sizes]
        publish = app.producer.publish_whole if whole else app.producer.publish
        try:
            end = await publish("topic", 3, records)
        finally:
            await builder.stop()
        assert all((topic, partition) == ("topic", 3) for topic, partition, _ in client.batches)
        return [count for _, _, count in client.batches], end

    return in_app(use)


# Producing


def test_records_share_a_record_batch():
    assert published(10, 10, 10)[0] == [3]


def test_records_that_do_not_fit_go_into_the_next_record_batch():
    assert published(400, 400, 400)[0] == [2, 1]


def test_no_records_make_no_record_batch():
    assert published() == ([], None)


def test_append_time_is_the_brokers():
    assert published(10, 10)[1] == 7


def test_topic_with_the_producers_time_has_no_append_time():
    async def use(app: faust.App) -> int | None:
        builder = AIOKafkaProducer()
        client = app.producer._producer = Client(builder)
        client.timestamp_type = 0
        try:
            return await app.producer.publish("topic", 3, [(b"key", b"value", [])])
        finally:
            await builder.stop()

    assert in_app(use) is None


def test_record_that_is_larger_than_a_record_batch_is_left_to_the_broker_to_refuse():
    assert published(2_000, 10)[0] == [1, 1]


def test_records_published_whole_end_behind_the_last_one():
    assert published(10, 10, whole=True) == ([2], 2)


def test_records_that_do_not_fit_one_record_batch_are_refused_whole():
    with pytest.raises(ValueError, match="lower max_batch"):
        published(400, 400, 400, whole=True)


# Fetching


class Fetcher:
    """The limits of aiokafka's fetcher."""

    _fetch_max_wait_ms, _fetch_min_bytes = transport.IDLE_FETCH


class Thread:
    """A consumer thread with one fetch in memory."""

    def __init__(self, fetched: dict[Any, list[Any]]) -> None:
        self.fetched = fetched
        self.positions: dict[TP, int] = {}
        """Offset of the next fetch of each partition."""
        self._fetcher = Fetcher()

    def fetch_position(self, tp: TP) -> int | None:
        return self.positions.get(tp)

    async def getmany(self, active_partitions: Any, timeout: float) -> dict[Any, list[Any]]:  # noqa: ASYNC109 (Faust's)
        del active_partitions, timeout
        return self.fetched

    def _ensure_consumer(self) -> "Thread":
        return self

    @property
    def limits(self) -> tuple[int, int]:
        return self._fetcher._fetch_max_wait_ms, self._fetcher._fetch_min_bytes


def fetching(*fetches: dict[Any, list[Any]], expected: int | None = None, **settings: Any) -> tuple[list[Any], Thread]:
    """Return the last of these fetches as the consumer accepts it, and the thread of the consumer."""

    async def use(app: faust.App) -> tuple[Any, Thread]:
        thread = app.consumer._thread = Thread({})
        app.consumer.flow_active = True
        if expected is not None:
            app.consumer.expect({HERE: expected})
        accepted: Any = {}
        for thread.fetched in fetches:
            accepted = await app.consumer._getmany({HERE, OTHER}, 1.0)
        return accepted, thread

    return in_app(use, **settings)


def test_first_fetch_leaves_the_next_one_unheld():
    _, thread = fetching({HERE: [record(0)]}, fetch_wait_ms=4)
    assert thread.limits == transport.IDLE_FETCH


def test_fetch_is_held_while_events_are_frequent():
    _, thread = fetching({HERE: [record(0)]}, {HERE: [record(1)]}, fetch_wait_ms=4)
    assert thread.limits == (4, transport.STEADY_FETCH_BYTES)


def test_fetch_without_events_leaves_the_next_one_unheld():
    _, thread = fetching({HERE: [record(0)]}, {HERE: [record(1)]}, {}, fetch_wait_ms=4)
    assert thread.limits == transport.IDLE_FETCH


def test_partition_with_a_gap_is_left_out_of_a_fetch():
    async def use(app: faust.App) -> Any:
        consumer = FetchFromBeforeRebalance(app)
        return await consumer._getmany({HERE, OTHER}, 1.0), consumer.seeks

    accepted, seeks = in_app(use)
    assert (list(accepted), seeks) == ([OTHER], {HERE: 5})


class FetchFromBeforeRebalance(transport.BatchConsumer):
    """A consumer that a rebalance has set back to offset 5, with a fetch from before it."""

    def __init__(self, app: faust.App) -> None:
        async def nothing(*_: Any) -> None:
            """Take no notice."""

        super().__init__(app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing)
        self._thread = Thread({HERE: [record(9)], OTHER: [record(0, 1)]})
        self.flow_active = True
        self.seeks: dict[Any, int] = {}
        self.expect({HERE: 5, OTHER: 0})

    async def seek(self, partition: Any, offset: int) -> None:
        self.seeks[partition] = offset


class GapOfTheLog(FetchFromBeforeRebalance):
    """The same consumer, on a log without its first records."""

    def __init__(self, app: faust.App, beginning: int) -> None:
        super().__init__(app)
        self.beginning = beginning
        self.losses: list[tuple[int, int, int]] = []
        self.cut_backs: list[tuple[int, int, int]] = []
        self.expect({HERE: 5, OTHER: 0}, self)

    def report(self, partition: int, start: int, end: int) -> None:
        self.losses.append((partition, start, end))

    def report_cut_back(self, partition: int, offset: int, start: int) -> None:
        self.cut_backs.append((partition, offset, start))

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, self.beginning)


@pytest.mark.parametrize(
    ("beginning", "losses"),
    [(0, []), (7, [(0, 5, 7)]), (9, [(0, 5, 9)]), (12, [(0, 5, 9)])],
    ids=["of transactions", "of both kinds", "of retention", "of retention since"],
)
def test_gap_before_the_beginning_of_the_log_is_a_loss(beginning: int, losses: list[tuple[int, int, int]]):
    async def use(app: faust.App) -> Any:
        consumer = GapOfTheLog(app, beginning)
        first = await consumer._getmany({HERE, OTHER}, 1.0)
        return first, await consumer._getmany({HERE, OTHER}, 1.0), consumer.losses

    first, second, reported = in_app(use)
    assert (HERE in first, HERE in second, reported) == (False, True, losses)


def test_log_that_is_read_again_from_its_beginning_was_cut_back():
    async def use(app: faust.App) -> Any:
        consumer = GapOfTheLog(app, 0)
        consumer._thread = Thread({HERE: [record(5), record(6)]})
        assert HERE in await consumer._getmany({HERE}, 1.0)
        consumer._thread = Thread({HERE: [record(0), record(1)]})
        return HERE in await consumer._getmany({HERE}, 1.0), consumer.cut_backs, consumer.losses

    assert in_app(use) == (False, [(0, 6, 0)], [])


def test_records_before_the_state_are_no_log_that_was_cut_back():
    async def use(app: faust.App) -> Any:
        consumer = GapOfTheLog(app, 0)
        consumer._thread = Thread({HERE: [record(3), record(4)]})
        return HERE in await consumer._getmany({HERE}, 1.0), consumer.cut_backs

    assert in_app(use) == (True, [])


def test_markers_that_were_passed_are_no_loss_and_are_committed():
    async def use(app: faust.App) -> Any:
        consumer = GapOfTheLog(app, 9)
        consumer._thread = Thread({HERE: [record(5)]})
        await consumer._getmany({HERE}, 1.0)
        consumer._thread = Thread({})
        consumer._thread.positions = {HERE: 8}  # offsets 6 and 7 were markers
        await consumer._getmany({HERE}, 1.0)
        committable = consumer._new_offset(HERE)
        for _ in range(2):
            consumer._thread = Thread({HERE: [record(9)]})
            await consumer._getmany({HERE}, 1.0)
        return committable, consumer.losses

    assert in_app(use) == (8, [(0, 8, 9)])


class Forbidden(Thread):
    """A consumer thread without the right to read."""

    async def getmany(self, active_partitions: Any, timeout: float) -> dict[Any, list[Any]]:  # noqa: ASYNC109 (Faust's)
        raise TopicAuthorizationFailedError(EVENTS.name)


def test_fetch_and_commit_without_a_right_end_nothing(caplog: pytest.LogCaptureFixture):
    async def use(app: faust.App) -> Any:
        app.consumer._thread = Forbidden({})
        await transport._commit_if_allowed(refuse, {})
        return await app.consumer._getmany({HERE}, 0.001)

    async def refuse(_: Any) -> None:
        raise GroupAuthorizationFailedError("workers")

    assert in_app(use) == {}
    assert "offsets cannot be committed" in caplog.text
    assert "events cannot be read" in caplog.text


def test_partition_without_a_position_is_no_stalled_stream():
    async def use(app: faust.App) -> None:
        consumer = Fetched(app, None)
        consumer._thread.verify_event_path(0.0, HERE)

    in_app(use)


def test_fetch_during_a_rebalance_is_not_compared_with_the_expected_offset():
    async def use(app: faust.App) -> tuple[list[Any], dict[Any, int]]:
        consumer = FetchFromBeforeRebalance(app)
        consumer.flow_active = False
        return list(await consumer._getmany({HERE, OTHER}, 1.0)), consumer.seeks

    assert in_app(use) == ([HERE, OTHER], {})


# The end of a partition


class Fetched(transport.BatchConsumer):
    """A consumer at a position of a partition that ends at offset 10."""

    def __init__(self, app: faust.App, position: int | None, expected: int | None = None) -> None:
        async def nothing(*_: Any) -> None:
            """Take no notice."""

        super().__init__(app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing)
        self._thread._consumer = self
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user([HERE])
        if position is not None:
            self._subscription.subscription.assignment.state_value(HERE).reset_to(position)
        self.expect({} if expected is None else {HERE: expected})

    def highwater(self, tp: TP) -> int | None:
        return {HERE: 10, OTHER: None}[tp]


@pytest.mark.parametrize(
    ("position", "expected", "end"),
    [(None, 8, 10), (7, 7, 10), (10, 8, 8), (10, None, 10)],
    ids=["no position yet", "records are left", "only markers were left", "nothing is expected"],
)
def test_partition_ends_behind_its_last_record_that_can_be_read(position: int | None, expected: int | None, end: int):
    async def use(app: faust.App) -> int | None:
        return Fetched(app, position, expected).readable_end(HERE)

    assert in_app(use) == end


def test_end_of_a_partition_that_was_never_fetched_is_not_known():
    async def use(app: faust.App) -> int | None:
        return Fetched(app, None).readable_end(OTHER)

    assert in_app(use) is None


# What Faust calls and finds nothing to do


def test_records_reach_the_agent_undecoded():
    async def use(app: faust.App) -> None:
        schema = transport.BatchSchema()
        (message,) = messages(app.consumer, (0, 1))
        assert schema.loads_value(app, message, loads=None) is message.value
        assert schema.loads_key(app, message) is None

    in_app(use)


def test_missing_offsets_and_full_queues_are_ignored():
    async def use(app: faust.App) -> None:
        await app.consumer._add_gap(HERE, 0, 5)
        app.consumer.on_buffer_full(HERE)
        assert app.consumer._new_offset(HERE) is None

    in_app(use)


def test_fetch_is_scheduled_as_it_is():
    fetch = {HERE: [record(0)]}
    assert transport.BatchScheduler.map_from_records(fetch) is fetch


class Stuck:
    """A client whose stop is cancelled, as aiokafka's is while no broker answers."""

    async def stop(self) -> None:
        raise asyncio.CancelledError


def test_thread_ends_although_its_client_was_cancelled():
    async def use(app: faust.App) -> None:
        thread = app.consumer._thread
        thread._consumer = Stuck()
        thread.close()
        await thread.on_thread_stop()

    in_app(use)


def test_partitions_that_all_have_a_committed_offset_stay_there():
    class Committed:
        """A consumer thread that has committed an offset of each partition."""

        async def seek_to_committed(self) -> dict[Any, int]:
            return {HERE: 5}

    async def use(app: faust.App) -> Any:
        app.consumer._thread = Committed()
        return await app.consumer.seek_to_committed()

    assert in_app(use) == {HERE: 5}


def test_topic_of_events_is_the_one_of_these_tests():
    assert HERE.topic == EVENTS.name
