"""Storm: workers are killed and stalled, and the broker is killed and held, in random order under load."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.chaos.frail_broker import FrailBroker, frail_broker
from tests.chaos.privacy_records import with_identities, with_privacy_records
from tests.chaos.reactions import ends_of_windows, newest_ts
from tests.chaos.stage import SESSION_TIMEOUT_MS, Result, Stage, say, stage
from tests.integration.event_log import event_log

LIMIT_S = 330.0
"""Time for the faults of a scene, s: on a machine that is too slow the scene has fewer faults, and says how many."""
LONG_LIMIT_S = 1_500.0
"""The same for the scene that is not part of `make chaos`, s."""
RATE = 700
"""Events a second. Two workers, Kafka and the producer leave a part of two cores idle, so that a backlog shrinks."""
LONGEST_FAULT_S = 15
"""Time for which events are prepared, for each fault, s; events of a longer time are not needed."""
LOAD_AFTER_S = 5.0
"""Load after the last fault, s: a late snapshot is repaired with the next events of its partition."""
USERS = 3_000
MANY_USERS = 30_000
WORKERS = 2

Strike = Callable[[Stage], None]
"""Does one fault."""


def run_storm(folder: Path, seed: int, *, kills: int, stalls: int, broker_kills: int, broker_holds: int) -> Result:
    """Run the storm, and judge all topics.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events and of the faults.
        kills: Number of `kill -9` of a worker.
        stalls: Number of stalls of a worker.
        broker_kills: Number of `kill -9` of the broker.
        broker_holds: Number of times that the broker is held for some seconds.
    """
    with frail_broker(folder / "kafka") as broker:
        faults = [*_worker_faults(kills, stalls), *[partial(_kill_broker, broker)] * broker_kills]
        faults += [partial(_hold_broker, broker)] * broker_holds
        return _run("storm", faults, broker.bootstrap_servers, folder, seed)


def run_stalls(folder: Path, seed: int, *, stalls: int) -> Result:
    """Stall one of two workers again and again under load of many users, and judge all topics.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events and of the stalls.
        stalls: Number of SIGSTOPs.
    """
    faults = _worker_faults(0, stalls)
    with frail_broker(folder / "kafka") as broker:
        return _run("stalls", faults, broker.bootstrap_servers, folder, seed, users=MANY_USERS)


def run_exactly_once(folder: Path, seed: int, *, kills: int, stalls: int, rebalances: int) -> Result:
    """Run a storm on workers with transactions; a reader of committed records must see each record once.

    Args:
        folder: An empty folder for the broker and the logs.
        seed: Seed of the events and of the faults.
        kills: Number of `kill -9` of a worker.
        stalls: Number of SIGSTOPs.
        rebalances: Number of times that a worker joins the others and leaves them in order.
    """
    faults = [*_worker_faults(kills, stalls), *[_rebalance] * rebalances]
    with frail_broker(folder / "kafka") as broker:
        result = _run(
            "exactly once",
            faults,
            broker.bootstrap_servers,
            folder,
            seed,
            limit_s=LONG_LIMIT_S,
            delivery="exactly_once",
        )
    for kind, count in result.verdict.repeats.items():
        if count and kind != "hand-over":  # a hand-over is written before the transaction, and applied once
            result.verdict.note("duplicate", f"{count} repeats of a {kind}")
    return result


def strike_workers(broker: str, folder: Path, seed: int, *, kills: int, stalls: int) -> Result:
    """Run a storm that leaves the broker alone, and judge all topics.

    Args:
        broker: Bootstrap servers.
        folder: Folder for the logs.
        seed: Seed of the events and of the faults.
        kills: Number of `kill -9` of a worker.
        stalls: Number of stalls of a worker.
    """
    return _run("workers", _worker_faults(kills, stalls), broker, folder, seed)


def _worker_faults(kills: int, stalls: int) -> list[Strike]:
    return [Stage.kill] * kills + [_stall] * stalls


def _run(
    name: str,
    faults: Sequence[Strike],
    broker: str,
    folder: Path,
    seed: int,
    *,
    users: int = USERS,
    limit_s: float = LIMIT_S,
    **changes: object,
) -> Result:
    started_at = time.monotonic()
    events = event_log(RATE * LONGEST_FAULT_S * (len(faults) + 1), seed, users=users)
    log = with_identities(with_privacy_records(events, seed), seed)
    with stage(broker, folder, seed, **changes) as scene:
        scene.start_workers(WORKERS)
        with scene.load(log, RATE):
            for number, strike in enumerate(scene.dice.sample(faults, len(faults)), 1):
                if time.monotonic() > started_at + limit_s:
                    break
                scene.pause(0.5, 2)
                strike(scene)
                scene.start_workers(WORKERS)
                say(f"{name}: {number} of {len(faults)} faults, {dict(scene.deeds)}")
            time.sleep(LOAD_AFTER_S)
        scene.live.produce(ends_of_windows(newest_ts(log)))
        scene.finish()
        return Result(name, seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def _stall(scene: Stage) -> None:
    scene.stall(SESSION_TIMEOUT_MS / 1000 + scene.dice.uniform(0.5, 2.5))


def _rebalance(scene: Stage) -> None:
    scene.start_workers(WORKERS + 1)
    scene.pause(0.5, 2)
    scene.dice.choice(scene.running).stop()
    scene.deeds["rebalances"] += 1


def _kill_broker(broker: FrailBroker, scene: Stage) -> None:
    broker.kill()
    scene.deeds["broker kills"] += 1
    scene.pause(0, 3)
    broker.start()


def _hold_broker(broker: FrailBroker, scene: Stage) -> None:
    broker.hold()
    scene.deeds["broker holds"] += 1
    scene.pause(3, 15)
    broker.release()
