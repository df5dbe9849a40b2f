"""Gateway: mutated events over HTTP and odd requests; each is stored, answered in words, or cut off."""

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote, urlsplit

import uvloop

from tests.fuzz.judge import FaultError, Outcomes
from tests.fuzz.mutation import ODD_TEXTS, mutated_bytes, mutated_record
from tests.fuzz.pages import answer_outcome, request
from tests.fuzz.samples import event
from tests.stream.gateway.running import JSON, Answer, RunningGateway, request_life, running_gateway

REQUESTS = 100
"""Requests to one gateway."""
REQUEST_SECONDS = 1.0
"""Longest life of a request to the fuzzed gateway, s."""
STUCK_SECONDS = 60.0
GATEWAY_TIMEOUT = 504


def fuzz_gateway(chance: random.Random, folder: Path) -> Outcomes:
    """Send requests to a gateway on a log in memory, and return the outcome of each."""
    del folder
    with (
        request_life(REQUEST_SECONDS),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # the event loop of the gateway
    ):
        return runner.run(_fuzz(chance))


async def _fuzz(chance: random.Random) -> Outcomes:
    outcomes: Outcomes = Counter()
    async with running_gateway(gateway_decide_ms=100) as gateway:
        pending = [_send(chance, gateway, number) for number in range(REQUESTS)]
        try:
            answers = await asyncio.wait_for(asyncio.gather(*pending), STUCK_SECONDS)
        except TimeoutError:
            raise FaultError(f"requests are stuck after {STUCK_SECONDS} s") from None
        health = await gateway.get("/health")
        if health.status != 200:
            raise FaultError(f"health is {health} after all requests")
        stored = len(gateway.log.events)
    outcomes.update(outcome for outcome, _ in answers)
    acknowledged = sum(events for _, events in answers)
    if stored != acknowledged:
        raise FaultError(f"{stored} events are stored, and {acknowledged} are acknowledged")
    return outcomes


async def _send(chance: random.Random, gateway: RunningGateway, number: int) -> tuple[str, int]:
    """Send a request; return its outcome, and the number of acknowledged events."""
    kind = chance.random()
    if kind < 0.15:
        text, address = request(chance), urlsplit(gateway.address)
        return answer_outcome(text, await _first_bytes(text, address.hostname or "", address.port or 0)), 0
    if kind < 0.25:
        name = quote(chance.choice(ODD_TEXTS).encode("utf-8", "surrogatepass"), safe=chance.choice(("", "/%")))
        path = chance.choice(
            (
                "/v1/users/%s/recommendations",
                "/v1/decisions/%s",
                "/v1/decisions/%s/explain",
                "/v1/%s",
                "/openapi.json?%s",
            )
        )
        return _outcome(await gateway.get(path.replace("%s", name)), path)
    body = _body(chance, number)
    path = "/v1/events" + chance.choice(("", "", "", "?decide=true", "?decide=maybe", "?decide=false&decide=true"))
    media = (
        JSON if chance.random() < 0.9 else {"Content-Type": chance.choice(("text/plain", "application/json; a", ""))}
    )
    return _outcome(await gateway.send("POST", path, body, media), path)


async def _first_bytes(text: bytes, host: str, port: int) -> bytes:
    """Return the beginning of an answer; no bytes if the server closes the connection. It keeps others open."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(text)
        return await reader.read(65_536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _body(chance: random.Random, number: int) -> bytes:
    now = int(time.time() * 1000)
    values = [mutated_record(chance, event(chance, number, now), 0.4) for _ in range(chance.choice((1, 1, 2, 5)))]
    if len(values) == 1 and chance.random() < 0.7:
        return values[0]
    body = b"[" + b",".join(values) + b"]"
    return mutated_bytes(chance, body) if chance.random() < 0.1 else body


def _outcome(answer: Answer, path: str) -> tuple[str, int]:
    if answer.status == 200:
        events = len(answer.json["events"]) if path.startswith("/v1/events") else 0
        return ("stored" if events else "pages"), events
    problem = answer.headers.get("content-type") == "application/problem+json" and json.loads(answer.body)
    if not problem or not problem.get("detail") or problem.get("status") != answer.status:
        raise FaultError(f"{path} is refused without words: {answer}")
    if answer.status >= 500 and answer.status != GATEWAY_TIMEOUT:
        raise FaultError(f"{path} fails: {answer}")
    return "refused", 0
