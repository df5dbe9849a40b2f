"""Live: values on all input topics of a running worker, and requests to its pages, whose outcomes must add up."""

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.config import ModelConfig
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, DEAD_LETTERS, EVENTS, RECOMMENDATIONS, Topic
from clickscore.stream.kafka.client import MAX_REQUEST_BYTES, with_retry_backoff
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.settings import Settings, environment_of
from tests.fuzz.judge import FaultError
from tests.fuzz.mutation import ODD_TEXTS, mutated_record
from tests.fuzz.pages import fuzz_pages
from tests.fuzz.runner import Report
from tests.fuzz.samples import ITEMS, campaign, event, item
from tests.integration.live import ROOT, Installation, Worker, _consumer, _ends, installation
from tests.integration.test_worker import metrics

SMALL = ModelConfig(dim=16, layers=1, heads=2, ffn=32, max_length=20)
STEP_MS = 50
"""Event time between two events: 400,000 of them are less than six hours."""
SINCE_MS = 10 * 3_600_000
"""Time from the first event to now, so that no mutated time is more than hours ahead of the others."""
MAX_MEGABYTES = 500
"""Bound of a worker's memory."""
HUGE_SHARE = 0.0002
"""Share of values beyond `max_event_bytes`."""


class Sent(NamedTuple):
    """A record to send."""

    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes]]


def events(seed: str, count: int, begin: int) -> Iterator[Sent]:
    """Yield records of `clickstream-events` with mistakes in value, key and headers.

    Args:
        seed: Seed of the records.
        count: Number of records.
        begin: Event time of the first event, ms.
    """
    chance = random.Random(f"{seed}:events")
    for number in range(count):
        good = event(chance, number, begin + STEP_MS * number)
        value: bytes | None = mutated_record(chance, good)
        if chance.random() < 0.02:
            value = chance.choice((None, b"", b"\0", b"x" * 70_000 if chance.random() < HUGE_SHARE / 0.02 else b"{}"))
        key = good.get("user_id", "").encode() or None
        if chance.random() < 0.1:
            key = chance.choice((None, b"", chance.randbytes(8), bytes(2_000), _odd_text(chance)))
        headers = []
        if chance.random() < 0.1:
            headers = [(chance.choice(ODD_TEXTS[:11]), _odd_text(chance))] * chance.choice((1, 2, 30))
        yield Sent(value, key, headers)


def reference(seed: str, topic: Topic, count: int) -> Iterator[Sent]:
    """Yield records of the catalogue or of the campaigns with mistakes in value and key.

    Args:
        seed: Seed of the records.
        topic: The topic.
        count: Number of records.
    """
    chance = random.Random(f"{seed}:{topic.name}")
    for _ in range(count):
        good = item(chance) if topic is CATALOGUE else campaign(chance)
        key: bytes | None = str(good["item_id" if topic is CATALOGUE else "campaign_id"]).encode()
        value: bytes | None = mutated_record(chance, good)
        if chance.random() < 0.05:
            value = chance.choice((None, b""))
        if chance.random() < 0.05:
            key = chance.choice((b"", chance.randbytes(8), bytes(2_000), _odd_text(chance)))
        yield Sent(value, key, [])


def _odd_text(chance: random.Random) -> bytes:
    return chance.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")


async def send(settings: Settings, topic: Topic, records: Iterable[Sent]) -> None:
    """Send records to a topic, each to the partition of its key."""
    kafka = settings.kafka
    partitions = kafka.partitions if topic.per_user else 1
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=1024 * 1024,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=60_000,
    )
    async with with_retry_backoff(producer):
        batches: dict[int, BatchBuilder] = defaultdict(producer.create_batch)
        acknowledged: list[Awaitable[Any]] = []

        async def flush(partition: int) -> None:
            batch = batches.pop(partition)
            acknowledged.append(await producer.send_batch(batch, kafka.topic(topic.name), partition=partition))

        for record in records:
            partition = partition_of(record.key or record.value or b"", partitions)
            while (
                batches[partition].append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
                is None
            ):
                await flush(partition)
        for partition in list(batches):
            await flush(partition)
        await asyncio.gather(*acknowledged)


class Shares(NamedTuple):
    """Number of values of each kind."""

    events: int
    reference: int
    requests: int


def fuzz_live(broker: str, seed: str, shares: Shares) -> list[Report]:
    """Send values to a live worker and its pages, and return a report of each kind.

    Args:
        broker: Bootstrap servers of a real broker.
        seed: Seed of the values.
        shares: Number of values.
    """
    reports = [Report("events, live worker"), Report("catalogue, campaigns"), Report("pages")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_bundle(folder / "bundle", ITEMS, SMALL, candidates=40)
        changes = {"bundle": str(folder / "bundle"), "tick_after_ms": 0, "commit_interval_ms": 1_000}
        with installation(broker, folder, **changes) as live:
            worker = live.start_worker()
            worker.wait_restored()
            steps = (
                lambda: _fuzz_reference(live, worker, seed, shares.reference, reports[1]),
                lambda: _fuzz_events(live, worker, seed, shares, reports),
                lambda: _compare(live, reports[0]),
            )
            for step, report in zip(steps, (reports[1], reports[0], reports[0]), strict=True):
                try:
                    step()
                except FaultError as exc:
                    report.faults.append(str(exc))
                except AssertionError as exc:  # a wait of the installation: the worker ended, or is stuck
                    target = report.stuck if worker.exit_code is None else report.crashes
                    target.append(str(exc)[-2_000:])
                    break
    return reports


def _fuzz_reference(live: Installation, worker: Worker, seed: str, count: int, report: Report) -> None:
    report.sent = count
    for topic, share in ((CATALOGUE, count // 2), (CAMPAIGNS, count - count // 2)):
        asyncio.run(send(live.settings, topic, reference(seed, topic, share)))
    deadline = time.monotonic() + 60 + count / 100
    while report.outcomes.total() < count and time.monotonic() < deadline:
        worker.check()
        time.sleep(0.2)
        applied = int(metrics(worker)["clickscore_catalogue_updates"])
        report.outcomes = Counter({"applied": applied, "refused": worker.output.count(": ignored: ")})
    if report.outcomes.total() != count:
        raise FaultError(f"{count} records of catalogue and campaigns, and {dict(report.outcomes)}")


def _fuzz_events(live: Installation, worker: Worker, seed: str, shares: Shares, reports: list[Report]) -> None:
    begin = int(time.time() * 1000) - SINCE_MS
    events_report, _, pages_report = reports
    pages_report.sent = shares.requests
    pages = threading.Thread(target=_fuzz_pages, args=(worker, seed, shares.requests, pages_report))
    pages.start()
    events_report.sent = shares.events
    asyncio.run(send(live.settings, EVENTS, events(seed, shares.events, begin)))
    live.wait_finished(120 + shares.events / 200)
    pages.join()
    health = worker.health()
    if not health.get("restored") or health.get("lag") or health.get("lost"):
        raise FaultError(f"health is {health} after all events")
    events_report.outcomes = Counter(
        {
            name.split('"')[1]: int(value)
            for name, value in metrics(worker).items()
            if name.startswith("clickscore_events_total{") and value
        }
    )
    _check_counts(live, events_report)
    events_report.megabytes = _peak_megabytes(worker)
    worker.stop()
    if "Traceback" in worker.output:
        events_report.crashes.append(worker.output[worker.output.index("Traceback") :][:2_000])
    if events_report.megabytes > MAX_MEGABYTES:
        events_report.stuck.append(f"the worker has {events_report.megabytes} MB of memory")


def _fuzz_pages(worker: Worker, seed: str, count: int, report: Report) -> None:
    address = worker.settings.worker
    try:
        report.outcomes = asyncio.run(fuzz_pages(f"{seed}:pages", count, address.web_host, address.web_port))
    except FaultError as exc:
        target = report.stuck if str(exc).startswith("stuck") else report.faults
        target.append(str(exc))
    except OSError as exc:
        report.crashes.append(f"the pages cannot be reached: {exc}")


def _check_counts(live: Installation, report: Report) -> None:
    """Compare the counted outcomes with the numbers of records in the topics, without the worker's own records."""
    outcomes = report.outcomes
    written = {
        topic.name: asyncio.run(_count(live.settings, topic)) for topic in (EVENTS, DEAD_LETTERS, RECOMMENDATIONS)
    }
    budget_records = outcomes.pop("budget", 0)
    epochs = min(max(0, written[EVENTS.name] - report.sent - budget_records), outcomes["epoch"])
    outcomes["epoch"] -= epochs
    expected = {
        EVENTS.name: report.sent + epochs + budget_records,
        DEAD_LETTERS.name: outcomes["dead"],
        RECOMMENDATIONS.name: outcomes["decided"] + outcomes["late"],
    }
    if written != expected or outcomes.total() != report.sent:
        raise FaultError(f"the topics hold {written}; the outcomes of {report.sent} are {dict(outcomes)}")


async def _count(settings: Settings, topic: Topic) -> int:
    async with _consumer(settings) as consumer:
        return sum((await _ends(settings, consumer, topic)).values())


def _compare(live: Installation, report: Report) -> None:
    """Replay the topic, and compare the decisions byte for byte."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "clickscore.stream", "replay", f"kafka:{EVENTS.name}"),
            *("--check", f"kafka:{RECOMMENDATIONS.name}"),
        ],
        cwd=ROOT,
        env={**os.environ, **environment_of(live.settings)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120 + report.sent / 200,
    )
    decided = report.outcomes["decided"] + report.outcomes["late"]
    if done.returncode or f"{decided:,}  equal" not in done.stdout:
        raise FaultError(f"the replay of {decided} decisions differs: {done.stdout[-1_500:]}{done.stderr[-500:]}")


def _peak_megabytes(worker: Worker) -> int:
    try:
        lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    except OSError:  # not on every system
        return 0
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024
