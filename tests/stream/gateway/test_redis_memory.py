"""Newest decisions in a real Redis server, shared by gateways."""

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from clickscore.stream.errors import SettingsError
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.gateway.redis_memory import MIN_WAITING, RedisMemory
from clickscore.stream.settings import Settings
from tests.redis_server import RedisServer, running_redis, with_redis
from tests.stream.gateway.log_double import SOURCE, ad, decision
from tests.stream.gateway.running import RunningGateway, event, now, running_gateway

PATH = "/v1/users/anna/recommendations"

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as running:
        yield running


async def wait_status(gateway: RunningGateway, status: int, path: str = PATH) -> bytes:
    """Ask until the answer has the status, and return its body."""
    async with asyncio.timeout(20):
        while (answer := await gateway.get(path)).status != status:  # noqa: ASYNC110 (Redis has no event for it)
            await asyncio.sleep(0.05)
    return answer.body


def with_two_gateways(
    server: RedisServer, work: Callable[[RunningGateway, RunningGateway], Awaitable[None]], **changes: int
) -> None:
    """Run two gateways that share a Redis server, and no log."""

    async def run() -> None:
        async with (
            running_gateway(gateway_redis_url=server.url, **changes) as first,
            running_gateway(gateway_redis_url=server.url, **changes) as second,
        ):
            await work(first, second)

    asyncio.run(run())


@with_redis
def test_gateway_answers_with_a_decision_that_only_another_gateway_has_read(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        await first.post(event(), decide=True)
        assert await wait_status(second, 200) == decision(0, "anna", "e1")
        assert (await second.get("/v1/users/bob/recommendations")).status == 404

    with_two_gateways(server, work)


@with_redis
def test_ads_are_shared_as_well(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        await first.post(event(), decide=True)
        first.decisions.receive_ad(ad(0, "anna", "e1", ["beside"]))
        body = await wait_status(second, 200, f"{PATH}?placement=beside")
        assert json.loads(body)["decision_id"] == f"{SOURCE}-0-ad"

    with_two_gateways(server, work)


@with_redis
def test_users_beyond_the_memory_of_a_gateway_are_in_redis(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        del second
        for number in range(20):
            await first.post(event(f"user-{number}", f"e{number}"), decide=True)
        assert len(first.decisions.memory) == 2
        body = await wait_status(first, 200, "/v1/users/user-3/recommendations")
        assert body == decision(3, "user-3", "e3")

    with_two_gateways(server, work, gateway_users=2)


@with_redis
def test_newest_decision_stays_whatever_the_order_of_the_gateways(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        await first.post(event(), decide=True)
        await first.post(event(event_id="e2"), decide=True)
        await wait_status(second, 200)
        second.decisions.receive(decision(0, "anna", "e1"))  # a gateway that is behind
        second.decisions.receive(decision(0, "bob", "b1"))
        await wait_status(first, 200, "/v1/users/bob/recommendations")  # so anna's is written as well
        async with running_gateway(gateway_redis_url=server.url) as third:
            assert await wait_status(third, 200) == decision(1, "anna", "e2")

    with_two_gateways(server, work)


@with_redis
def test_erased_user_is_forgotten_and_not_named_in_redis(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        await first.post(event(), decide=True)
        await wait_status(second, 200)
        receipt = {"type": "erased", "record_id": f"{SOURCE}-1", "user_id": "anna", "event_id": "x", "ts": now()}
        first.decisions.receive_receipt(json.dumps(receipt).encode())
        await wait_status(second, 404)
        assert (await first.get(PATH)).status == 404
        second.decisions.receive(decision(0, "anna", "e1"))
        second.decisions.receive(decision(0, "bob", "b1"))
        await wait_status(first, 200, "/v1/users/bob/recommendations")
        with server.client() as client:
            keys = client.keys()
            assert not any(b"anna" in key for key in keys)
            assert not any(b"anna" in client.dump(key) for key in keys)
        async with running_gateway(gateway_redis_url=server.url) as third:
            assert (await third.get(PATH)).status == 404

    with_two_gateways(server, work)


@with_redis
def test_keys_go_after_their_time(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        await first.post(event(), decide=True)
        await wait_status(second, 200)
        with server.client() as client:
            (key,) = client.keys()
            assert 0 < client.pttl(key) <= 60_000

    with_two_gateways(server, work, gateway_redis_ttl_ms=60_000)


@with_redis
def test_without_redis_memory_answers_and_what_was_not_written_is_written_later(server: RedisServer) -> None:
    async def work(first: RunningGateway, second: RunningGateway) -> None:
        server.stop()
        assert (await first.post(event(), decide=True)).status == 200
        assert (await first.get(PATH)).status == 200
        answer = await second.get(PATH)
        assert answer.status == 503  # not 404: the user may be known
        assert answer.headers["retry-after"] == "1"
        server.start()
        assert await wait_status(second, 200) == decision(0, "anna", "e1")
        metrics = (await second.get("/metrics")).body.decode()
        assert "clickscore_gateway_redis_errors_total 0.0" not in metrics
        assert "clickscore_gateway_redis_waiting_decisions 0.0" in metrics

    with_two_gateways(server, work)


def test_without_redis_only_so_many_decisions_wait() -> None:
    settings = Settings.of(gateway_redis_url="redis://127.0.0.1:1/0", gateway_users=MIN_WAITING)

    async def run() -> None:
        metrics = GatewayMetrics()
        memory = RedisMemory(settings, metrics)
        writing = asyncio.create_task(memory.run())
        for number in range(MIN_WAITING + 10):
            memory.put("recommendation", f"user-{number}", f"{SOURCE}-{number}", b"value")
        async with asyncio.timeout(20):
            while not metrics.registry.get_sample_value("clickscore_gateway_redis_errors_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        memory.put("recommendation", "user-20", f"{SOURCE}-99999", None)
        assert metrics.registry.get_sample_value("clickscore_gateway_redis_waiting_decisions") == MIN_WAITING
        assert await memory.newest("recommendation", "user-21") == b"value"
        assert await memory.newest("recommendation", "user-20") is None
        writing.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost", "redis://localhost:port", "redis://:S3cret/abc@localhost:6379/0"]
)
def test_address_of_another_form_is_refused_with_words_and_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="gateway_redis_url") as refused:
        RedisMemory(Settings.of(gateway_redis_url=url), GatewayMetrics())
    assert "S3cret" not in "".join(traceback.format_exception(refused.value))
