"""Tailing a real broker."""

import asyncio
import signal
import subprocess
import sys

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


def send(settings: Settings, first: int, last: int) -> None:
    async def run() -> None:
        async with EventSender(settings.kafka) as sender:
            for n in range(first, last):
                await sender.add(encode_event(View(event_id=f"e{n}", user_id="u1", ts=n, item_id=f"i{n}")), b"u1")

    asyncio.run(run())


def where(settings: Settings) -> list[str]:
    return ["--bootstrap-servers", settings.kafka.bootstrap_servers, "--topic-prefix", settings.kafka.topic_prefix]


def test_from_the_beginning_all_records_come_in_order(settings: Settings) -> None:
    send(settings, 0, 10)

    async def run() -> list[bytes | None]:
        return [record.value async for record in tail(settings.kafka, EVENTS.name, from_beginning=True, count=10)]

    assert [f'"i{n}"'.encode() in (value or b"") for n, value in enumerate(asyncio.run(run()))] == [True] * 10


def test_without_it_only_new_records_come(settings: Settings) -> None:
    send(settings, 0, 5)
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "tail", EVENTS.name, "--count", "2", *where(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Listening" in process.stderr.readline()
        send(settings, 5, 9)
        shown, _ = process.communicate(timeout=30)
    assert shown.splitlines() == [
        "1970-01-01 00:00:00  user u1 viewed item i5",
        "1970-01-01 00:00:00  user u1 viewed item i6",
    ]


def test_json_is_the_raw_value(settings: Settings) -> None:
    send(settings, 3, 4)
    result = CliRunner().invoke(
        cli, ["tail", EVENTS.name, "--json", "--from-beginning", "--count", "1", *where(settings)]
    )
    assert result.stdout_bytes == encode_event(View(event_id="e3", user_id="u1", ts=3, item_id="i3")) + b"\n"


def test_interrupt_ends_it_cleanly(settings: Settings) -> None:
    send(settings, 0, 1)
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "tail", EVENTS.name, "--from-beginning", *where(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "viewed item i0" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors.splitlines() == [f"Listening to {settings.kafka.topic(EVENTS.name)}; Ctrl-C ends it"]


def test_missing_topic_is_named(settings: Settings) -> None:
    with pytest.raises(TopicMissingError, match="nothing-here is missing"):
        CliRunner().invoke(cli, ["tail", "nothing-here", *where(settings)], catch_exceptions=False)
