"""The gateway as a process, on a real broker beside a real worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from clickscore.schemas.topics import RECOMMENDATIONS
from clickscore.stream.settings import Settings, environment_of
from clickscore.stream.simulator.worker_process import free_port
from tests.integration.live import POLL_S, READY_S, ROOT, installation

pytestmark = pytest.mark.kafka


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

    def send(self, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        request = Request(f"http://127.0.0.1:{self.settings.gateway.gateway_port}{path}")
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
    return {"type": kind, "event_id": event_id, "user_id": "anna", "ts": now, **item, **fields}


def test_gateway_stores_events_and_answers_with_the_decisions_of_a_worker(broker: str, tmp_path: Path) -> None:
    with installation(broker, tmp_path, gateway_decide_ms=10_000) as live:
        worker = live.start_worker()
        with running_gateway(live.settings, tmp_path / "first.log") as first:
            worker.wait_restored()
            status, answer = first.send("/v1/events?decide=true", [event("e1"), event("e2", "cart")])
            assert status == 200
            decision = answer["decision"]
            assert (decision["event_id"], decision["session_length"]) == ("e2", 2)
            assert decision["decision_id"] == answer["events"][1]["decision_id"]
            published = [record.value for records in live.read(RECOMMENDATIONS).values() for record in records]
            assert decision in [json.loads(value or b"") for value in published]
            assert first.send("/v1/users/anna/recommendations") == (200, decision)
            # The decision of e1 is not the newest any more: it comes from Kafka.
            status, earlier = first.send(f"/v1/decisions/{answer['events'][0]['decision_id']}")
            assert (status, earlier["event_id"]) == (200, "e1")
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
