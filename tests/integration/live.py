"""Live: an installation of a test's own on a real broker, its workers as child processes, and what its topics hold."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NodeNotReadyError
from aiokafka.producer.message_accumulator import BatchBuilder

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.events import read_epoch
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS, RECOMMENDATIONS, Topic
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, with_retry_backoff
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.kafka.topics import create_topics, delete_topics
from clickscore.stream.settings import Settings, environment_of
from clickscore.stream.simulator.worker_process import free_port
from tests.integration.event_log import Sent

ROOT = Path(__file__).parents[2]
POLL_S = 0.03
READY_S = 60.0
FINISHED_S = 120.0

Records = dict[int, list[ConsumerRecord]]
"""A topic's records, by partition."""


class Worker:
    """`clickscore worker` as a child process."""

    def __init__(self, settings: Settings, log: Path, port: int | None = None, code: Path | None = None) -> None:
        """Start the process.

        Args:
            settings: Settings; those that have their default are left to the worker.
            log: File for the output.
            port: Port of the web pages; a free one by default.
            code: Folder with the packages of another version; the checkout by default.
        """
        self.settings = settings.replace(web_port=port or free_port(settings.worker.web_host))
        self.started_at = time.monotonic()
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clickscore.stream", "worker"],
                cwd=ROOT,
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **_changed(self.settings), **_import_path(code)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, or None while the worker runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Output of the worker on stdout and stderr so far."""
        return self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the worker, as a power failure would."""
        self._process.kill()
        self._process.wait()

    def wait(self, timeout: float) -> int:
        """Wait for the end of the worker and return its exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs after {timeout} s:\n{self._tail()}") from None

    def stop(self, timeout: float = 30, exit_code: int = 0) -> float:
        """Stop the worker with SIGTERM and return the duration in seconds."""
        started_at = time.monotonic()
        self._process.terminate()
        code = self.wait(timeout)
        assert code == exit_code, f"exit code {code} after SIGTERM:\n{self._tail()}"
        return time.monotonic() - started_at

    def health(self) -> dict[str, Any]:
        """Return the answer of /health, or nothing if the worker does not answer."""
        url = f"http://{self.settings.worker.web_host}:{self.settings.worker.web_port}/health"
        try:
            with build_opener(ProxyHandler({})).open(url, timeout=2) as response:
                return json.load(response)
        except HTTPError as error:
            return json.load(error)
        except OSError:
            return {}

    def wait_restored(self, timeout: float = READY_S) -> float:
        """Return the seconds from the start of the worker until its partitions are restored."""
        return self.wait_health(lambda health: health.get("restored", False), timeout) - self.started_at

    def wait_health(self, holds: Callable[[dict[str, Any]], bool], timeout: float = READY_S) -> float:
        """Wait until the condition holds for the health, and return the time."""
        deadline = time.monotonic() + timeout
        while not holds(health := self.health()):
            self.check()
            assert time.monotonic() < deadline, f"health is {health} after {timeout} s:\n{self._tail()}"
            time.sleep(POLL_S)
        return time.monotonic()

    def check(self) -> None:
        """Fail if the worker has ended."""
        assert self.exit_code is None, f"the worker ended by itself (exit code {self.exit_code}):\n{self._tail()}"

    def _tail(self) -> str:
        return "\n".join(self.output.splitlines()[-25:])


class Installation:
    """Topics, a group and workers of one test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.workers: list[Worker] = []
        self.code: Path | None = None
        """Folder with the packages that the next workers run; the checkout by default."""
        self._folder = folder

    def start_worker(self, port: int | None = None, **changes: Any) -> Worker:
        """Start a worker, on a free port if none is given, with some settings changed."""
        number = len(self.workers) + 1
        worker = Worker(self.settings.replace(**changes), self._folder / f"worker-{number}.log", port, self.code)
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """Stop all running workers at once, as a deployment does; each must end cleanly."""
        running = [worker for worker in self.workers if worker.exit_code is None]
        for worker in running:
            worker.signal(signal.SIGTERM)
        for worker in running:
            assert worker.wait(30) == 0, worker.output[-3_000:]

    def end_workers(self) -> None:
        """Kill all workers."""
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            worker.kill()

    def produce(self, log: Iterable[Sent], per_second: float | None = None) -> None:
        """Write records to the topic of the events, each to its partition."""
        asyncio.run(_produce(self.settings, EVENTS, log, per_second))

    def fill_catalogue(self, items: Iterable[Item], campaigns: Iterable[Campaign]) -> None:
        """Write catalogue and campaigns to their topics."""
        stock = [Sent(encode(item), item.item_id.encode(), 0) for item in items]
        ads = [Sent(encode(campaign), campaign.campaign_id.encode(), 0) for campaign in campaigns]
        asyncio.run(_produce(self.settings, CATALOGUE, stock))
        asyncio.run(_produce(self.settings, CAMPAIGNS, ads))

    def read(self, topic: Topic) -> Records:
        """Return all records of a topic."""
        return asyncio.run(_read(self.settings, topic))

    def events(self) -> list[ConsumerRecord]:
        """Return the records of the events' topic that are no epochs of a worker."""
        records = [record for records in self.read(EVENTS).values() for record in records]
        return [record for record in records if read_epoch(record.value) is None]

    def wait_settled(self, timeout: float = FINISHED_S) -> dict[int, int]:
        """Wait until every partition has an epoch and all is committed; return the end of each partition.

        Without changes of the catalogue, a worker writes nothing more.
        """
        deadline = time.monotonic() + timeout
        while not all(any(read_epoch(record.value) for record in records) for records in self.read(EVENTS).values()):
            self._check()
            assert time.monotonic() < deadline, "a partition has no epoch"
            time.sleep(POLL_S)
        self.wait_finished(timeout)
        return {partition: records[-1].offset + 1 for partition, records in self.read(EVENTS).items()}

    def committed(self) -> dict[int, int]:
        """Return the group's committed offsets; a partition without one is left out."""
        return asyncio.run(_with_admin(self.settings, lambda admin: _committed(self.settings, admin)))

    def wait_decisions(self, count: int, timeout: float = FINISHED_S) -> None:
        """Wait until this number of recommendations has been written, repeats included."""
        asyncio.run(_wait_decisions(self.settings, count, time.monotonic() + timeout, self._check))

    def wait_finished(self, timeout: float = FINISHED_S) -> None:
        """Wait until all events are committed: their decisions and states are stored then."""
        asyncio.run(_wait_finished(self.settings, time.monotonic() + timeout, self._check))

    def _check(self) -> None:
        assert any(worker.exit_code is None for worker in self.workers), (
            f"no worker runs any more; output of the last worker:\n{self.workers[-1].output[-3000:]}"
        )


def _changed(settings: Settings) -> dict[str, str]:
    """Return the variables of the settings without their default: another version may not know all the others."""
    defaults = environment_of(Settings.of())
    return {name: value for name, value in environment_of(settings).items() if value != defaults.get(name)}


def _import_path(code: Path | None) -> dict[str, str]:
    return {"PYTHONPATH": str(code)} if code is not None else {}


@contextmanager
def installation(broker: str, folder: Path, **changes: Any) -> Iterator[Installation]:
    """Yield an installation with fresh topics; at the end, kill its workers and delete its topics."""
    prefix = f"test-{uuid.uuid4().hex[:12]}-"
    settings = Settings.of(
        **{
            "bootstrap_servers": broker,
            "topic_prefix": prefix,
            "group": f"{prefix}workers",
            "broker_wait_ms": 30_000,
            "commit_interval_ms": 300,
            **changes,
        }
    )
    asyncio.run(create_topics(settings.kafka))
    running = Installation(settings, folder)
    try:
        yield running
    finally:
        running.end_workers()
        asyncio.run(delete_topics(settings.kafka))


async def _produce(settings: Settings, topic: Topic, log: Iterable[Sent], per_second: float | None = None) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=4 * 1024 * 1024,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=60_000,
    )
    async with with_retry_backoff(producer):
        started_at = time.monotonic()
        batches: dict[int, BatchBuilder] = defaultdict(producer.create_batch)
        acknowledged: list[Awaitable[Any]] = []

        async def send(partition: int) -> None:
            sent = producer.send_batch(batches.pop(partition), settings.kafka.topic(topic.name), partition=partition)
            acknowledged.append(await sent)

        for number, (value, key, partition_number) in enumerate(log):
            if per_second and (delay := started_at + number / per_second - time.monotonic()) > 0.005:
                for partition in list(batches):
                    await send(partition)
                await asyncio.sleep(delay)
            partition = (
                partition_of(key or value or b"", settings.kafka.partitions)
                if partition_number is None
                else partition_number
            )
            while batches[partition].append(timestamp=None, key=key, value=value) is None:
                await send(partition)
        for partition in list(batches):
            await send(partition)
        await asyncio.gather(*acknowledged)


async def _read(settings: Settings, topic: Topic) -> Records:
    async with _consumer(settings) as consumer:
        ends = await _ends(settings, consumer, topic)
        consumer.assign(list(ends))
        await consumer.seek_to_beginning()
        records: Records = {tp.partition: [] for tp in ends}
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, batch in (await consumer.getmany(timeout_ms=500)).items():
                records[tp.partition] += batch
    return records


async def _wait_decisions(settings: Settings, count: int, deadline: float, check: Callable[[], None]) -> None:
    async with _consumer(settings) as consumer:
        while (written := sum((await _ends(settings, consumer, RECOMMENDATIONS)).values())) < count:
            check()
            assert time.monotonic() < deadline, f"{written} decisions, where {count} are due"
            await asyncio.sleep(POLL_S)


async def _wait_finished(settings: Settings, deadline: float, check: Callable[[], None]) -> None:
    async def wait(admin: AIOKafkaAdminClient) -> None:
        async with _consumer(settings) as consumer:
            ends = {tp.partition: end for tp, end in (await _ends(settings, consumer, EVENTS)).items() if end}
        committed = await _committed(settings, admin)
        while any(committed.get(partition, 0) < end for partition, end in ends.items()):  # an epoch may come behind
            check()
            assert time.monotonic() < deadline, f"committed are {committed} of {ends}"
            await asyncio.sleep(3 * POLL_S)
            committed = await _committed(settings, admin)

    await _with_admin(settings, wait)


async def _with_admin(settings: Settings, work: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    try:
        return await work(admin)
    finally:
        await admin.close()


async def _committed(settings: Settings, admin: AIOKafkaAdminClient) -> dict[int, int]:
    try:
        offsets = await admin.list_consumer_group_offsets(settings.worker.group)
    except GroupCoordinatorNotAvailableError:  # nobody has ever asked this broker for a group
        return {}
    except NodeNotReadyError:  # a broker that was held joins its own cluster again; the caller asks once more
        return {}
    return {tp.partition: committed.offset for tp, committed in offsets.items() if committed.offset >= 0}


async def _ends(settings: Settings, consumer: AIOKafkaConsumer, topic: Topic) -> dict[TopicPartition, int]:
    count = settings.kafka.partitions if topic.per_user else 1
    return await consumer.end_offsets(
        [TopicPartition(settings.kafka.topic(topic.name), number) for number in range(count)]
    )


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        isolation_level=settings.kafka.isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        fetch_max_wait_ms=50,
    )
