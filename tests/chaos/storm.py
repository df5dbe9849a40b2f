"""Storm: workers are killed and stalled, and the broker is killed and held, in random order under load."""

import time
from pathlib import Path

from tests.chaos.frail_broker import FrailBroker, frail_broker
from tests.chaos.stage import SESSION_TIMEOUT_MS, Result, Stage, say, stage
from tests.integration.event_log import event_log

LIMIT_S = 330.0
"""Time for the faults of a scene, s: on a machine that is too slow the scene has fewer faults, and says how many."""
RATE = 700
"""Events a second. Two workers, Kafka and the producer leave a part of two cores idle, so that a backlog shrinks."""
USERS = 3_000
MANY_USERS = 30_000
WORKERS = 2


def run_storm(folder: Path, seed: int, *, kills: int, stalls: int, broker_kills: int, broker_holds: int) -> Result:
    """Run the storm, and judge what is left.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events and of the faults.
        kills: Number of `kill -9` of a worker.
        stalls: Number of stalls of a worker.
        broker_kills: Number of `kill -9` of the broker.
        broker_holds: Number of times that the broker is held for some seconds.
    """
    started_at = time.monotonic()
    faults = [_kill] * kills + [_stall] * stalls + [_kill_broker] * broker_kills + [_hold_broker] * broker_holds
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        scene.dice.shuffle(faults)
        scene.start_workers(WORKERS)
        with scene.load(event_log(RATE * 15 * (len(faults) + 1), seed, users=USERS), RATE):
            for number, strike in enumerate(faults, 1):
                if time.monotonic() > started_at + LIMIT_S:
                    break
                scene.pause(0.5, 3)
                strike(scene, broker)
                scene.start_workers(WORKERS)
                say(f"storm: {number} of {len(faults)} faults, {dict(scene.deeds)}")
        scene.finish()
        return Result("storm", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def run_stalls(folder: Path, seed: int, *, stalls: int) -> Result:
    """Stall one of two workers again and again under load of many users, and judge what is left.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events and of the stalls.
        stalls: Number of SIGSTOPs.
    """
    started_at = time.monotonic()
    with frail_broker(folder / "kafka") as broker, stage(broker.bootstrap_servers, folder, seed) as scene:
        scene.start_workers(WORKERS)
        with scene.load(event_log(RATE * 10 * (stalls + 1), seed, users=MANY_USERS), RATE):
            for number in range(1, stalls + 1):
                if time.monotonic() > started_at + LIMIT_S:
                    break
                _stall(scene, broker)
                scene.start_workers(WORKERS)
                if number % 5 == 0:
                    say(f"stalls: {number} of {stalls}, {dict(scene.deeds)}")
        scene.finish()
        return Result("stalls", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def _kill(scene: Stage, _: FrailBroker) -> None:
    scene.kill()


def _stall(scene: Stage, _: FrailBroker) -> None:
    scene.stall(SESSION_TIMEOUT_MS / 1000 + scene.dice.uniform(0.5, 2.5))


def _kill_broker(scene: Stage, broker: FrailBroker) -> None:
    broker.kill()
    scene.deeds["broker kills"] += 1
    scene.pause(0, 3)
    broker.start()


def _hold_broker(scene: Stage, broker: FrailBroker) -> None:
    broker.hold()
    scene.deeds["broker holds"] += 1
    scene.pause(3, 15)
    broker.release()
