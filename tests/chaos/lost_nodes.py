"""Lost nodes: a cluster of three loses a leader, the coordinator of the group, a slow node and its quorum."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from clickscore.schemas.topics import EVENTS
from tests.chaos.stage import Result, Stage, say, stage
from tests.chaos.three_nodes import NODES, Cluster, Node, three_nodes
from tests.integration.event_log import event_log

RATE = 150
"""Events a second: three nodes and two workers share two cores."""
WORKERS = 2
BACK_S = 8.0
"""Load between two faults: the nodes that came back copy what they have missed."""


def run_cluster(folder: Path, seed: int) -> Result:
    """Take nodes away under load, one after another, at last two of three; judge what is left.

    Args:
        folder: An empty folder for the nodes and the logs.
        seed: Seed of the events and of the faults.
    """
    started_at = time.monotonic()
    faults: list[Callable[[Stage, Cluster], None]] = [_lose_leader, _lose_coordinator, _hold_node, _lose_quorum]
    with (
        three_nodes(folder / "cluster") as cluster,
        stage(
            cluster.bootstrap_servers,
            folder,
            seed,
            replication=NODES,
            session_timeout_ms=10_000,
            broker_wait_ms=90_000,
        ) as scene,
    ):
        scene.start_workers(WORKERS)
        with scene.load(event_log(RATE * 300, seed), RATE):
            for strike in faults:
                scene.pause(3, 5)
                strike(scene, cluster)
                cluster.wait()
                time.sleep(BACK_S)
                scene.start_workers(WORKERS)
                say(f"cluster: {dict(scene.deeds)}")
        scene.finish()
        return Result("three nodes", seed, scene.verdict(), scene.deeds, time.monotonic() - started_at)


def _lose_leader(scene: Stage, cluster: Cluster) -> None:
    node = cluster.nodes[asyncio.run(_leader(scene)) - 1]
    scene.deeds["kill -9 of a leader"] += 1
    _lose([node], scene.dice.uniform(4, 8))


def _lose_coordinator(scene: Stage, cluster: Cluster) -> None:
    node = cluster.nodes[asyncio.run(_coordinator(scene)) - 1]
    scene.deeds["kill -9 of the coordinator"] += 1
    _lose([node], scene.dice.uniform(4, 8))


def _lose_quorum(scene: Stage, cluster: Cluster) -> None:
    scene.deeds["quorum lost"] += 1
    _lose(scene.dice.sample(cluster.nodes, 2), 12)


def _hold_node(scene: Stage, cluster: Cluster) -> None:
    node = scene.dice.choice(cluster.nodes)
    scene.deeds["node held"] += 1
    node.signal(signal.SIGSTOP)
    scene.pause(8, 12)
    node.signal(signal.SIGCONT)


def _lose(nodes: list[Node], seconds: float) -> None:
    for node in nodes:
        node.kill()
    time.sleep(seconds)
    for node in nodes:
        node.start()


async def _leader(scene: Stage) -> int:
    """Return the node that leads the first partition of the events."""
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.live.settings.kafka.bootstrap_servers)
    await admin.start()
    try:
        topic = (await admin.describe_topics([scene.live.settings.kafka.topic(EVENTS.name)]))[0]
        return next(partition["leader"] for partition in topic["partitions"] if partition["partition"] == 0)
    finally:
        await admin.close()


async def _coordinator(scene: Stage) -> int:
    """Return the node that coordinates the group of the workers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.live.settings.kafka.bootstrap_servers)
    await admin.start()
    try:
        return await admin.find_coordinator(scene.live.settings.worker.group)
    finally:
        await admin.close()
