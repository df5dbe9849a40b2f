"""Place: where a benchmark runs: one at a time, in a temporary folder, on a broker and with a bundle of its own."""

import asyncio
import fcntl
import os
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from bench.control import Control
from bench.logs import ITEMS, WARM
from bench.quiet import Quiet
from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.worker_process import free_port

LOCK = Path(tempfile.gettempdir()) / "clickscore-bench.lock"
MODEL = ModelConfig(dim=64, layers=2, max_length=WARM)


@dataclass(frozen=True)
class Place:
    """A running broker, a bundle of random weights with its control, and a folder that goes with them."""

    folder: Path
    broker: EmbeddedBroker
    bundle: Path
    control: Control
    quiet: Quiet

    @contextmanager
    def topics(self, *, bundle: bool = True) -> Generator[Settings]:
        """Give the settings of an installation of its own: fresh topics, fresh group, and this bundle or none."""
        prefix = f"bench-{uuid.uuid4().hex[:8]}."
        settings = Settings(
            bootstrap_servers=self.broker.bootstrap_servers,
            topic_prefix=prefix,
            group=f"{prefix}workers",
            bundle=str(self.bundle) if bundle else "",
            web_port=free_port("127.0.0.1"),
            broker_wait_ms=15_000,
        )
        asyncio.run(create_topics(settings))
        try:
            yield settings
        finally:
            asyncio.run(delete_topics(settings))


@contextmanager
def place(patience_seconds: float = 0) -> Generator[Place]:
    """Give a place once no other benchmark runs, and clear it away at the end.

    Args:
        patience_seconds: How long all runs together may wait for other programs to leave the machine alone.
    """
    before = Path.cwd()
    with _alone(), tempfile.TemporaryDirectory(prefix="clickscore-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chdir(folder)  # whatever a side leaves in its working folder goes with it
        try:
            write_random_bundle(folder / "bundle", ITEMS, MODEL)
            broker = EmbeddedBroker.start(folder / "kafka", report=say)
            try:
                yield Place(folder, broker, folder / "bundle", Control(folder / "bundle"), Quiet(patience_seconds))
            finally:
                broker.stop()
        finally:
            os.chdir(before)


def say(words: str) -> None:
    """Tell whoever waits what happens, on stderr."""
    click.echo(f"  {words}", err=True)


@contextmanager
def _alone() -> Generator[None]:
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another benchmark to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
