"""Stage: an installation under load, with workers that are killed, stalled and replaced, and the verdict on it."""

import asyncio
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from clickscore.schemas.topics import (
    AD_CHARGES,
    ADS,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    DECISION_OUTCOMES,
    ERASURE_RECEIPTS,
    EVENTS,
    RECOMMENDATIONS,
    SNAPSHOTS,
)
from tests.chaos.event_rules import Rules
from tests.chaos.judge import Topics, Verdict, judge
from tests.chaos.reactions import reactions_to
from tests.integration.event_log import Sent, campaigns, catalogue
from tests.integration.live import Installation, Worker, installation

BOUNDS = {
    "max_events": 20,
    "max_bought": 5,
    "user_ttl_ms": 2 * 3_600_000,
    "control_share": 0.2,
    "consent_ttl_ms": 3 * 3_600_000,
}
"""Limits that the log reaches, so that the judge also sees how a worker forgets."""
SESSION_TIMEOUT_MS = 2_000
"""Short, so that a stall is short; twenty heartbeats of a worker on an idle machine."""
READY_S = 120.0
NOTICE_S = 60.0
"""A worker looks at its topics every 3 s and looks twice; a busy machine takes longer."""
READ = (
    EVENTS,
    RECOMMENDATIONS,
    ADS,
    CLOSED_SESSIONS,
    DEAD_LETTERS,
    SNAPSHOTS,
    ERASURE_RECEIPTS,
    DECISION_OUTCOMES,
    AD_CHARGES,
)
"""Topics that the judge reads, in its order."""
FINISHED_S = 180.0
REACTION_MS = 200
"""Time until shoppers look for new decisions, ms."""


@dataclass
class Result:
    """Outcome of a scene: a row of the table."""

    scene: str
    seed: int
    verdict: Verdict
    deeds: Counter[str] = field(default_factory=Counter[str])
    """What was done, by kind: kill -9, stall, broker kill, ..."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing is off."""
        return not self.verdict.faults.total()


class Stage:
    """An installation, the workers that run in it, and a count of the faults."""

    def __init__(self, live: Installation, seed: int) -> None:
        self.live = live
        self.dice = random.Random(seed)
        self.deeds: Counter[str] = Counter()
        self.complaints: list[tuple[str, str]] = []
        """Faults that the topics do not show: kind and example."""
        self.judged: Verdict | None = None
        """Verdict on the topics, where it is not simply that on all records at the end."""
        self.judges_money = True
        """Whether each worker is of a release that writes outcomes and charges."""

    @property
    def running(self) -> list[Worker]:
        """Workers whose process lives."""
        return [worker for worker in self.live.workers if worker.exit_code is None]

    def start_workers(self, count: int) -> None:
        """Start workers until this number runs, and wait until all of them serve partitions."""
        while len(self.running) < count:
            self.live.start_worker()
            self.deeds["worker starts"] += 1
        deadline = time.monotonic() + READY_S
        while not all(_serves(worker) for worker in self.running):
            assert time.monotonic() < deadline, f"no partitions: {[worker.health() for worker in self.running]}"
            time.sleep(0.05)
            while len(self.running) < count:  # a worker may end by itself while a broker is away
                self.deeds["worker ended by itself"] += 1
                self.live.start_worker()

    def kill(self) -> None:
        """Kill a random worker, as a power failure would."""
        self.dice.choice(self.running).kill()
        self.deeds["kill -9"] += 1

    def stall(self, seconds: float) -> None:
        """Hold a random worker for longer than its session timeout, and let it go on."""
        worker = self.dice.choice(self.running)
        worker.signal(signal.SIGSTOP)
        time.sleep(seconds)
        worker.signal(signal.SIGCONT)
        self.deeds["stalls"] += 1

    def pause(self, shortest_s: float, longest_s: float) -> None:
        """Let time pass under load."""
        time.sleep(self.dice.uniform(shortest_s, longest_s))

    @contextmanager
    def load(self, log: Sequence[Sent], per_second: float) -> Iterator[None]:
        """Produce events at a steady rate for as long as the block runs, or until the log ends.

        Meanwhile shoppers react to the decisions.
        """
        over = threading.Event()
        failures: list[BaseException] = []

        def watched(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 (raised again in the scene's thread)
                failures.append(exc)

        def produce() -> None:
            self.live.produce(takewhile(lambda _: not over.is_set(), log), per_second)

        def react() -> None:
            asyncio.run(_react(self.live, over))

        threads = [threading.Thread(target=watched, args=[work]) for work in (produce, react)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]

    def finish(self, timeout: float = FINISHED_S) -> None:
        """Wait until every event is committed, and stop the workers."""
        self.live.wait_finished(timeout)
        self.live.stop_workers()

    def expect(self, text: str, output: str) -> None:
        """Complain where a worker did not say something."""
        if text not in output:
            self.complaints.append(("silence", f"{text!r} is not in {output[-1_000:]!r}"))

    def expect_refusal(self, worker: Worker, text: str) -> None:
        """Wait until a worker has ended, and complain unless its last line says why."""
        code = worker.wait(NOTICE_S)
        last = worker.output.splitlines()[-1]
        if code != 1:
            self.complaints.append(("exit code", f"{code}: {last}"))
        self.expect(text, last)
        self.deeds["stopped in words"] += 1

    def verdict(self) -> Verdict:
        """Return the judge's verdict on all topics and on the logs of all workers."""
        verdict = self.judged or self.verdict_on(self.topics())
        for kind, example in self.complaints:
            verdict.note(kind, example)
        for worker in self.live.workers:
            if "Traceback" in worker.output:
                verdict.note("traceback", worker.output[-3_000:])
        return verdict

    def verdict_on(self, topics: Topics) -> Verdict:
        """Return the judge's verdict on topics."""
        rules = self.live.settings.sessions
        values = Rules(*(getattr(rules, name) for name in Rules._fields))
        return judge(topics, values, with_ads=True, with_money=self.judges_money)

    def topics(self) -> Topics:
        """Read all topics."""
        return Topics(self.live.settings.kafka.topic(EVENTS.name), *map(self.live.read, READ))


async def _react(live: Installation, over: threading.Event) -> None:
    """Read decisions as they come, and produce the reactions of the shoppers.

    Args:
        live: The installation.
        over: Is set at the end.
    """
    topics = [live.settings.kafka.topic(topic.name) for topic in (RECOMMENDATIONS, ADS)]
    async with AIOKafkaConsumer(
        *topics, bootstrap_servers=live.settings.kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        while not over.is_set():
            batches = (await consumer.getmany(timeout_ms=REACTION_MS)).values()
            reactions = [sent for batch in batches for record in batch for sent in reactions_to(record.value)]
            if reactions:
                await asyncio.to_thread(live.produce, reactions)


@contextmanager
def stage(broker: str, folder: Path, seed: int, **changes: object) -> Iterator[Stage]:
    """Yield a stage with fresh topics, a catalogue and campaigns; at the end, kill its workers.

    Args:
        broker: Bootstrap servers.
        folder: Folder for the logs of the workers.
        seed: Seed of the random faults.
        changes: Settings other than those of all scenes.
    """
    settings = {"session_timeout_ms": SESSION_TIMEOUT_MS, "max_batch": 128, "tick_after_ms": 0, **BOUNDS, **changes}
    with installation(broker, folder, **settings) as live:
        live.fill_catalogue(catalogue(), campaigns())
        yield Stage(live, seed)


def say(text: str) -> None:
    """Print progress, with the time."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")


def _serves(worker: Worker) -> bool:
    health = worker.health()
    return bool(health.get("restored") and health.get("partitions"))
