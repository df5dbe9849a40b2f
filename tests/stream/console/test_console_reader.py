"""The console's reader, on topics in memory."""

import asyncio
from collections.abc import Callable

from aiokafka import TopicPartition

from clickscore.schemas.topics import CATALOGUE, EVENTS, RECOMMENDATIONS
from clickscore.stream.console import console_reader
from clickscore.stream.console.console_reader import ConsoleReader, RecentRecords
from clickscore.stream.console.console_state import MAX_VALUE_BYTES, ConsoleState, LogRecord
from clickscore.stream.settings import Settings
from tests.memory_kafka import MemoryLog
from tests.stream.console.records import START_MS, decision, event, item, log_id, record


def append(log: MemoryLog, *records: LogRecord, prefix: str = "") -> None:
    for each in records:
        headers = list(each.headers.items())
        log.append(prefix + each.topic, 0, each.key, each.value, headers=headers, timestamp=each.appended_at)


def read(
    log: MemoryLog,
    until: Callable[[ConsoleState], object],
    prefix: str = "",
    history_bytes: int = console_reader.MOMENT_BYTES,
) -> ConsoleState:
    """Run a reader until a condition holds, and return the state."""
    state = ConsoleState()

    async def run() -> None:
        partitions = [TopicPartition(prefix + name, 0) for name in (EVENTS.name, RECOMMENDATIONS.name, CATALOGUE.name)]
        async with log.open_reader() as reader:
            reading = asyncio.create_task(
                ConsoleReader(Settings.of(topic_prefix=prefix), state, reader, partitions, history_bytes).run()
            )
            async with asyncio.timeout(20):
                while not until(state):
                    if reading.done():
                        reading.result()
                    await asyncio.sleep(0.005)
            reading.cancel()

    asyncio.run(run())
    return state


def test_history_is_read_in_the_order_of_time() -> None:
    log = MemoryLog()
    append(log, item("cup", "Blue cup"), event(0), decision(0))
    append(
        log, event(1, kind="click", item_id="pot", decision_id=log_id(0))
    )  # stored behind the decision that it names
    state = read(log, lambda state: state.status.is_reading)
    assert state.outcomes.variants()["model"]["clicks"] == 1
    assert state.catalogue["cup"].title == "Blue cup"
    assert state.status.since_ms == START_MS


def test_history_is_bounded() -> None:
    log = MemoryLog()
    append(log, *(event(offset) for offset in range(console_reader.HISTORY_RECORDS // 2 + 100)))
    state = read(log, lambda state: state.status.is_reading)
    assert state.rates.totals["events"] == console_reader.HISTORY_RECORDS // 2


def test_history_is_bounded_in_bytes_and_the_oldest_records_of_all_partitions_go() -> None:
    log = MemoryLog()
    append(
        log, *(event(offset, query="x" * 1_000) for offset in range(100)), *(decision(offset) for offset in range(4))
    )
    append(log, record(EVENTS.name, 100, b"x" * (MAX_VALUE_BYTES + 1)))
    state = read(log, lambda state: state.status.is_reading, history_bytes=30_000)
    assert 20 <= state.rates.totals["events"] < 30
    assert state.rates.totals["decisions"] == 0
    assert state.rates.totals["large records"] == 1  # counted, and no room taken
    assert state.moments.by_id(log_id(99)) is not None
    assert state.moments.by_id(log_id(0)) is None


def test_history_keeps_the_newest_records_in_the_order_of_time() -> None:
    history = RecentRecords(max_records=2, max_bytes=10_000)
    records = [event(offset) for offset in (3, 1, 2)]
    for each in records:
        history.add(each, (each.appended_at, 0))
    assert history.records() == [records[2], records[0]]


def test_lag_is_what_no_worker_has_decided_or_committed() -> None:
    log = MemoryLog()
    append(log, *(event(offset) for offset in range(10)), decision(3))
    log.served = {0}
    state = read(log, lambda state: state.status.lag)
    assert (state.status.lag, state.status.members) == ({0: 6}, [0])
    log.committed = {TopicPartition(EVENTS.name, 0): 9}
    assert read(log, lambda state: state.status.lag).status.lag == {0: 1}


def test_topics_with_a_prefix_keep_their_ids() -> None:
    log = MemoryLog()
    append(log, event(0), prefix="shop-")
    state = read(log, lambda state: state.status.is_reading, prefix="shop-")
    assert state.moments.by_id("shop-clickstream-events-0-0") is not None
