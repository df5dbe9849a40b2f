"""Tailing a real broker."""

import asyncio
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import EVENTS
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import TopicMissingError
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.kafka.tail import tail
from clickscore.stream.settings import Settings

pytestmark = pytest.mark.kafka

TS = 1_569_888_003_000


def send(settings: Settings, first: int, last: int, user: str = "u1") -> None:
    async def run() -> None:
        async with EventSender(settings.kafka) as sender:
            for n in range(first, last):
                await sender.add(
                    encode_event(View(event_id=f"e{n}", user_id=user, ts=TS + n, item_id=f"i{n}")), user.encode()
                )

    asyncio.run(run())


def connection(settings: Settings) -> list[str]:
    return ["--bootstrap-servers", settings.kafka.bootstrap_servers, "--topic-prefix", settings.kafka.topic_prefix]


def test_from_the_beginning_all_records_come_in_order(settings: Settings) -> None:
    send(settings, 0, 10)

    async def run() -> list[bytes | None]:
        return [record.value async for record in tail(settings.kafka, EVENTS.name, from_beginning=True, count=10)]

    assert [f'"i{n}"'.encode() in (value or b"") for n, value in enumerate(asyncio.run(run()))] == [True] * 10


def test_without_it_only_new_records_come(settings: Settings) -> None:
    send(settings, 0, 5)
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "tail", EVENTS.name, "--count", "2", *connection(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Listening" in process.stderr.readline()
        send(settings, 5, 9)
        output, _ = process.communicate(timeout=60)
    assert output.splitlines() == [
        "2019-10-01 00:00:03  user u1 viewed item i5",
        "2019-10-01 00:00:03  user u1 viewed item i6",
    ]


def test_a_tail_begins_with_the_next_record_even_while_the_position_is_being_reset(settings: Settings) -> None:
    """In one event loop, the reset to the oldest record is nearly always under way as the tail takes its position."""
    send(settings, 0, 5)

    async def run() -> list[int]:
        offsets = []
        async with EventSender(settings.kafka) as sender:
            for n in range(5, 10):
                ready = asyncio.Event()
                records = tail(settings.kafka, EVENTS.name, count=1, on_ready=ready.set)
                following = asyncio.create_task(anext(records))
                await ready.wait()
                await sender.add(encode_event(View(event_id=f"e{n}", user_id="u1", ts=TS + n, item_id=f"i{n}")), b"u1")
                await sender.settle()
                offsets.append((await following).offset)
                await records.aclose()
        return offsets

    assert asyncio.run(run()) == [5, 6, 7, 8, 9]


def test_json_is_the_raw_value(settings: Settings) -> None:
    send(settings, 3, 4)
    result = CliRunner().invoke(
        cli, ["tail", EVENTS.name, "--json", "--from-beginning", "--count", "1", *connection(settings)]
    )
    assert result.stdout_bytes == encode_event(View(event_id="e3", user_id="u1", ts=TS + 3, item_id="i3")) + b"\n"


def output(settings: Settings, *options: str) -> list[str]:
    result = CliRunner().invoke(cli, ["tail", EVENTS.name, *options, *connection(settings)])
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_until_end_reads_what_is_there_and_ends(settings: Settings) -> None:
    assert output(settings, "--until-end") == []
    send(settings, 0, 5)
    assert len(output(settings, "--until-end")) == 5
    assert len(output(settings, "--until-end", "--from-beginning", "--count", "3")) == 3
    assert len(output(settings, "--until-end", "--json")) == 5


def test_records_of_one_user(settings: Settings) -> None:
    send(settings, 0, 3)
    send(settings, 3, 6, "u2")
    assert [line.split("item ")[1] for line in output(settings, "--until-end", "--user", "u2")] == ["i3", "i4", "i5"]
    assert output(settings, "--until-end", "--user", "u2", "--count", "1")[0].endswith("user u2 viewed item i3")
    assert output(settings, "--until-end", "--user", "u") == []


def test_since_counts_by_the_time_at_which_kafka_received_a_record(settings: Settings) -> None:
    send(settings, 0, 3)
    time.sleep(0.05)
    border = int(time.time() * 1000)
    send(settings, 3, 5)
    assert len(output(settings, "--until-end", "--since", str(border))) == 2
    assert len(output(settings, "--until-end", "--since", "10m")) == 5
    assert len(output(settings, "--until-end", "--since", "2026-01-01T00:00")) == 5
    assert output(settings, "--until-end", "--since", "2500-01-01") == []


def test_interrupt_ends_it_cleanly(settings: Settings) -> None:
    send(settings, 0, 1)
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "tail", EVENTS.name, "--from-beginning", *connection(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "viewed item i0" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.splitlines() == [f"Listening to {settings.kafka.topic(EVENTS.name)}; Ctrl-C ends it"]


def test_missing_topic_is_named(settings: Settings) -> None:
    with pytest.raises(TopicMissingError, match="nothing-here is missing"):
        CliRunner().invoke(cli, ["tail", "nothing-here", *connection(settings)], catch_exceptions=False)
