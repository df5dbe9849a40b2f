"""Full disk: the broker's disk fills up under load, and has room again later."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.frail_broker import FrailBroker, frail_broker
from tests.chaos.stage import Result, Stage, say, stage
from tests.integration.event_log import event_log

DISK_MB = 96
RATE = 400
WORKERS = 2
HALT_S = 60.0


class NoDiskError(Exception):
    """A small disk cannot be mounted here."""


def run_full_disk(folder: Path, seed: int) -> Result:
    """Fill the broker's disk until the broker halts, make room, and start everything again.

    Args:
        folder: An empty folder for the disk and the logs.
        seed: Seed of the events.

    Raises:
        NoDiskError: A small disk cannot be mounted here.
    """
    started_at = time.monotonic()
    with (
        _small_disk(folder / "disk") as disk,
        frail_broker(disk / "kafka") as broker,
        stage(broker.bootstrap_servers, folder, seed) as scene,
    ):
        scene.start_workers(WORKERS)
        with scene.load(event_log(RATE * 90, seed), RATE):
            scene.pause(3, 5)
            _fill(disk / "ballast")
            _wait_halt(scene, broker)
            scene.deeds["disk full"] += 1
            say("full-disk: the broker has halted")
            scene.pause(3, 5)
            (disk / "ballast").unlink()
            broker.stop()
            broker.start()
            scene.start_workers(WORKERS)
            scene.pause(3, 5)
        scene.finish()
        return Result("full disk", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of some megabytes in memory, and take it away at the end."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "clickscore-chaos", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        raise NoDiskError("this user may not mount a small disk (tmpfs)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def _fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            return


def _wait_halt(scene: Stage, broker: FrailBroker) -> None:
    """Wait until the broker has ended for want of room, filling up what it frees."""
    deadline = time.monotonic() + HALT_S
    while broker.is_running:
        if time.monotonic() > deadline:
            scene.complaints.append(("scene", f"the broker still runs {HALT_S:.0f} s after its disk was full"))
            return
        time.sleep(0.2)
