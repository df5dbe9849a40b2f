"""A real Redis server for tests: Debian's package `redis-server`, which CI installs; a test is skipped without it."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from clickscore.stream.simulator.worker_process import free_port

REDIS = shutil.which("redis-server")
START_SECONDS = 20

with_redis = pytest.mark.skipif(REDIS is None, reason="no Redis server on this machine (Debian: redis-server)")


class RedisServer:
    """A Redis server on a port of its own, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port("127.0.0.1")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [str(REDIS), *options, "--dir", str(self._folder), "--logfile", str(self._folder / "redis.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                else:
                    return

    def stop(self) -> None:
        """Kill the server: what it held is gone."""
        self._process.kill()
        self._process.wait()

    def client(self) -> Redis:
        """Return a client."""
        return Redis(port=self.port)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis server for the block.

    Args:
        folder: Folder for its log.
    """
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
