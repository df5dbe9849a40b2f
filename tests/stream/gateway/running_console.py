"""A gateway with a console that listens, on a plain log in memory and records made by a test."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from clickscore.schemas.rollouts import Rollout, encode_rollout
from clickscore.schemas.topics import ADS, EVENTS, RECOMMENDATIONS, ROLLOUTS
from clickscore.stream.console.console import Console
from clickscore.stream.console.console_state import ConsoleState, LogRecord
from clickscore.stream.gateway.access import Access
from clickscore.stream.gateway.console_routes import ConsoleRoutes
from clickscore.stream.gateway.decision_memory import decode_published_decision
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.http_app import create_app
from clickscore.stream.gateway.request_traces import PassOnRequests
from clickscore.stream.gateway.server import serving
from clickscore.stream.gateway.service import GatewayService, PublishedDecisions
from clickscore.stream.settings import Settings
from tests.stream.console.records import record
from tests.stream.gateway.log_double import ListLog, ad
from tests.stream.gateway.running import Answer, RunningGateway

OWN_PAGE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
"""Headers of a request of the console's own pages."""


class ListTopics:
    """Topics as a list of records: a console that follows the list reads what is there, and what is added."""

    def __init__(self, records: Iterable[LogRecord]) -> None:
        self.records = list(records)

    async def follow(self, state: ConsoleState) -> None:
        position = 0
        state.status.is_reading = True
        state.status.lag = {0: 0}
        state.status.members = [0]
        while True:
            for each in self.records[position:]:
                state.receive(each)
            position = len(self.records)
            await asyncio.sleep(0.01)

    async def write_rollout(self, rollout: Rollout) -> None:
        self.records.append(record(ROLLOUTS.name, 0, encode_rollout(rollout), key=rollout.name.encode()))


def _records_of(value: bytes, log: ListLog) -> list[LogRecord]:
    """Return an event of the log with its decision, and an ad beside the list, as the topics have them."""
    published = decode_published_decision(value)
    offset = int(published.log_id.rpartition("-")[2])
    sold = ad(offset, published.user_id, published.event_id, ["beside"])
    return [
        record(EVENTS.name, offset, log.events[offset].value),
        record(RECOMMENDATIONS.name, offset, value),
        record(ADS.name, offset, sold),
    ]


class RunningConsole(RunningGateway):
    """A gateway that listens, with its console, and a client."""

    topics: ListTopics
    console: Console
    access: Access
    routes: ConsoleRoutes

    async def read(self, name: str, **headers: str) -> Answer:
        return await self.get(f"/console/data/{name}", **headers)

    async def act(self, name: str, body: bytes, **headers: str) -> Answer:
        session = await self.read("session", **headers)
        return await self.send(
            "POST", f"/console/actions/{name}", body, OWN_PAGE | {"X-Console-Token": session.json["token"]} | headers
        )

    async def read_until(self, name: str, field: str, **headers: str) -> Any:
        """Read data until a field has a value, and return the data."""
        async with asyncio.timeout(20):
            while not (answer := await self.read(name, **headers)).json.get(field):  # noqa: ASYNC110 (over HTTP)
                await asyncio.sleep(0.01)
        return answer.json


@asynccontextmanager
async def running_console(
    records: Iterable[LogRecord] = (), *, has_shop: bool = False, **changes: Any
) -> AsyncGenerator[RunningConsole]:
    settings = Settings.of(**{"gateway_port": 0, "gateway_decide_ms": 5_000, **changes})
    metrics = GatewayMetrics()
    decisions = PublishedDecisions(settings.gateway, metrics)
    topics = ListTopics(records)

    def publish(value: bytes) -> None:
        decisions.receive(value)
        if has_shop:
            topics.records += _records_of(value, log)

    log = ListLog(publish)
    service, access = GatewayService(log, decisions, log.explain, settings.gateway, metrics), Access(settings.gateway)
    console = Console(topics.follow, topics.write_rollout, has_shop=has_shop)
    routes = ConsoleRoutes(console, access, service)
    app = create_app(service, access, metrics, settings, tracer=PassOnRequests(), routes=routes.routes)
    reading = asyncio.create_task(console.run())
    async with (
        serving(app, settings.gateway, metrics, routes.end_streams) as address,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
    ):
        running = RunningConsole(log, decisions, address, client)
        running.topics, running.console, running.access, running.routes = topics, console, access, routes
        yield running
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
