"""A gateway that listens, on a plain log in memory."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from clickscore.stream.gateway.access import Access
from clickscore.stream.gateway.api_keys import Scope, make_key, write_keys
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.http_app import create_app
from clickscore.stream.gateway.request_traces import open_request_tracer
from clickscore.stream.gateway.server import BoundedProtocol, open_shared_memory, serving
from clickscore.stream.gateway.service import GatewayService, PublishedDecisions
from clickscore.stream.settings import Settings
from tests.stream.gateway.log_double import ListLog

JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """An answer of the gateway."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningGateway:
    """A gateway that listens, and a client."""

    def __init__(
        self, log: ListLog, decisions: PublishedDecisions, address: str, client: aiohttp.ClientSession
    ) -> None:
        self.log = log
        self.decisions = decisions
        self.address = address
        self.client = client

    async def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        url = aiohttp.client.URL(self.address + path, encoded=True)
        async with self.client.request(method, url, data=body, headers=headers) as response:
            answer_headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, answer_headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, headers=headers)

    async def post(self, events: object, *, decide: bool = False, **headers: str) -> Answer:
        path = "/v1/events?decide=true" if decide else "/v1/events"
        return await self.send("POST", path, json.dumps(events).encode(), JSON | headers)


def event(user_id: str = "anna", event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    return {"type": "view", "event_id": event_id, "user_id": user_id, "ts": now(), "item_id": "cup", **changes}


def now() -> int:
    return int(time.time() * 1000)


def key_header(folder: Path, *scopes: Scope, rate: int | None = None) -> dict[str, str]:
    """Write a file of one key, and return the header that carries the key."""
    new = make_key("shop", scopes, "2026-03-01T08:00:00+00:00", rate)
    write_keys(folder / "keys.json", [new.stored])
    return {"Authorization": f"Bearer {new.text}"}


@asynccontextmanager
async def running_gateway(**changes: Any) -> AsyncGenerator[RunningGateway]:
    """Run a gateway for the block; with gateway_redis_url, its decisions go to Redis as well."""
    settings = Settings.of(**{"gateway_port": 0, "gateway_decide_ms": 5_000, **changes})
    metrics = GatewayMetrics()
    shared = open_shared_memory(settings, metrics)
    decisions = PublishedDecisions(settings.gateway, metrics, shared)
    log = ListLog(decisions.receive)
    service = GatewayService(log, decisions, log.explain, settings.gateway, metrics)
    tracer = open_request_tracer(settings.worker)
    app = create_app(service, Access(settings.gateway), metrics, settings, tracer=tracer)
    async with (
        serving(app, settings.gateway, metrics) as address,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
    ):
        writing = asyncio.create_task(shared.run()) if shared else None
        yield RunningGateway(log, decisions, address, client)
        if writing:
            writing.cancel()
    await asyncio.to_thread(tracer.close)


def bodies(answers: Sequence[Answer]) -> list[bytes]:
    return [answer.body for answer in answers]


@contextmanager
def request_life(seconds: float) -> Iterator[None]:
    """Set the longest life of requests that begin within the block."""
    former, BoundedProtocol.request_seconds = BoundedProtocol.request_seconds, seconds
    try:
        yield
    finally:
        BoundedProtocol.request_seconds = former
