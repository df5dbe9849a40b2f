"""The console reads while somebody looks, and says why it cannot."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from clickscore.schemas.rollouts import Rollout, encode_rollout
from clickscore.schemas.topics import ROLLOUTS
from clickscore.stream.console.console import Console
from clickscore.stream.console.console_state import ConsoleState
from clickscore.stream.errors import BrokerError, RequestError
from tests.stream.console.records import record


async def refuse(_: Rollout) -> None:
    message = "Kafka is away"
    raise BrokerError(message)


def with_console(follow: Callable[[ConsoleState], Awaitable[None]], work: Callable[[Console], Awaitable[None]]) -> None:
    async def run() -> None:
        console = Console(follow, refuse, idle_s=0.2, retry_s=0.01)
        running = asyncio.create_task(console.run())
        await work(console)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (the console has no event for it)
            await asyncio.sleep(0.005)


def test_reading_ends_some_time_after_the_last_request_and_forgets() -> None:
    followers: list[str] = []

    async def follow(state: ConsoleState) -> None:
        followers.append("begun")
        state.status.skipped = 7
        try:
            await asyncio.Event().wait()
        finally:
            followers.append("ended")

    async def work(console: Console) -> None:
        await asyncio.sleep(0.05)
        assert followers == []
        console.touch()
        await until(lambda: followers == ["begun"])
        await until(lambda: followers == ["begun", "ended"])
        await until(lambda: console.state.status.skipped == 0)
        console.touch()
        await until(lambda: len(followers) == 3)

    with_console(follow, work)


def test_error_of_kafka_is_shown_and_reading_begins_anew() -> None:
    attempts: list[int] = []

    async def follow(state: ConsoleState) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            message = "no right to read"
            raise BrokerError(message)
        state.status.problem = ""
        await asyncio.Event().wait()

    async def work(console: Console) -> None:
        console.touch()
        await until(lambda: console.state.status.problem == "no right to read")
        await until(lambda: console.touch() and len(attempts) == 3)
        await until(lambda: console.state.status.problem == "")

    with_console(follow, work)


def test_bug_of_the_reading_is_logged_and_reading_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    async def follow(state: ConsoleState) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            message = "a mistake of the reader"
            raise ValueError(message)
        state.status.problem = ""
        await asyncio.Event().wait()

    async def work(console: Console) -> None:
        console.touch()
        await until(lambda: "has met a bug" in console.state.status.problem)
        await until(lambda: console.touch() and len(attempts) == 3)
        await until(lambda: console.state.status.problem == "")

    with_console(follow, work)
    assert "ValueError: a mistake of the reader" in caplog.text


def test_rollout_that_is_not_stored_is_503() -> None:
    async def follow(state: ConsoleState) -> None:
        rollout = Rollout(name="default", champion="a" * 64, challenger="b" * 64, share=0.5, changed_at=7)
        state.receive(record(ROLLOUTS.name, 0, encode_rollout(rollout), key=b"default"))
        await asyncio.Event().wait()

    async def work(console: Console) -> None:
        await until(lambda: console.touch().rollouts.rollouts)
        with pytest.raises(RequestError, match="Kafka is away") as caught:
            await console.change_rollout("default", "promote", 7, "more clicks")
        assert caught.value.status == 503

    with_console(follow, work)
