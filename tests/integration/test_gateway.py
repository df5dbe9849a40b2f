"""The gateway as a process, on a real broker beside a real worker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.topics import RECOMMENDATIONS
from clickscore.stream.settings import Settings, environment_of
from clickscore.stream.simulator.worker_process import free_port
from tests.browser import in_chromium, running_browser
from tests.integration.live import POLL_S, READY_S, ROOT, Installation, installation
from tests.redis_server import running_redis, with_redis
from tests.stream.gateway.shop_page import shop_site

pytestmark = pytest.mark.kafka

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Trace of a request (W3C Trace Context)."""


class Gateway:
    """`clickscore gateway` as a child process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings.replace(gateway_port=free_port("127.0.0.1"))
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "clickscore.stream", "gateway"],
                cwd=ROOT,
                env={**os.environ, **environment_of(self.settings)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def send(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        request = Request(f"http://127.0.0.1:{self.settings.gateway.gateway_port}{path}", headers=headers)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=20) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            return error.code, json.load(error)

    def wait(self, path: str, status: int) -> Any:
        """Ask until an answer has the status, and return its JSON."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                answered, content = self.send(path)
            except OSError:
                answered, content = 0, None
            if answered == status:
                return content
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{path} is {answered}: {content}\n{self.log.read_text()}"
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the gateway with SIGTERM; it must end cleanly."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log.read_text()


@contextmanager
def running_gateway(settings: Settings, log: Path) -> Iterator[Gateway]:
    gateway = Gateway(settings, log)
    try:
        gateway.wait("/health", 200)
        yield gateway
        gateway.stop()
    finally:
        gateway.process.kill()
        gateway.process.wait()


def explained(settings: Settings, decision_id: str) -> Any:
    """Return what `clickscore explain --json` says about a decision."""
    command = [sys.executable, "-m", "clickscore.stream", "explain", "--json", decision_id]
    environment = {**os.environ, **environment_of(settings)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)[0]


def event(event_id: str, kind: str = "view", **fields: Any) -> dict[str, Any]:
    item = {"item_id": "birch-kettle"} if kind in {"view", "cart"} else {}
    now = int(time.time() * 1000)
    return {"type": kind, "event_id": event_id, "user_id": "anna", "ts": now} | item | fields


def test_gateway_stores_events_and_answers_with_the_decisions_of_a_worker(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, gateway_decide_ms=10_000) as live:
        live.fill_catalogue([Item(item_id="oak-mug")], [Campaign(campaign_id="tea-week", item_id="oak-mug", bid=0.4)])
        worker = live.start_worker()
        with running_gateway(live.settings, tmp_path / "first.log") as first:
            worker.wait_restored()
            events = [event("e1"), event("e2", "cart")]
            status, answer = first.send("/v1/events?decide=true", events, traceparent=PARENT)
            assert status == 200
            decision = answer["decision"]
            assert (decision["event_id"], decision["session_length"]) == ("e2", 2)
            assert decision["decision_id"] == answer["events"][1]["decision_id"]
            records = [record for records in live.read(RECOMMENDATIONS).values() for record in records]
            assert {dict(record.headers)["traceparent"].decode() for record in records} == {PARENT}
            published = [record.value for record in records]
            assert decision in [json.loads(value or b"") for value in published]
            assert first.send("/v1/users/anna/recommendations") == (200, decision)
            # The decision of e1 is not the newest any more: it comes from Kafka.
            status, earlier = first.send(f"/v1/decisions/{answer['events'][0]['decision_id']}")
            assert (status, earlier["event_id"]) == (200, "e1")
            shelf = first.send("/v1/users/anna/recommendations?placement=list")[1]
            assert (shelf["decision_id"], shelf["items"]) == (decision["decision_id"], decision["items"])
            ads = first.wait("/v1/users/anna/recommendations?placement=beside", 200)
            assert ads["slots"][0]["campaign_id"] == "tea-week"
            for event_answer in answer["events"]:  # the newest from memory, the earlier from Kafka
                status, ad = first.send(f"/v1/decisions/{event_answer['decision_id']}-ad")
                assert (status, ad["event_id"], ad["type"]) == (200, event_answer["event_id"], "ad")
            for missing in ("none", "other-0-0", f"{decision['decision_id']}9", f"{decision['decision_id'][:-1]}x"):
                assert first.send(f"/v1/decisions/{missing}")[0] == 404
                assert first.send(f"/v1/decisions/{missing}/explain")[0] == 404
            status, explanation = first.send(f"/v1/decisions/{decision['decision_id']}/explain")
            assert (status, explanation["verdict"], explanation["published"]) == (200, "equal", decision)
            assert explanation == explained(live.settings, decision["decision_id"])

            # A second gateway, started later, knows the decisions of the past.
            with running_gateway(live.settings, tmp_path / "second.log") as second:
                assert second.send("/v1/users/anna/recommendations") == (200, decision)
                assert first.send("/v1/events", event("erase", "erase"))[0] == 200
                for gateway in (first, second):
                    gateway.wait("/v1/users/anna/recommendations", 404)
                    assert "anna" not in gateway.log.read_text()


@with_redis
def test_gateway_that_reads_no_history_has_the_decisions_of_redis(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, gateway_decide_ms=10_000) as live, running_redis(tmp_path) as server:
        live.start_worker().wait_restored()
        settings = live.settings.replace(gateway_redis_url=server.url)
        with running_gateway(settings, tmp_path / "first.log") as first:
            _, answer = first.send("/v1/events?decide=true", event("e1"))
            path = "/v1/users/anna/recommendations"
            with running_gateway(settings.replace(gateway_history_ms=0), tmp_path / "second.log") as second:
                assert second.wait(path, 200) == answer["decision"]
                assert first.send("/v1/events", event("erase", "erase"))[0] == 200
                with running_gateway(settings.replace(gateway_history_ms=0), tmp_path / "third.log") as third:
                    for gateway in (first, second, third):
                        gateway.wait(path, 404)


@in_chromium
def test_page_with_the_snippet_follows_the_consent_of_its_visitor(broker: str, tmp_path: Path) -> None:
    """A browser beside broker, worker and gateway: what it sends, and what the topic has of each visitor."""

    async def visit(live: Installation) -> None:
        async with shop_site({"data-item": "birch-kettle"}) as (address, addresses):
            settings = live.settings.replace(gateway_cors_origins=address)
            with running_gateway(settings, tmp_path / "gateway.log") as gateway:
                addresses["gateway"] = f"http://127.0.0.1:{gateway.settings.gateway.gateway_port}"
                others = [event(f"o{n}", user_id=f"other-{n}", item_id=f"item-{n % 3}") for n in range(6)]
                assert (await asyncio.to_thread(gateway.send, "/v1/events?decide=true", others))[0] == 200
                async with running_browser(tmp_path) as browser:
                    silent = await browser.new_page()
                    await silent.open(address)
                    await silent.evaluate("clickscore.consent({personalisation: false, ads: false})")
                    page = await browser.new_page()
                    await page.open(address)
                    await page.evaluate("clickscore.consent({personalisation: true, ads: false})")
                    decision = json.loads(await page.wait_for("document.querySelector('li')?.dataset.clickscore"))
                    await page.wait_for(
                        "performance.now() > 3000"
                    )  # the first item is on screen for more than a second
                    await page.click("li")
                    await page.open(f"{address}/next")
                    await silent.open(f"{address}/next")
                    assert page.errors == []
                    assert [url for url in silent.urls if "/v1/" in url] == []
                assert decision["item_id"].startswith("item-")

    # One partition, since each knows the popular items of its own users.
    with installation(broker, tmp_path, gateway_decide_ms=10_000, partitions=1) as live:
        live.start_worker().wait_restored()
        asyncio.run(visit(live))
        events = [json.loads(record.value or b"") for record in live.events()]
        mine = [record for record in events if not record["user_id"].startswith("other-")]
        assert len({record["user_id"] for record in mine}) == 1
        kinds = Counter(record["type"] for record in mine)
        assert kinds.pop("impression") >= 1
        assert kinds == {"consent": 1, "view": 1, "click": 1}
        assert mine[0]["granted"] == ["personalisation"]
        (view,) = (record for record in mine if record["type"] == "view")
        (click,) = (record for record in mine if record["type"] == "click")
        live.wait_finished()
        published = [record.value for records in live.read(RECOMMENDATIONS).values() for record in records]
        decisions = {decision["event_id"]: decision for decision in map(json.loads, filter(None, published))}
        assert decisions[view["event_id"]]["decision_id"] == click["decision_id"]
        assert decisions[view["event_id"]]["withheld"] == ["ads"]
        assert decisions[click["event_id"]]["session_length"] == 2
