"""Environment: run one benchmark at a time, in a temporary folder, with its own broker and bundle."""

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

from bench.baseline import Baseline
from bench.idle_check import IdleCheck
from bench.logs import ITEMS, WARM
from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from clickscore.stream.kafka.embedded import EmbeddedBroker
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.worker_process import free_port

LOCK = Path(tempfile.gettempdir()) / "clickscore-bench.lock"
MODEL = ModelConfig(dim=64, layers=2, max_length=WARM)


@dataclass(frozen=True)
class Environment:
    """A running broker, a bundle of random weights with its baseline, and a temporary folder."""

    folder: Path
    broker: EmbeddedBroker
    bundle: Path
    baseline: Baseline
    idle_check: IdleCheck

    @contextmanager
    def topics(self, *, bundle: bool = True) -> Generator[Settings]:
        """Provide settings with fresh topics and a fresh group, with the bundle or without a bundle."""
        prefix = f"bench-{uuid.uuid4().hex[:8]}."
        settings = Settings.of(
            bootstrap_servers=self.broker.bootstrap_servers,
            topic_prefix=prefix,
            group=f"{prefix}workers",
            bundle=str(self.bundle) if bundle else "",
            max_events=WARM,  # peers remember as many: they decide alike
            web_port=free_port("127.0.0.1"),
            broker_wait_ms=15_000,
        )
        asyncio.run(create_topics(settings.kafka))
        try:
            yield settings
        finally:
            asyncio.run(delete_topics(settings.kafka))


@contextmanager
def open_environment(max_wait_seconds: float = 0) -> Generator[Environment]:
    """Provide an environment once no other benchmark runs, and remove the environment at the end.

    Args:
        max_wait_seconds: Total time of all runs to wait for an idle machine.
    """
    working_folder = Path.cwd()
    with _alone(), tempfile.TemporaryDirectory(prefix="clickscore-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chdir(folder)  # whatever a side leaves in its working folder goes with it
        try:
            write_random_bundle(folder / "bundle", ITEMS, MODEL)
            broker = EmbeddedBroker.start(folder / "kafka", report=report_progress)
            try:
                yield Environment(
                    folder, broker, folder / "bundle", Baseline(folder / "bundle"), IdleCheck(max_wait_seconds)
                )
            finally:
                broker.stop()
        finally:
            os.chdir(working_folder)


def report_progress(message: str) -> None:
    """Print progress on stderr."""
    click.echo(f"  {message}", err=True)


@contextmanager
def _alone() -> Generator[None]:
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report_progress("Waiting for another benchmark to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
