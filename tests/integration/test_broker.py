"""The embedded broker: starts, survives, stops, and says what is wrong."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from clickscore.schemas.topics import EVENTS, MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES
from clickscore.stream.kafka.embedded import EmbeddedBroker, log_file
from clickscore.stream.kafka.topics import create_topics
from clickscore.stream.settings import KafkaSettings
from tests.brokers import embedded_broker

pytestmark = pytest.mark.kafka


def send(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async def run() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, max_request_size=MAX_REQUEST_BYTES
        )
        async with producer:
            await producer.send_and_wait(topic, value, partition=0)

    asyncio.run(run())


def first(bootstrap_servers: str, topic: str) -> bytes:
    async def run() -> bytes:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
        async with consumer:
            record = await asyncio.wait_for(consumer.getone(), 20)
        assert record.value is not None
        return record.value

    return asyncio.run(run())


def test_what_was_written_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    with embedded_broker(tmp_path) as broker:
        asyncio.run(create_topics(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)))
        send(broker.bootstrap_servers, EVENTS.name, b"kept")
        broker.stop()
        assert not broker.is_running()
        assert EmbeddedBroker.find(tmp_path) is None
    with embedded_broker(tmp_path) as broker:
        assert first(broker.bootstrap_servers, EVENTS.name) == b"kept"


def test_a_broker_that_was_stopped_comes_back_on_its_port(own_broker: EmbeddedBroker) -> None:
    own_broker.stop()
    with_same_port = EmbeddedBroker.start(own_broker.data, own_broker.port)
    try:
        assert with_same_port.bootstrap_servers == own_broker.bootstrap_servers
    finally:
        with_same_port.stop()


def test_second_start_on_the_same_folder_says_that_one_runs(own_broker: EmbeddedBroker) -> None:
    with pytest.raises(BrokerError, match=rf"already \({own_broker.bootstrap_servers}, pid {own_broker.pid}\)"):
        EmbeddedBroker.start(own_broker.data)
    assert own_broker.is_running()


def test_broker_listens_on_loopback_only(own_broker: EmbeddedBroker) -> None:
    listening = [
        connection
        for connection in psutil.Process(own_broker.pid).net_connections("tcp")
        if connection.status == "LISTEN"
    ]
    assert listening
    assert {connection.laddr[0].removeprefix("::ffff:") for connection in listening} == {"127.0.0.1"}


def test_record_as_large_as_topics_allow_is_taken(own_broker: EmbeddedBroker) -> None:
    asyncio.run(create_topics(KafkaSettings(bootstrap_servers=own_broker.bootstrap_servers)))
    send(own_broker.bootstrap_servers, EVENTS.name, bytes(MAX_RECORD_BYTES - 1024))


def test_broker_that_is_held_can_be_stopped(own_broker: EmbeddedBroker) -> None:
    os.kill(own_broker.pid, signal.SIGSTOP)
    own_broker.stop()
    assert not psutil.pid_exists(own_broker.pid)


def test_stop_kills_no_process_that_has_the_recorded_pid_by_chance(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        try:
            created_at = psutil.Process(stranger.pid).create_time()
            record = {"pid": stranger.pid, "started_at": created_at, "port": 9092, "controller_port": 9093}
            (tmp_path / "broker.json").write_bytes(msgspec.json.encode(record))
            assert EmbeddedBroker.find(tmp_path) is None
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} of 127.0.0.1 is in use"):
            EmbeddedBroker.start(tmp_path, port)


def test_start_that_fails_shows_the_end_of_the_log_and_leaves_no_process(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=x\n", encoding="utf-8")
    with pytest.raises(BrokerError, match=r"(?s)exit code 1.*meta\.properties"):
        EmbeddedBroker.start(tmp_path)
    assert EmbeddedBroker.find(tmp_path) is None
    assert log_file(tmp_path).exists()


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BrokerError, match="cannot be made"):
        EmbeddedBroker.start(tmp_path / "file" / "kafka")


def test_broker_outlives_the_command_that_started_it(tmp_path: Path) -> None:
    def clickscore(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "clickscore.stream", "broker", *arguments, "--data", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    assert clickscore("status").returncode == 1
    started = clickscore("start", "--port", "0")
    try:
        assert started.returncode == 0, started.stderr
        assert "answers at 127.0.0.1:" in started.stdout
        assert clickscore("status").returncode == 0
        assert "Already running" in clickscore("start").stdout
    finally:
        stopped = clickscore("stop")
    assert "Stopped" in stopped.stdout
    assert clickscore("status").returncode == 1
    assert "No broker runs" in clickscore("stop").stdout
