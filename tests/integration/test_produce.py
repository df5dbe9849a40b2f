"""Producing to a real broker: nothing lost, nothing twice, every user in order."""

import asyncio
import gzip
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from click.testing import CliRunner

from clickscore.schemas.events import View, decode_record, encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import BrokerError, InputFileError, TopicMissingError
from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.produce import ProduceTally, constant_rate, produce
from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.topics import create_topics
from clickscore.stream.settings import Settings, environment_of

pytestmark = pytest.mark.kafka

USERS = 50


def views(count: int) -> list[bytes]:
    return [
        encode_event(View(event_id=f"e{n}", user_id=f"u{n % USERS}", ts=1_700_000_000_000 + n, item_id=f"i{n}"))
        for n in range(count)
    ]


def written(tmp_path: Path, lines: list[bytes]) -> Path:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines), compresslevel=1))
    return path


def send(settings: Settings, path: Path, **options: object) -> ProduceTally:
    tally = ProduceTally()
    with EventFile(path, "clickscore") as file:
        asyncio.run(produce(settings.kafka, file, tally, **options))  # type: ignore[arg-type]
    return tally


async def held(settings: Settings) -> list[ConsumerRecord]:
    """Return all that the events' topic holds, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        places = [
            TopicPartition(settings.kafka.topic(EVENTS.name), partition)
            for partition in range(settings.kafka.partitions)
        ]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        consumed: list[ConsumerRecord] = []
        while len(consumed) < sum(ends.values()):
            for records in (await asyncio.wait_for(consumer.getmany(timeout_ms=500), 30)).values():
                consumed.extend(records)
    return sorted(consumed, key=lambda record: (record.partition, record.offset))


def assert_all_once_and_in_order(records: list[ConsumerRecord], sent: list[bytes]) -> None:
    assert sorted(record.value for record in records if record.value) == sorted(sent)
    of_user: dict[bytes, list[int]] = defaultdict(list)
    for record in records:
        assert record.key is not None
        assert record.value is not None
        of_user[record.key].append(decode_record(record.value).ts)
    for times in of_user.values():
        assert times == sorted(times)


def test_every_event_arrives_once_in_order_in_its_users_partition(settings: Settings, tmp_path: Path) -> None:
    lines = views(20_000)
    tally = send(settings, written(tmp_path, lines))
    assert (tally.read, tally.sent, tally.skipped.total) == (20_000, 20_000, 0)
    records = asyncio.run(held(settings))
    assert_all_once_and_in_order(records, lines)
    for record in records:
        assert record.key == decode_record(record.value).user_id.encode()
        assert record.partition == partition_of(record.key, settings.kafka.partitions)


def test_broken_lines_of_a_clickscore_file_arrive_as_they_are(settings: Settings, tmp_path: Path) -> None:
    lines = [b"{broken", b"\xff\xfe\x00", b'{"type":"tick","ts":5}', b'{"user_id":"u1"}\r']
    assert send(settings, written(tmp_path, lines)).sent == 4
    records = asyncio.run(held(settings))
    assert sorted(record.value or b"" for record in records) == sorted(lines)
    assert {record.key for record in records} == {None, b"u1"}


def test_line_larger_than_a_batch_arrives(settings: Settings, tmp_path: Path) -> None:
    lines = [b'{"user_id":"u1"}', b"x" * 1_000_000, b'{"user_id":"u1"}']
    assert send(settings, written(tmp_path, lines)).sent == 3
    assert sorted(len(record.value or b"") for record in asyncio.run(held(settings))) == [16, 16, 1_000_000]


def test_rate_is_kept(settings: Settings, tmp_path: Path) -> None:
    seconds = asyncio.run(_timed(settings, written(tmp_path, views(300))))
    assert 1.4 <= seconds <= 3


async def _timed(settings: Settings, path: Path) -> float:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    with EventFile(path, "clickscore") as file:
        await produce(settings.kafka, file, ProduceTally(), pace=constant_rate(200))
    return loop.time() - started_at


def test_missing_topic_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TopicMissingError, match="nothing-here is missing"):
        send(settings, written(tmp_path, views(1)), topic="nothing-here")


def test_file_that_ends_early_is_sent_as_far_as_it_goes(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"\n".join(views(20_000)))[:-50])
    tally = ProduceTally()
    with pytest.raises(InputFileError, match="ends early"), EventFile(path, "clickscore") as file:
        asyncio.run(produce(settings.kafka, file, tally))
    assert tally.sent == tally.read > 10_000
    assert len(asyncio.run(held(settings))) == tally.sent


def test_command_says_what_it_sent_and_what_it_skipped(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "taobao.csv"
    path.write_text("u1,2,3,pv,1511658000\nu1,2,3,hug,1511658000\nu1,2,3,buy,1511658001\n", encoding="utf-8")
    connection = [
        "--bootstrap-servers",
        settings.kafka.bootstrap_servers,
        "--topic-prefix",
        settings.kafka.topic_prefix,
    ]
    result = CliRunner().invoke(cli, ["produce", str(path), "--format", "taobao", *connection])
    assert result.exit_code == 0, result.output
    assert f"Sent 2 of 3 lines to {settings.kafka.topic(EVENTS.name)}" in result.output
    assert "1 x unknown behaviour 'hug' (line 2)" in result.output


def test_file_of_another_format_is_an_error(settings: Settings, tmp_path: Path) -> None:
    connection = [
        "--bootstrap-servers",
        settings.kafka.bootstrap_servers,
        "--topic-prefix",
        settings.kafka.topic_prefix,
    ]
    result = CliRunner().invoke(cli, ["produce", str(written(tmp_path, views(3))), "--format", "taobao", *connection])
    assert result.exit_code == 1
    assert isinstance(result.exception, InputFileError)


def test_broker_that_is_held_for_a_while_costs_no_event_and_doubles_none(
    own_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings.of(bootstrap_servers=own_broker.bootstrap_servers)
    asyncio.run(create_topics(settings.kafka))
    lines = views(30_000)

    async def run() -> ProduceTally:
        tally = ProduceTally()
        with EventFile(written(tmp_path, lines), "clickscore") as file:
            sending = asyncio.create_task(produce(settings.kafka, file, tally, pace=constant_rate(15_000)))
            await asyncio.sleep(0.7)
            os.kill(own_broker.pid, signal.SIGSTOP)
            await asyncio.sleep(2)
            os.kill(own_broker.pid, signal.SIGCONT)
            await sending
        return tally

    assert asyncio.run(run()).sent == 30_000
    assert_all_once_and_in_order(asyncio.run(held(settings)), lines)


def test_broker_that_stops_and_comes_back_costs_no_event_and_doubles_none(
    own_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings.of(bootstrap_servers=own_broker.bootstrap_servers)
    asyncio.run(create_topics(settings.kafka))
    lines = views(30_000)

    async def run() -> tuple[ProduceTally, EmbeddedBroker]:
        tally = ProduceTally()
        with EventFile(written(tmp_path, lines), "clickscore") as file:
            sending = asyncio.create_task(produce(settings.kafka, file, tally, pace=constant_rate(15_000)))
            await asyncio.sleep(0.7)
            await asyncio.to_thread(own_broker.stop)
            second_broker = await asyncio.to_thread(EmbeddedBroker.start, own_broker.data, own_broker.port)
            await sending
        return tally, second_broker

    tally, second_broker = asyncio.run(run())
    try:
        assert tally.sent == 30_000
        assert_all_once_and_in_order(asyncio.run(held(settings)), lines)
    finally:
        second_broker.stop()


def test_broker_that_stays_away_is_an_error_that_says_how_far_it_came(own_broker: EmbeddedBroker) -> None:
    settings = Settings.of(bootstrap_servers=own_broker.bootstrap_servers, broker_wait_ms=3_000)
    asyncio.run(create_topics(settings.kafka))

    async def run() -> None:
        async with EventSender(settings.kafka) as sender:
            await sender.add(b"one", b"u1")
            await sender.flush()
            while not sender.sent:  # noqa: ASYNC110 (no event says it)
                await asyncio.sleep(0.01)
            own_broker.stop()
            await sender.add(b"two", b"u1")

    with pytest.raises(BrokerError, match=r"did not store what was sent .*; 1 records are acknowledged"):
        asyncio.run(run())


def test_ctrl_c_ends_a_long_wait_after_what_is_sent(settings: Settings, tmp_path: Path) -> None:
    hours = [
        encode_event(View(event_id=f"e{hour}", user_id="u", ts=1_700_000_000_000 + hour * 3_600_000, item_id="i"))
        for hour in range(2)
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "produce", written(tmp_path, hours), "--speed", "1"],
        env={**os.environ, **environment_of(settings)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            waiting = next(line for line in process.stderr if "waiting" in line)
            process.send_signal(signal.SIGINT)
            words, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert "The next event is 3,600 s away at this speed: waiting 3,600 s" in waiting
    assert process.returncode == 1
    assert "Sent 1 of 2 lines" in words
    assert errors.strip().endswith("interrupted")
    assert "Traceback" not in errors
    assert [record.value for record in asyncio.run(held(settings))] == hours[:1]
