"""Latency: measure the time from an event to its decision at a fixed rate, with the model.

Send times and append times are whole milliseconds, so each figure is within 1 ms.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from statistics import median

import msgspec

from bench.baseline import between
from bench.child import WORKER, child
from bench.decisions import read_decisions
from bench.environment import Environment, report_progress
from bench.load import Watch, fill, watching
from bench.logs import natural_events
from bench.meter import Meter
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from bench.sampling import Profile
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS

GOALS = {500: (5.0, 15.0), 2_000: (15.0, 50.0)}
"""Goals for p50 and p99 in ms, by events per second."""
DROPPED_SECONDS = 3.0
"""Cold start at the beginning of a run that does not count."""

_FIRST = 100  # events in the topic before, whose decisions report_progress that the worker is there
_TIMEOUT_SECONDS = 30.0
_DEFAULTS: Mapping[str, int] = {}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One run at one rate; times in ms."""

    rate: int
    events: int
    p50: int
    p90: int
    p99: int
    worst: int
    in_kafka_p50: int
    """Latency from the append of the event, without the producer."""
    in_kafka_p99: int
    cpu: float
    """Cores used by the worker."""
    broker: float
    load: float
    """Cores used by the producer and the observer."""
    strangers: float
    """Cores used by unrelated programs."""
    control_per_second: float


def latency(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one run at each rate a round."""
    runs = {rate: [measure_latency(environment, budget, rate) for _ in range(budget.rounds)] for rate in GOALS}
    rows = [
        Row(
            title=f"Event to decision at {rate:,} events/s, {name}",
            values=tuple(values),
            digits=".0f",
            unit=" ms",
            goal=goal,
            at_least=False,
            beside=beside,
        )
        for rate, (goal_p50, goal_p99) in GOALS.items()
        for name, values, goal, beside in (
            ("p50", [run.p50 for run in runs[rate]], goal_p50, _inside(runs[rate])),
            ("p99", [run.p99 for run in runs[rate]], goal_p99, _cores(runs[rate])),
        )
    ]
    return Measurement(rows, [run for rate_runs in runs.values() for run in rate_runs])


def measure_latency(
    environment: Environment,
    budget: RunBudget,
    rate: int,
    profile: Profile | None = None,
    tuned: Mapping[str, int] = _DEFAULTS,
) -> Latency:
    """Run a worker at a fixed rate for some time.

    Args:
        environment: Broker, bundle and folder.
        budget: Duration of the run.
        rate: Events per second.
        profile: Profile to record during the run.
        tuned: Settings with other values than the defaults.
    """
    seconds = budget.latency_seconds
    with (
        environment.topics() as settings,
        watching(settings, RECOMMENDATIONS) as answers,
        watching(settings, EVENTS) as events,
    ):
        fill(settings, EVENTS, natural_events(_FIRST, rate))
        environment.idle_check.wait()
        baseline = environment.baseline.measure(budget.control_seconds)
        with child(WORKER, settings.replace(**tuned), environment.folder) as worker:
            await_count(answers, _FIRST, worker.check)
            started_at = time.time()
            with child(("bench.producer", str(rate), str(seconds)), settings, environment.folder) as producer:
                meter = Meter(worker.process, environment.broker.pid, [producer.process])
                await_count(answers, _FIRST + rate, worker.check)
                first = meter.read()
                with profile.sampling(worker.process.pid, seconds - DROPPED_SECONDS) if profile else nullcontext():
                    time.sleep(seconds - DROPPED_SECONDS)
                last = meter.read()
                producer.finish(_TIMEOUT_SECONDS)
            await_count(answers, _FIRST + int(rate * seconds), worker.check)
        pace = between(baseline, environment.baseline.measure(budget.control_seconds))
        sent = {(record.partition(), record.offset()): record.timestamp()[1] for record in events.records()}
        decided = {
            event_at: decision
            for event_at, decision in read_decisions(answers).items()
            if decision.ts > started_at * 1000
        }
    warm_at = min(decision.ts for decision in decided.values()) + DROPPED_SECONDS * 1000
    warm = {event_at: decision for event_at, decision in decided.items() if decision.ts >= warm_at}
    whole = sorted(decision.appended_at - decision.ts for decision in warm.values())
    inside = sorted(decision.appended_at - sent[event_at] for event_at, decision in warm.items())
    result = Latency(
        rate=rate,
        events=len(warm),
        p50=_quantile(whole, 0.5),
        p90=_quantile(whole, 0.9),
        p99=_quantile(whole, 0.99),
        worst=whole[-1],
        in_kafka_p50=_quantile(inside, 0.5),
        in_kafka_p99=_quantile(inside, 0.99),
        cpu=(last.side - first.side) / (last.read_at - first.read_at),
        broker=(last.broker - first.broker) / (last.read_at - first.read_at),
        load=(last.companions - first.companions) / (last.read_at - first.read_at),
        strangers=max(0.0, (last.strangers - first.strangers) / (last.read_at - first.read_at)),
        control_per_second=pace.per_second,
    )
    report_progress(
        f"{rate} events/s: p50 {result.p50} ms, p99 {result.p99} ms, from the event's append {result.in_kafka_p50} and "
        f"{result.in_kafka_p99} ms; worker {result.cpu:.2f} cores, other programs {result.strangers:.1f}"
    )
    return result


def _inside(runs: list[Latency]) -> str:
    p50, p99 = median(run.in_kafka_p50 for run in runs), median(run.in_kafka_p99 for run in runs)
    return f"from the event's append {p50:.0f} and {p99:.0f} ms"


def _cores(runs: list[Latency]) -> str:
    worker, broker = median(run.cpu for run in runs), median(run.broker for run in runs)
    strangers = median(run.strangers for run in runs)
    return f"cores taken: worker {worker:.2f}, broker {broker:.2f}, other programs {strangers:.2f}"


def await_count(watch: Watch, count: int, check: Callable[[], None]) -> None:
    """Wait until a topic holds `count` records.

    Args:
        watch: Topic.
        count: Number of records.
        check: Function that raises an error if the worker has ended.
    """
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (present := watch.count()) < count:
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{present} of {count} decisions came in time")
        time.sleep(0.1)


def _quantile(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
