"""Upgrade: workers of the previous release are replaced by new workers one by one, and back again, under load."""

import time
from pathlib import Path

from tests.chaos.privacy_records import with_privacy_records
from tests.chaos.stage import Result, say, stage
from tests.chaos.versions import present_code, previous_release
from tests.integration.event_log import event_log

RATE = 400
"""Events a second."""
LONGEST_S = 240
"""Time for which events are prepared, s."""
BESIDE_S = 2.0
"""Time for which workers of two versions work beside each other, s."""
WORKERS = 2


def run_upgrade(broker: str, folder: Path, seed: int) -> Result:
    """Upgrade two workers one by one and roll both back, with a kill after each, and judge all topics.

    A worker is killed while all workers have one version: a decision is then made again by the same code, so the
    judge expects the same bytes.

    Args:
        broker: Bootstrap servers.
        folder: Folder for the wheels and the logs.
        seed: Seed of the events and of the kills.

    Raises:
        NoHistoryError: The checkout does not hold the commit of the previous release.
    """
    previous, present = previous_release(folder / "previous"), present_code(folder / "present")
    started_at = time.monotonic()
    log = with_privacy_records(event_log(RATE * LONGEST_S, seed), seed)
    with stage(broker, folder, seed, bundle="demo") as scene:
        scene.live.code = previous
        scene.judges_money = False  # the previous release knows neither outcomes nor charges
        scene.start_workers(WORKERS)
        with scene.load(log, RATE):
            for name, code in (("upgraded", present), ("rolled back", previous)):
                scene.live.code = code
                for worker in scene.running:
                    worker.stop()
                    scene.start_workers(WORKERS)
                    scene.deeds[name] += 1
                    say(f"upgrade: {dict(scene.deeds)}")
                    time.sleep(BESIDE_S)
                scene.kill()
                scene.start_workers(WORKERS)
        scene.finish()
        return Result("upgrade", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)
