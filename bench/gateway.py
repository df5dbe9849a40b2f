"""`python -m bench.gateway`: load and latency of a gateway, on a temporary Kafka beside a worker.

* Reads: GET requests for the newest decision of users. The cost is the gateway's own CPU time, so the load client,
  which shares the machine, does not count. Then the same with many idle connections open, and with slow clients among
  them, which send a request byte by byte.
* Decisions: single events over HTTP with `decide=true`. A consumer in the client reads the same decisions directly from
  Kafka. So each event has two times: until the answer over HTTP, and without HTTP, from the gateway's send to the
  decision at the direct consumer. The way into the gateway is at most the client's time less the gateway's own time
  from event to decision (`Server-Timing`), which has the way out as well: so HTTP adds less than what is reported.
"""

import asyncio
import contextlib
import random
import resource
import time
import uuid
from collections.abc import Sequence
from statistics import quantiles

import click
import msgspec
import numpy as np
import psutil
import uvloop

from bench.child import WORKER, child
from bench.environment import Environment, open_environment, report_progress
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.decisions import Choice, Recommendation, encode_decision
from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import RECOMMENDATIONS
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.kafka_log import KafkaLog
from clickscore.stream.gateway.service import PublishedDecisions
from clickscore.stream.kafka.producer import EventSender
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.worker_process import free_port

GATEWAY = ("clickscore.stream", "gateway")
USERS = 20_000
"""Users with a decision of ten items."""
CLIENTS = 32
"""Connections that send requests without a pause."""
IDLE_CONNECTIONS = 10_000
SLOW_CLIENTS = 1_000
"""Clients that send one byte of a request each second, besides the idle connections."""
DECIDE_PER_SECOND = 50
"""Events a second at most: few enough that the worker is never busy."""
WARM_UP = 100
"""First events, which do not count."""
RESAMPLES = 1_000
"""Resamples of the bootstrap."""
READY_SECONDS = 60


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """One run of reads."""

    idle_connections: int
    slow_clients: int
    requests: int
    per_second: float
    cpu_us: float
    """CPU time of the gateway for a request."""
    p50_ms: float
    p99_ms: float

    @property
    def per_core(self) -> float:
        """Requests a second that one core of this machine could serve."""
        return 1e6 / self.cpu_us


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """Times from an event to its decision, ms, for the same events over HTTP and at a direct consumer."""

    events: int
    http_p50: float
    http_p99: float
    direct_p50: float
    """Times without HTTP: at the direct consumer, less the time that the request spends outside the gateway."""
    direct_p99: float
    added_p99: float
    """Difference of both p99."""
    added_p99_low: float
    """Interval of the difference (95 %), by a bootstrap over the events."""
    added_p99_high: float
    later_p50: float
    """Time of an answer after the decision at the direct consumer."""
    later_p99: float
    request_p50: float
    """Time of a request less the time from event to decision within the gateway."""
    request_p99: float


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="Length of each run.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--decisions-only", is_flag=True, help="Leave the reads out.")
@json_options
def main(*, seconds: float, rounds: int, decisions_only: bool, json_output: JsonOutput) -> None:
    """Measure a gateway's reads and decisions."""
    idle_connections = _raise_open_files(IDLE_CONNECTIONS)
    with open_environment() as environment:
        cases = ((0, 0), (idle_connections, 0), (idle_connections - SLOW_CLIENTS, SLOW_CLIENTS))
        reads_rounds = 0 if decisions_only else rounds
        reads = [_read_run(environment, seconds, idle, slow) for _ in range(reads_rounds) for idle, slow in cases]
        decisions = [_decision_run(environment, seconds) for _ in range(rounds)]
    json_output.write({"reads": reads, "decisions": decisions})
    if json_output.to_stdout:
        return
    for run in reads:
        click.echo(
            f"{run.idle_connections:>6,} idle connections, {run.slow_clients:>5,} slow clients: "
            f"{run.per_second:,.0f} GET/s, {run.cpu_us:.0f} us CPU each "
            f"({run.per_core:,.0f} GET/s a core), p50 {run.p50_ms:.1f} ms, p99 {run.p99_ms:.1f} ms"
        )
    for run in decisions:
        click.echo(
            f"event to decision, {run.events:,} events: HTTP p50 {run.http_p50:.1f} ms, p99 {run.http_p99:.1f} ms; "
            f"the same without HTTP p50 {run.direct_p50:.1f} ms, p99 {run.direct_p99:.1f} ms; "
            f"p99 is {run.added_p99:.1f} ms later ({run.added_p99_low:.1f} to {run.added_p99_high:.1f}). By event: "
            f"answer after the direct consumer p50 {run.later_p50:.2f} ms, p99 {run.later_p99:.2f} ms; "
            f"outside the gateway p50 {run.request_p50:.2f} ms, p99 {run.request_p99:.2f} ms"
        )


def _raise_open_files(connections: int) -> int:
    """Return how many connections the open files of a process allow, after raising their limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return connections if hard == resource.RLIM_INFINITY else min(connections, hard - 1_000)


def _read_run(environment: Environment, seconds: float, idle_connections: int, slow_clients: int) -> Reads:
    with environment.topics() as settings, _uvloop_runner() as runner:
        listening = settings.replace(gateway_port=free_port("127.0.0.1"))
        runner.run(_publish_decisions(listening))
        with child(GATEWAY, listening, environment.folder) as gateway:
            run = runner.run(_measure_reads(listening, gateway.process, seconds, idle_connections, slow_clients))
    report_progress(f"{idle_connections:,} idle, {slow_clients:,} slow: {run.cpu_us:.0f} us CPU a request")
    return run


def _decision_run(environment: Environment, seconds: float) -> Decisions:
    with environment.topics() as settings, _uvloop_runner() as runner:
        listening = settings.replace(gateway_port=free_port("127.0.0.1"), gateway_decide_ms=10_000)
        with child(WORKER, listening, environment.folder), child(GATEWAY, listening, environment.folder):
            run = runner.run(_measure_decisions(listening, seconds))
    report_progress(f"decisions: p99 {run.http_p99:.1f} ms over HTTP, {run.added_p99:.1f} ms later than without")
    return run


def _uvloop_runner() -> asyncio.Runner:
    """Return a runner with the event loop of a gateway."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _publish_decisions(settings: Settings) -> None:
    """Publish a decision of ten items for each user, as a worker would."""
    async with EventSender(settings.kafka, RECOMMENDATIONS.name) as sender:
        for number in range(USERS):
            user = f"user-{number}"
            items = tuple(
                Choice(item_id=f"item-{number * 10 + position}", score=0.123456, propensity=1.0, reason="model")
                for position in range(10)
            )
            decision = Recommendation(
                decision_id=f"{settings.kafka.topic_prefix}clickstream-events-0-{number}",
                user_id=user,
                event_id=f"event-{number}",
                ts=1_767_605_400_000,
                bundle="bench",
                policy="bench",
                variant="model",
                session_id=f"{user}-1",
                session_length=3,
                late=False,
                actions={"view": 0.5, "cart": 0.1, "favourite": 0.1, "purchase": 0.1, "leave": 0.2},
                purchase=0.05,
                items=items,
                filtered={},
            )
            await sender.add(encode_decision(decision), user.encode())


class _Client:
    """A connection for requests in sequence."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.decide_ms = 0.0
        """Time from event to decision within the gateway in the last answer, ms; 0 without a decision."""

    @classmethod
    async def connect(cls, settings: Settings) -> "_Client":
        """Open a connection to the gateway."""
        return cls(*await asyncio.open_connection("127.0.0.1", settings.gateway.gateway_port))

    def trickle(self, part: bytes) -> None:
        """Send a part of a request."""
        self._writer.write(part)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.decide_ms = float(answer.partition(b"decide;dur=")[2].partition(b"\r\n")[0] or 0)
        return int(answer[9:12]), await self._reader.readexactly(length)


async def _wait_ready(settings: Settings) -> None:
    """Wait until the gateway is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(OSError):
            client = await _Client.connect(settings)
            status, _ = await client.send("GET", "/health")
            client.close()
            if status == 200:
                return
        if time.monotonic() > deadline:
            message = f"the gateway was not ready in {READY_SECONDS} s"
            raise TimeoutError(message)
        await asyncio.sleep(0.1)


async def _wait_deciding(client: _Client) -> None:
    """Wait until a worker decides on events of many users."""
    deadline = time.monotonic() + READY_SECONDS
    for number in range(20):
        while True:
            event = View(event_id=uuid.uuid4().hex, user_id=f"ready-{number}", ts=int(time.time() * 1000), item_id="i")
            status, body = await client.send("POST", "/v1/events?decide=true", encode_event(event))
            if status == 200:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(body.decode())


async def _send_slowly(clients: Sequence[_Client]) -> None:
    """Send a byte of a header by each client, again and again."""
    for client in clients:
        client.trickle(b"GET /health HTTP/1.1\r\nslow: ")
    while True:
        await asyncio.sleep(1)
        for client in clients:
            client.trickle(b"x")


async def _measure_reads(
    settings: Settings, gateway: psutil.Popen, seconds: float, idle_connections: int, slow_clients: int
) -> Reads:
    """Send reads over `CLIENTS` connections without a pause, beside idle connections and slow clients.

    Args:
        settings: Settings of the gateway.
        gateway: Process of the gateway.
        seconds: Length of the run.
        idle_connections: Open connections that send nothing.
        slow_clients: Open connections that send a request byte by byte.
    """
    await _wait_ready(settings)
    idle = [await _Client.connect(settings) for _ in range(idle_connections)]
    slow = [await _Client.connect(settings) for _ in range(slow_clients)]
    clients = [await _Client.connect(settings) for _ in range(CLIENTS)]
    trickling = asyncio.create_task(_send_slowly(slow))
    times: list[float] = []
    deadline = time.monotonic() + seconds

    async def read(client: _Client, seed: int) -> None:
        rng = random.Random(seed)
        while (began_at := time.perf_counter()) and time.monotonic() < deadline:
            status, _ = await client.send("GET", f"/v1/users/user-{rng.randrange(USERS)}/recommendations")
            assert status == 200, status
            times.append(time.perf_counter() - began_at)

    cpu_before, began_at = _cpu_seconds(gateway), time.monotonic()
    await asyncio.gather(*(read(client, seed) for seed, client in enumerate(clients)))
    wall_s, cpu_s = time.monotonic() - began_at, _cpu_seconds(gateway) - cpu_before
    trickling.cancel()
    for client in (*idle, *slow, *clients):
        client.close()
    p50, p99 = _percentiles(times)
    return Reads(
        idle_connections=idle_connections,
        slow_clients=slow_clients,
        requests=len(times),
        per_second=len(times) / wall_s,
        cpu_us=cpu_s / len(times) * 1e6,
        p50_ms=p50,
        p99_ms=p99,
    )


async def _measure_decisions(settings: Settings, seconds: float) -> Decisions:
    """Send events over HTTP, and time each until the answer, and until a direct consumer has the decision.

    Args:
        settings: Settings of worker and gateway.
        seconds: Length of the run.
    """
    await _wait_ready(settings)
    http, direct = await _Client.connect(settings), PublishedDecisions(settings.gateway, GatewayMetrics())
    log = KafkaLog(
        settings.kafka,
        settings.gateway,
        on_decision=direct.receive,
        on_ad=direct.receive_ad,
        on_receipt=direct.receive_receipt,
    )
    http_s: list[float] = []
    seen_s: list[float] = []
    within_s: list[float] = []
    async with log:
        following = asyncio.create_task(log.follow())
        while not log.health().is_ready:  # noqa: ASYNC110 (the log has no event for it)
            await asyncio.sleep(0.05)
        await _wait_deciding(http)
        count = WARM_UP + int(seconds * DECIDE_PER_SECOND)
        for number in range(count):
            event = View(
                event_id=uuid.uuid4().hex,
                user_id=f"user-{number % 500}",
                ts=int(time.time() * 1000),
                item_id=f"item-{number % 100}",
            )
            with direct.pending.expect(event.user_id, event.event_id) as decision:
                value, began_at = encode_event(event), time.perf_counter()
                decision.add_done_callback(lambda _, start=began_at: seen_s.append(time.perf_counter() - start))
                status, body = await http.send("POST", "/v1/events?decide=true", value)
                http_s.append(time.perf_counter() - began_at)
                assert status == 200, body
                within_s.append(http.decide_ms / 1000)
                await decision
            await asyncio.sleep(random.uniform(0, 2 / DECIDE_PER_SECOND))
        following.cancel()
    http.close()
    return _compare(http_s[WARM_UP:], seen_s[WARM_UP:], within_s[WARM_UP:])


def _compare(http_s: list[float], seen_s: list[float], within_s: list[float]) -> Decisions:
    """Return the times of the same events with and without HTTP, and their differences.

    Args:
        http_s: Times of the requests, s.
        seen_s: Times until a direct consumer had the decision, s.
        within_s: Times from event to decision within the gateway, s.
    """
    http, seen, within = (np.array(times) * 1000 for times in (http_s, seen_s, within_s))
    request = http - within
    direct = seen - request
    rows = np.random.default_rng(0).integers(len(http), size=(RESAMPLES, len(http)))
    differences = np.percentile(http[rows], 99, axis=1) - np.percentile(direct[rows], 99, axis=1)
    low, high = np.percentile(differences, [2.5, 97.5])
    (http_p50, http_p99), (direct_p50, direct_p99), (later_p50, later_p99), (request_p50, request_p99) = (
        np.percentile(times, [50, 99]).tolist() for times in (http, direct, http - seen, request)
    )
    return Decisions(
        events=len(http),
        http_p50=http_p50,
        http_p99=http_p99,
        direct_p50=direct_p50,
        direct_p99=direct_p99,
        added_p99=http_p99 - direct_p99,
        added_p99_low=float(low),
        added_p99_high=float(high),
        later_p50=later_p50,
        later_p99=later_p99,
        request_p50=request_p50,
        request_p99=request_p99,
    )


def _cpu_seconds(process: psutil.Popen) -> float:
    spent = process.cpu_times()
    return spent.user + spent.system


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p99, ms."""
    cuts = quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


if __name__ == "__main__":
    main()
