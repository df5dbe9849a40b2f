"""First start and Ctrl-C: few useful lines on a fresh broker, and an end even where nobody reads the log."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.settings import environment_of
from tests.brokers import embedded_broker
from tests.integration.live import ROOT, Installation, installation

pytestmark = pytest.mark.kafka

END_S = 60


@pytest.fixture(scope="module")
def fresh_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that has never seen a consumer group."""
    with embedded_broker(tmp_path_factory.mktemp("fresh") / "kafka") as started:
        yield started


@pytest.fixture(scope="module")
def live(fresh_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(fresh_broker.bootstrap_servers, tmp_path_factory.mktemp("first")) as running:
        yield running


def test_first_start_on_a_fresh_broker_writes_a_few_useful_lines(live: Installation, bundle: Path) -> None:
    worker = live.start_worker(bundle=str(bundle))
    worker.wait_restored()
    worker.stop()
    lines = worker.output.splitlines()
    assert not [line for line in lines if "ERROR" in line or "[^" in line], worker.output
    assert len(lines) <= 8, worker.output
    for expected in (r"bundle: ", r"topics: ", r"partitions \[0, 1, 2, 3\]: restored", r"ready: http://\S+/health"):
        assert any(re.search(expected, line) for line in lines), worker.output


def test_ctrl_c_ends_a_worker_whose_log_goes_into_a_pipe_that_has_died(live: Installation) -> None:
    settings = live.settings.replace(web_port=0)
    with subprocess.Popen(
        [sys.executable, "-m", "clickscore.stream", "worker"],
        cwd=ROOT,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **environment_of(settings)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr
        try:
            ready = next((line for line in process.stderr if b"ready: " in line), b"")
            assert re.search(rb"http://127\.0\.0\.1:[1-9]\d+/health", ready)  # the port that the worker has got
            process.stderr.close()
            process.send_signal(signal.SIGINT)
            process.wait(END_S)
        finally:
            process.kill()
