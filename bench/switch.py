"""Switch: change the bundle of a worker under load, and measure latency and memory around the change.

Send times and append times are whole milliseconds, so each figure is within 1 ms.
"""

import asyncio
import time

import msgspec
import psutil

from bench.child import WORKER, child
from bench.decisions import read_decisions
from bench.environment import MODEL, Environment, report_progress
from bench.latency import await_count
from bench.load import fill, watching
from bench.logs import ITEMS, natural_events
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.export.random_bundle import write_random_bundle
from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.rollouts import Rollout
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.kafka.rollout_log import write_rollout
from clickscore.stream.scoring.bundle_store import BundleStore

RATE = 1_000
"""Events per second."""
GOAL = 2.0
"""Goal for p99 around a switch, as a multiple of the usual p99."""
MEMORY_GOAL = 1.05
"""Goal for the memory after the third switch, as a multiple of the memory before the first."""
DROPPED_S = 3.0
"""Cold start at the beginning of a run that does not count, s."""
_FIRST = 100  # events in the topic before, whose decisions show that the worker is there
_TIMEOUT_SECONDS = 60.0
_START_SECONDS = 120.0  # the worker loads and checks its bundle before it joins the group
_SWITCH_SECONDS = 75.0  # under load the check of the new bundle gets a small part of two busy cores
_QUIET_SWITCH_SECONDS = 20.0


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """One run; times in ms."""

    events: int
    usual_p50: int
    usual_p99: int
    """Latency before the switch."""
    around_p50: int
    around_p99: int
    """Latency from the change of the rollout until 3 s after the first decision of the new bundle."""
    seconds: float
    """Time from the change of the rollout to the first decision of the new bundle, s."""
    memory_mb: tuple[float, ...]
    """Resident memory before the first switch and after each of three switches, MB."""


def switch(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one run a round."""
    runs = [_measure(environment, budget) for _ in range(budget.rounds)]
    rows = [
        Row(
            title=f"p99 around a switch of bundles at {RATE:,} events/s, as a multiple of the usual p99",
            values=tuple(run.around_p99 / max(1, run.usual_p99) for run in runs),
            digits=".2f",
            goal=GOAL,
            at_least=False,
            beside=f"p99 {max(run.usual_p99 for run in runs)} ms before and {max(run.around_p99 for run in runs)} ms "
            f"around; the new bundle decides after {max(run.seconds for run in runs):.1f} s; no event is lost",
        ),
        Row(
            title="Memory of the worker after the third switch, as a multiple of that before the first",
            values=tuple(run.memory_mb[3] / run.memory_mb[0] for run in runs),
            digits=".2f",
            goal=MEMORY_GOAL,
            at_least=False,
            beside="MB before and after each switch: " + ", ".join(f"{size:.0f}" for size in runs[0].memory_mb),
        ),
    ]
    return Measurement(rows, runs)


def _measure(environment: Environment, budget: RunBudget) -> Switch:
    seconds = budget.latency_seconds + _SWITCH_SECONDS
    store_folder = environment.folder / "store"
    store = BundleStore(str(store_folder))
    other = environment.folder / "other-bundle"
    if not other.exists():
        write_random_bundle(other, ITEMS, MODEL, seed=1)
    versions = [store.push(folder).content_hash for folder in (environment.bundle, other)]
    with environment.topics(bundle=False) as topics, watching(topics, RECOMMENDATIONS) as answers:
        settings = topics.replace(bundle_store=str(store_folder))

        def change(champion: str) -> float:
            now = time.time()
            asyncio.run(
                write_rollout(settings.kafka, Rollout(name="default", champion=champion, changed_at=int(now * 1000)))
            )
            return now * 1000

        change(versions[0])
        fill(settings, EVENTS, natural_events(_FIRST, RATE))
        with child(WORKER, settings, environment.folder) as worker:
            started_at = time.monotonic()
            while answers.count() < _FIRST and time.monotonic() < started_at + _START_SECONDS:
                worker.check()
                time.sleep(0.2)
            await_count(answers, _FIRST, worker.check)
            with child(("bench.producer", str(RATE), str(seconds)), settings, environment.folder) as events:
                time.sleep(budget.latency_seconds)
                memory = [_resident_mb(worker.process.pid)]
                changed_at = change(versions[1])
                time.sleep(_SWITCH_SECONDS)
                memory.append(_resident_mb(worker.process.pid))
                events.finish(_TIMEOUT_SECONDS)
            await_count(answers, _FIRST + int(RATE * seconds), worker.check)
            for version in (versions[0], versions[1]):
                change(version)
                time.sleep(_QUIET_SWITCH_SECONDS)
                memory.append(_resident_mb(worker.process.pid))
        decided = read_decisions(answers)  # fails where an event has no decision, or two
        bundles = [
            (message.timestamp()[1], decision.bundle)
            for message in answers.records()
            if isinstance(decision := decode_decision(message.value() or b""), Recommendation)
        ]
    first_at = min(at for at, bundle in bundles if bundle == versions[1][:12])
    began_at = min(decision.ts for decision in decided.values() if decision.ts > changed_at - seconds * 1000)
    usual = sorted(
        decision.appended_at - decision.ts
        for decision in decided.values()
        if began_at + DROPPED_S * 1000 <= decision.ts < changed_at
    )
    around = sorted(
        decision.appended_at - decision.ts
        for decision in decided.values()
        if changed_at <= decision.ts < first_at + 3_000
    )
    result = Switch(
        events=len(decided),
        usual_p50=usual[len(usual) // 2],
        usual_p99=usual[len(usual) * 99 // 100],
        around_p50=around[len(around) // 2],
        around_p99=around[len(around) * 99 // 100],
        seconds=(first_at - changed_at) / 1000,
        memory_mb=tuple(memory),
    )
    report_progress(
        f"p50 and p99 before: {result.usual_p50} and {result.usual_p99} ms, around: {result.around_p50} and "
        f"{result.around_p99} ms; switched after {result.seconds:.1f} s; memory {result.memory_mb} MB"
    )
    return result


def _resident_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6
