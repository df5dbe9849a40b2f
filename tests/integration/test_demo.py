"""The demo from its command to its end: on a real broker, and nothing left behind."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KEYS = ["events", "decisions", "dead_letters", "first_decision_s", "latency_ms", "variants", "shelves"]


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """The folder that the demo takes for temporary files, so that we see what it leaves."""
    folder = tmp_path / "temp"
    folder.mkdir()
    return folder


def start(temp: Path, *flags: str, **variables: str) -> subprocess.Popen:
    # Without the environment's broker, so that it starts its own: that is what it has to clean up.
    inherited = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    return subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "demo", *flags],
        cwd=ROOT,
        env={**inherited, "TMPDIR": str(temp), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def family(demo: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(demo.pid).children(recursive=True)


def is_kafka(process: psutil.Process) -> bool:
    try:
        return "kafka.Kafka" in process.cmdline()
    except psutil.Error:  # it has just ended: what formats Kafka's folder lives briefly
        return False


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def ports(processes: list[psutil.Process]) -> set[int]:
    return {
        connection.laddr.port
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def until_open(demo: subprocess.Popen) -> str:
    """Read what the demo says until the shop is open."""
    output = ""
    for line in demo.stdout:
        output += line
        if "events/s" in line:
            return output
    pytest.fail(f"the demo ended before the shop opened:\n{output}")


def assert_nothing_is_left(children: list[psutil.Process], listening: set[int], temp: Path) -> None:
    assert len(children) >= 2  # Kafka and the worker
    assert len(listening) >= 2
    assert all(has_ended(child) for child in children)
    still = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert not listening & still
    assert list(temp.iterdir()) == []


def check_web_pages(output: str) -> None:
    """Check the console and the shop of a running demo, with an event of a person and the decision on it."""
    address = re.search(r"Console: (http://\S+)/console", output)[1]

    def ask(path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read()

    def read_until(path: str, field: str) -> dict:
        deadline = time.monotonic() + 20
        while not (data := json.loads(ask(f"/console/data/{path}"))).get(field):
            assert time.monotonic() < deadline, data
            time.sleep(0.1)
        return data

    assert b"shop.js" in ask("/console/shop")
    item = read_until("shop", "items")["items"][0]
    event = {
        "type": "view",
        "event_id": "e",
        "user_id": "person",
        "ts": int(time.time() * 1000),
        "item_id": item["item_id"],
    }
    decision = json.loads(ask("/v1/events?decide=true", json.dumps(event).encode()))["decision"]
    deadline = time.monotonic() + 20
    while (
        shown := read_until("user?id=person", "moments")["moments"][0]["decision"]
    ) is None:  # it reads the topics itself
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert shown == decision
    assert read_until("outcomes", "variants")["variants"].keys() <= {"model", "popular", "fallback"}
    assert read_until("health", "workers")["status"]["problem"] == ""


def test_demo_ends_by_itself_with_a_summary_of_what_it_measured(temp, tmp_path):
    file = tmp_path / "summary.json"
    demo = start(temp, "--seconds", "15", "--json-file", str(file))
    output = until_open(demo)
    children = family(demo)
    listening = ports(children)
    check_web_pages(output)
    rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output + rest
    summary = json.loads(file.read_text())
    assert list(summary) == KEYS
    assert summary["events"] > 500
    assert summary["decisions"]["recommendation-decisions"] > 250
    assert set(summary["decisions"]) == {"recommendation-decisions", "ad-decisions"}
    assert summary["dead_letters"] > 0
    assert 0 < summary["first_decision_s"] < 90
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert {"model", "popular"} <= set(summary["variants"]) <= {"model", "popular", "fallback"}
    # A busy machine decides some events without the model (fallback), and none of these may have been seen by the end
    assert all(summary["variants"][name]["impressions"] > 0 for name in ("model", "popular"))
    assert "→ we show" in output + rest
    assert_nothing_is_left(children, listening, temp)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_demo_cleanly(temp, number):
    demo = start(temp)
    output = until_open(demo)
    children = family(demo)
    listening = ports(children)
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output + rest
    assert "First decision after" in rest
    assert_nothing_is_left(children, listening, temp)


def test_signal_while_kafka_starts_leaves_nothing(temp):
    demo = start(temp)
    deadline = time.monotonic() + 60
    while not any(is_kafka(child) for child in family(demo)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = family(demo)
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output
    assert all(has_ended(child) for child in children)
    assert list(temp.iterdir()) == []


def test_worker_that_dies_ends_the_demo_with_its_log(temp, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    demo = start(temp, "--bundle", str(bundle))
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "the worker ended by itself" in output
    assert "manifest.json" in output
    assert "Traceback" not in output
    assert list(temp.iterdir()) == []


def test_kafka_that_dies_ends_the_demo(temp):
    demo = start(temp)
    output = until_open(demo)
    children = family(demo)
    kafka = next(child for child in children if is_kafka(child))
    kafka.kill()
    rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, output + rest
    assert "Kafka ended by itself" in rest
    assert "Traceback" not in rest
    assert all(has_ended(child) for child in children)


def test_demo_on_a_kafka_of_ones_own_takes_its_topics_away(broker, temp):
    demo = start(temp, "--seconds", "3", KAFKA_BOOTSTRAP_SERVERS=broker)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert broker in output
    topic_names = asyncio.run(list_topics(KafkaSettings(bootstrap_servers=broker)))
    assert not [name for name in topic_names if name.startswith("demo-")]
