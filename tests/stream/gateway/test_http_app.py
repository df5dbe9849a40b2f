"""The gateway over HTTP, on a plain log: requests, answers, keys, limits."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clickscore.stream.gateway.api_keys import make_user_key
from clickscore.stream.gateway.openapi import OPERATIONS, openapi
from tests.docs.conforms import faults
from tests.stream.gateway.log_double import SOURCE, ad, decision
from tests.stream.gateway.running import JSON, Answer, RunningGateway, event, key_header, now, running_gateway

OPEN = {"/health", "/openapi.json", "/snippet.js"}
"""Paths without a key."""


def with_gateway(work: Callable[[RunningGateway], Awaitable[Any]], **changes: Any) -> Any:
    async def run() -> Any:
        async with running_gateway(**changes) as gateway:
            return await work(gateway)

    return asyncio.run(run())


def check_problem(answer: Answer, status: int, words: str = "") -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert words in answer.json["detail"]


def test_stored_events_have_the_ids_of_their_decisions() -> None:
    async def work(gateway: RunningGateway) -> None:
        answer = await gateway.post(event())
        assert (answer.status, answer.json) == (200, {"events": [{"event_id": "e1", "decision_id": f"{SOURCE}-0"}]})
        statement = {"type": "consent", "event_id": "c", "user_id": "anna", "ts": now(), "granted": ["ads"]}
        answer = await gateway.post([event(event_id="e2"), statement])
        assert answer.json == {"events": [{"event_id": "e2", "decision_id": f"{SOURCE}-1"}, {"event_id": "c"}]}
        assert [stored.event.event_id for stored in gateway.log.events] == ["e1", "e2", "c"]

    with_gateway(work)


def test_decide_answers_with_the_decision_on_the_last_event() -> None:
    async def work(gateway: RunningGateway) -> None:
        answer = await gateway.post([event(event_id="e1"), event(event_id="e2")], decide=True)
        assert answer.status == 200
        assert answer.json["decision"] == json.loads(decision(1, "anna", "e2"))
        assert answer.headers["server-timing"].startswith("decide;dur=")
        assert answer.body.endswith(b',"decision":' + decision(1, "anna", "e2") + b"}")

    with_gateway(work)


def test_decision_of_a_later_moment_is_waited_for() -> None:
    async def work(gateway: RunningGateway) -> None:
        gateway.log.is_deciding = False
        requests = [asyncio.create_task(gateway.post(event("anna", f"e{n}"), decide=True)) for n in range(20)]
        while len(gateway.log.events) < 20 or len(gateway.decisions.pending) < 20:  # noqa: ASYNC110 (no event says so)
            await asyncio.sleep(0.01)
        for offset in reversed(range(20)):
            gateway.log.decide(offset)
        for answer in await asyncio.gather(*requests):
            assert answer.json["decision"]["event_id"] == answer.json["events"][0]["event_id"]
        assert len(gateway.decisions.pending) == 0

    with_gateway(work)


def test_without_a_worker_decide_ends_with_504_and_the_id_to_ask_for() -> None:
    async def work(gateway: RunningGateway) -> None:
        gateway.log.is_deciding = False
        check_problem(await gateway.post(event(), decide=True), 504, f"{SOURCE}-0")
        assert len(gateway.log.events) == 1
        assert len(gateway.decisions.pending) == 0
        gateway.log.decide(0)
        assert (await gateway.get(f"/v1/decisions/{SOURCE}-0")).body == decision(0, "anna", "e1")

    with_gateway(work, gateway_decide_ms=50)


def test_second_attempt_of_a_client_gets_the_first_decision() -> None:
    async def work(gateway: RunningGateway) -> None:
        first = await gateway.post(event(), decide=True)
        gateway.log.is_deciding = False  # a worker drops the repeat
        assert (await gateway.post(event(), decide=True)).json["decision"] == first.json["decision"]

    with_gateway(work)


def test_log_that_does_not_store_is_503() -> None:
    async def work(gateway: RunningGateway) -> None:
        gateway.log.is_storing = False
        answer = await gateway.post(event(), decide=True)
        check_problem(answer, 503, "away")
        assert answer.headers["retry-after"] == "1"
        assert len(gateway.decisions.pending) == 0

    with_gateway(work)


def test_newest_decision_of_a_user_has_the_published_bytes() -> None:
    async def work(gateway: RunningGateway) -> None:
        for user in ("anna", "a/b", "zoë", "a%2Fb", ".", " "):
            await gateway.post(event(user, f"e-{user}"))
        ids = {"anna": "anna", "a/b": "a%2Fb", "zoë": "zo%C3%AB", "a%2Fb": "a%252Fb", " ": "%20"}
        for user, encoded in ids.items():
            answer = await gateway.get(f"/v1/users/{encoded}/recommendations")
            assert (answer.status, answer.json["user_id"]) == (200, user)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
        check_problem(await gateway.get("/v1/users/bob/recommendations"), 404, "no recent decision")
        check_problem(await gateway.get("/v1/users/%FF/recommendations"), 400, "not UTF-8")

    with_gateway(work)


def test_erased_user_has_no_decision() -> None:
    async def work(gateway: RunningGateway) -> None:
        await gateway.post(event())
        receipt = {"type": "erased", "record_id": f"{SOURCE}-1", "user_id": "anna", "event_id": "x", "ts": now()}
        gateway.decisions.receive_receipt(json.dumps(receipt).encode())
        check_problem(await gateway.get("/v1/users/anna/recommendations"), 404)

    with_gateway(work)


def test_placement_is_a_shelf_or_an_ad_placement_of_the_newest_decisions() -> None:
    async def work(gateway: RunningGateway) -> None:
        path = "/v1/users/anna/recommendations?placement="
        check_problem(await gateway.get(f"{path}list"), 404, "no recent decision")
        await gateway.post(event(), decide=True)
        shelf = await gateway.get(f"{path}list")
        assert (shelf.json["decision_id"], shelf.json["items"][0]["item_id"]) == (f"{SOURCE}-0", "birch-kettle")
        check_problem(await gateway.get(f"{path}beside"), 404, "they have list")
        gateway.decisions.receive_ad(ad(0, "anna", "e1", ["beside"]))
        ads = await gateway.get(f"{path}beside")
        assert (ads.json["decision_id"], ads.json["slots"][0]["item_id"]) == (f"{SOURCE}-0-ad", "oak-mug")
        assert (await gateway.get(f"/v1/decisions/{SOURCE}-0-ad")).body == ad(0, "anna", "e1", ["beside"])
        assert (await gateway.get("/v1/users/anna/recommendations")).json["decision_id"] == f"{SOURCE}-0"
        receipt = {"type": "erased", "record_id": f"{SOURCE}-1", "user_id": "anna", "event_id": "x", "ts": now()}
        gateway.decisions.receive_receipt(json.dumps(receipt).encode())
        check_problem(await gateway.get(f"{path}beside"), 404)
        assert len(gateway.decisions.ads) == 1  # it says that anna is erased
        assert gateway.decisions.ads.newest("anna") is None

    with_gateway(work)


def test_unreadable_records_of_the_topics_answer_nobody() -> None:
    async def work(gateway: RunningGateway) -> None:
        for value in (b"", b"{", b"{}", b"\xff", b"[" * 10_000):
            gateway.decisions.receive(value)
            gateway.decisions.receive_ad(value)
            gateway.decisions.receive_receipt(value)
        assert len(gateway.decisions.memory) == 0

    with_gateway(work)


def test_wrong_requests_are_refused_with_words() -> None:
    async def work(gateway: RunningGateway) -> None:
        faulty = await gateway.post([event(), event(ts="now")])
        check_problem(faulty, 400, "no event is stored")
        assert faulty.json["errors"][0]["index"] == 1
        erase = {"type": "erase", "event_id": "x", "user_id": "anna", "ts": now()}
        check_problem(await gateway.post(erase, decide=True), 400, "get none")
        body = json.dumps(event()).encode()
        check_problem(await gateway.send("POST", "/v1/events?decide=1", body, JSON), 400, "true or false")
        check_problem(await gateway.send("POST", "/v1/events", body, {"Content-Type": "text/plain"}), 415)
        check_problem(await gateway.get("/v1/decisions/none"), 404, "no such decision")
        check_problem(await gateway.get("/v2"), 404, "/openapi.json")
        refused = await gateway.send("DELETE", "/v1/events")
        check_problem(refused, 405)
        assert refused.headers["allow"] == "POST"
        assert gateway.log.events == []

    with_gateway(work)


def test_large_body_is_refused_and_not_read() -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    async def work(gateway: RunningGateway) -> None:
        check_problem(await gateway.post("x" * 1001), 413, "gateway_body_bytes (1000)")
        async with gateway.client.post(f"{gateway.address}/v1/events", data=chunks(), headers=JSON) as response:
            assert response.status == 413
        assert (await gateway.post(event())).status == 200

    with_gateway(work, gateway_body_bytes=1000)


def test_every_path_but_the_open_ones_needs_a_key(tmp_path: Path) -> None:
    key_header(tmp_path, "read")

    async def work(gateway: RunningGateway) -> None:
        for operation in OPERATIONS:
            path = operation.path.format(user_id="u", decision_id="d")
            answer = await gateway.send(operation.method, path, b"{}", JSON)
            if operation.path in OPEN:
                assert answer.status == 200
            else:
                check_problem(answer, 401, "API key")
                assert answer.headers["www-authenticate"].startswith("Bearer")

    with_gateway(work, gateway_keys_file=str(tmp_path / "keys.json"))


def test_key_opens_what_its_scopes_name(tmp_path: Path) -> None:
    headers = key_header(tmp_path, "events")
    erase = {"type": "erase", "event_id": "x", "user_id": "anna", "ts": now()}
    identify = {"type": "identify", "event_id": "i", "user_id": "cookie", "ts": now(), "identified_as": "anna"}

    async def work(gateway: RunningGateway) -> None:
        assert (await gateway.post(event(), **headers)).status == 200
        assert (await gateway.post(identify, **headers)).status == 200
        check_problem(await gateway.post(event(), decide=True, **headers), 403, "'read'")
        check_problem(await gateway.get("/v1/users/anna/recommendations", **headers), 403, "'read'")
        check_problem(await gateway.get(f"/v1/decisions/{SOURCE}-0/explain", **headers), 403, "'read'")
        check_problem(await gateway.get("/metrics", **headers), 403, "'admin'")
        check_problem(await gateway.post([event(), erase], **headers), 403, "'admin'")
        assert len(gateway.log.events) == 2

    with_gateway(work, gateway_keys_file=str(tmp_path / "keys.json"))


def test_events_count_against_the_rate_of_a_key(tmp_path: Path) -> None:
    headers = key_header(tmp_path, "events", rate=50)

    async def work(gateway: RunningGateway) -> None:
        many = [event(event_id=f"e{n}") for n in range(5_000)]
        assert (await gateway.post(many, **headers)).status == 200
        refused = await gateway.post(event(), **headers)
        check_problem(refused, 429, "50/s")
        assert int(refused.headers["retry-after"]) > 50

    with_gateway(work, gateway_keys_file=str(tmp_path / "keys.json"), gateway_body_bytes=10_000_000)


def test_web_site_may_call_only_if_it_is_named() -> None:
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization,content-type"

    async def work(gateway: RunningGateway) -> tuple[Answer, Answer]:
        return await gateway.send("OPTIONS", "/v1/events", headers=asks), await gateway.get("/health", **asks)

    for answer in with_gateway(work):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    asked, answered = with_gateway(work, gateway_cors_origins="https://other.example, https://shop.example")
    assert asked.status == 200
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert answered.headers["access-control-allow-origin"] == "https://shop.example"
    (asked, answered) = with_gateway(work, gateway_cors_origins="https://other.example")
    assert asked.status == 400
    assert "access-control-allow-origin" not in answered.headers


def test_gateway_without_keys_answers_to_its_own_names_only() -> None:
    async def work(gateway: RunningGateway) -> None:
        check_problem(await gateway.get("/health", Host="evil.example"), 421)
        assert (await gateway.get("/health", Host="localhost:1234")).status == 200

    with_gateway(work)


def test_user_key_speaks_about_its_user_alone(tmp_path: Path) -> None:
    header = key_header(tmp_path, "events", "read", "admin")
    text = make_user_key(header["Authorization"].removeprefix("Bearer "), "anna", 2**40)
    headers = {"Authorization": f"Bearer {text}"}
    erase = {"type": "erase", "event_id": "x", "user_id": "anna", "ts": now()}
    identify = {"type": "identify", "event_id": "i", "user_id": "anna", "ts": now(), "identified_as": "bob"}
    consent = {"type": "consent", "event_id": "c", "user_id": "anna", "ts": now(), "granted": ["ads"]}

    async def work(gateway: RunningGateway) -> None:
        assert (await gateway.post([consent, event("anna")], decide=True, **headers)).status == 200
        assert (await gateway.get("/v1/users/anna/recommendations", **headers)).status == 200
        check_problem(await gateway.get("/v1/users/bob/recommendations", **headers), 403, "another user")
        check_problem(await gateway.post([event("anna"), event("bob")], **headers), 403, "another user")
        check_problem(await gateway.post(erase, **headers), 403, "erase")
        check_problem(await gateway.post(identify, **headers), 403, "identify")
        for path in (f"/v1/decisions/{SOURCE}-0", f"/v1/decisions/{SOURCE}-0/explain", "/metrics"):
            check_problem(await gateway.get(path, **headers), 403, "alone")
        assert len(gateway.log.events) == 2

    with_gateway(work, gateway_keys_file=str(tmp_path / "keys.json"))


def test_health_and_metrics_show_the_state() -> None:
    async def work(gateway: RunningGateway) -> None:
        await gateway.post([event(), event(event_id="e2")], decide=True)
        health = await gateway.get("/health")
        assert health.status == 200
        assert health.json == {"ready": True, "lag": 3, "kafka_answered_ms": 20, "users": 1, "pending": 0}
        gateway.log.is_ready = False
        assert (await gateway.get("/health")).status == 503
        await gateway.get("/v1/users/secret-user/recommendations")
        await gateway.get("/nothing/here")
        metrics = (await gateway.get("/metrics")).body.decode()
        for line in (
            'clickscore_gateway_requests_total{route="/v1/events",status="200"} 1.0',
            'clickscore_gateway_requests_total{route="/v1/users/{user_id}/recommendations",status="404"} 1.0',
            'clickscore_gateway_requests_total{route="other",status="404"} 1.0',
            'clickscore_gateway_request_seconds_count{route="/v1/events"} 1.0',
            "clickscore_gateway_events_total 2.0",
            'clickscore_gateway_decisions_total{outcome="answered"} 1.0',
            "clickscore_gateway_users 1.0",
            "clickscore_gateway_connections 1.0",
            "clickscore_gateway_lag_decisions 3.0",
        ):
            assert line in metrics
        assert "secret-user" not in metrics

    with_gateway(work)


@pytest.mark.parametrize("decide", [False, True])
def test_answers_are_as_the_description_says(decide: bool) -> None:
    description = openapi()

    def check(answer: Answer, method: str, path: str) -> None:
        content = description["paths"][path][method]["responses"][str(answer.status)]["content"]
        schema = content[answer.headers["content-type"]]["schema"]
        assert faults(answer.json, schema, description) == []

    async def work(gateway: RunningGateway) -> None:
        assert (await gateway.get("/openapi.json")).json == description
        check(await gateway.post([event(), event(event_id="e2")], decide=decide), "post", "/v1/events")
        check(await gateway.post([event(ts=1), event()], decide=decide), "post", "/v1/events")
        path = "/v1/users/{user_id}/recommendations"
        for user in ("anna", "bob", "%FF"):
            check(await gateway.get(path.format(user_id=user)), "get", path)
        gateway.decisions.receive_ad(ad(0, "anna", "e1", ["beside"]))
        for name in ("list", "beside", "none"):
            check(await gateway.get(f"/v1/users/anna/recommendations?placement={name}"), "get", path)
        path = "/v1/decisions/{decision_id}"
        for name in (f"{SOURCE}-0", f"{SOURCE}-0-ad", "none"):
            check(await gateway.get(path.format(decision_id=name)), "get", path)
        path = "/v1/decisions/{decision_id}/explain"
        for name in (f"{SOURCE}-0", "none"):
            check(await gateway.get(path.format(decision_id=name)), "get", path)
        check(await gateway.get("/health"), "get", "/health")
        gateway.log.is_storing = gateway.log.is_ready = False
        check(await gateway.post(event(), decide=decide), "post", "/v1/events")
        check(await gateway.get("/health"), "get", "/health")

    with_gateway(work)
