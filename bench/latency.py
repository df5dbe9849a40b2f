"""Latency: from an event's sending to the append of its decision, at a fixed rate, with the model.

Append times are whole milliseconds of the broker's clock, and so is the time of sending: each figure is within 1 ms.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from statistics import median

import msgspec

from bench.child import WORKER, child
from bench.control import between
from bench.decisions import read_decisions
from bench.effort import Effort
from bench.load import Watch, fill, watching
from bench.logs import natural_events
from bench.meter import Meter
from bench.place import Place, say
from bench.report import Found, Row
from bench.sampling import Profile
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS

GOALS = {500: (5.0, 15.0), 2_000: (15.0, 50.0)}
"""Events a second; p50 and p99 to stay under, ms."""
DROPPED_SECONDS = 3.0
"""At the beginning, in which everything is still cold."""

_FIRST = 100  # events in the topic before, whose decisions say that the worker is there
_PATIENCE_SECONDS = 30.0
_AS_IT_COMES: Mapping[str, int] = {}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One run at one rate; times in ms."""

    rate: int
    events: int
    p50: int
    p90: int
    p99: int
    worst: int
    in_kafka_p50: int
    """From the append of the event instead, so without its producer and its way into Kafka."""
    in_kafka_p99: int
    cpu: float
    """Cores that the worker took."""
    broker: float
    load: float
    """Cores that the producer took, and the watch."""
    strangers: float
    """Cores that programs beside the benchmark took."""
    control_per_second: float


def latency(place: Place, effort: Effort) -> Found:
    """A run at each rate a round."""
    runs = {rate: [measure_latency(place, effort, rate) for _ in range(effort.rounds)] for rate in GOALS}
    rows = [
        Row(
            what=f"Event to decision at {rate:,} events/s, {name}",
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
    return Found(rows, [run for each in runs.values() for run in each])


def measure_latency(
    place: Place, effort: Effort, rate: int, profile: Profile | None = None, tuned: Mapping[str, int] = _AS_IT_COMES
) -> Latency:
    """Let a worker answer `rate` events a second for a while, with some settings tuned."""
    seconds = effort.latency_seconds
    with (
        place.topics() as settings,
        watching(settings, RECOMMENDATIONS) as answers,
        watching(settings, EVENTS) as events,
    ):
        fill(settings, EVENTS, natural_events(_FIRST, rate))
        place.quiet.wait()
        before = place.control.measure(effort.control_seconds)
        with child(WORKER, replace(settings, **tuned), place.folder) as worker:
            _await(answers, _FIRST, worker.check)
            began = time.time()
            with child(("bench.producer", str(rate), str(seconds)), settings, place.folder) as producer:
                meter = Meter(worker.process, place.broker.pid, [producer.process])
                _await(answers, _FIRST + rate, worker.check)
                first = meter.read()
                with profile.sampling(worker.process.pid, seconds - DROPPED_SECONDS) if profile else nullcontext():
                    time.sleep(seconds - DROPPED_SECONDS)
                last = meter.read()
                producer.finish(_PATIENCE_SECONDS)
            _await(answers, _FIRST + int(rate * seconds), worker.check)
        pace = between(before, place.control.measure(effort.control_seconds))
        sent = {(record.partition(), record.offset()): record.timestamp()[1] for record in events.records()}
        decided = {at: decision for at, decision in read_decisions(answers).items() if decision.ts > began * 1000}
    warm_at = min(decision.ts for decision in decided.values()) + DROPPED_SECONDS * 1000
    kept = {at: decision for at, decision in decided.items() if decision.ts >= warm_at}
    whole = sorted(decision.appended_at - decision.ts for decision in kept.values())
    inside = sorted(decision.appended_at - sent[at] for at, decision in kept.items())
    found = Latency(
        rate=rate,
        events=len(kept),
        p50=_quantile(whole, 0.5),
        p90=_quantile(whole, 0.9),
        p99=_quantile(whole, 0.99),
        worst=whole[-1],
        in_kafka_p50=_quantile(inside, 0.5),
        in_kafka_p99=_quantile(inside, 0.99),
        cpu=(last.side - first.side) / (last.at - first.at),
        broker=(last.broker - first.broker) / (last.at - first.at),
        load=(last.beside - first.beside) / (last.at - first.at),
        strangers=max(0.0, (last.strangers - first.strangers) / (last.at - first.at)),
        control_per_second=pace.per_second,
    )
    say(
        f"{rate} events/s: p50 {found.p50} ms, p99 {found.p99} ms, from the event's append {found.in_kafka_p50} and "
        f"{found.in_kafka_p99} ms; worker {found.cpu:.2f} cores, other programs {found.strangers:.1f}"
    )
    return found


def _inside(runs: list[Latency]) -> str:
    p50, p99 = median(run.in_kafka_p50 for run in runs), median(run.in_kafka_p99 for run in runs)
    return f"from the event's append {p50:.0f} and {p99:.0f} ms"


def _cores(runs: list[Latency]) -> str:
    worker, broker = median(run.cpu for run in runs), median(run.broker for run in runs)
    strangers = median(run.strangers for run in runs)
    return f"cores taken: worker {worker:.2f}, broker {broker:.2f}, other programs {strangers:.2f}"


def _await(watch: Watch, count: int, check: Callable[[], None]) -> None:
    """Return once a topic holds so many records."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (there := watch.count()) < count:
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{there} of {count} decisions came in time")
        time.sleep(0.1)


def _quantile(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
