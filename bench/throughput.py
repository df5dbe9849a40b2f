"""Throughput: one side at work on a topic that is full, and what its decisions cost."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import msgspec

from bench.child import Child, child
from bench.control import Rate, between
from bench.decisions import Decided, EventAt, WrongError, read_decisions
from bench.effort import Effort
from bench.load import Watch, fill, watching
from bench.logs import Keyed
from bench.meter import Meter, Reading
from bench.place import Place, say
from bench.sampling import Profile
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, SNAPSHOTS

POLL_SECONDS = 0.05
START_SECONDS = 60.0


class Work(NamedTuple):
    """What is in the topics when a side starts."""

    events: Sequence[Keyed]
    snapshots: Sequence[Keyed] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One side's run, with ONNX Runtime alone measured before and after it."""

    side: str
    decisions: int
    seconds: float
    per_second: float
    """Decisions, by their append times, the first batch left out since its work lies before."""
    cpu_us: float
    """CPU time of the side's process a decision."""
    broker_cpu_us: float
    strangers: float
    """Cores that programs beside the benchmark took."""
    decision_bytes: float
    control_per_second: float
    control_cpu_us: float

    @property
    def share(self) -> float:
        """Of what ONNX Runtime alone does."""
        return self.per_second / self.control_per_second

    @property
    def cpu_share(self) -> float:
        """The same by CPU time, which other programs disturb less."""
        return self.control_cpu_us / self.cpu_us


class Measured(NamedTuple):
    """A run and what was decided in it."""

    run: Run
    decisions: dict[EventAt, Decided]


def measure(
    place: Place,
    effort: Effort,
    side: str,
    arguments: Sequence[str],
    work: Work,
    *,
    bundle: bool = True,
    profile: Profile | None = None,
) -> Measured:
    """Let a side decide for a while, counted from its first decision on, and say how it did."""
    control, seconds = place.control, effort.control_seconds
    with place.topics(bundle=bundle) as settings, watching(settings, RECOMMENDATIONS) as watch:
        fill(settings, SNAPSHOTS, work.snapshots)
        fill(settings, EVENTS, work.events)
        place.quiet.wait()
        before = control.measure(seconds)
        with child(arguments, settings, place.folder) as running:
            meter = Meter(running.process, place.broker.pid)
            readings = _watch(running, watch, meter, effort.seconds, len(work.events), profile=profile)
        rate = between(before, control.measure(seconds))
        decisions = read_decisions(watch)
    run = _run(side, readings, decisions, rate)
    say(
        f"{side}: {run.per_second:,.0f} decisions/s, {run.cpu_us:.1f} us CPU each; ONNX Runtime alone "
        f"{rate.per_second:,.0f}/s, {rate.cpu_us:.1f} us; other programs took {run.strangers:.1f} cores"
    )
    return Measured(run, decisions)


class _Readings(NamedTuple):
    first: Reading
    first_count: int
    last: Reading
    last_count: int


def _watch(
    running: Child, watch: Watch, meter: Meter, seconds: float, total: int, *, profile: Profile | None
) -> _Readings:
    """Read the clocks when the first decisions are there, and when the last ones before time is up are."""
    deadline = time.time() + START_SECONDS
    while not (count := watch.count()):
        running.check()
        if time.time() > deadline:
            raise WrongError(f"no decision within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    first, first_count = meter.read(), count
    with profile.sampling(running.process.pid, seconds) if profile else nullcontext():
        last = first
        while count < total and time.time() - first.at < seconds:
            time.sleep(POLL_SECONDS)
            running.check()
            before, count = count, watch.count()
            if count > before:  # read where a batch has just come, as at first: no half batch is in the CPU time
                last = meter.read()
    if last is first:
        raise WrongError(f"no more than the first {count} decisions within {seconds:.0f} s")
    return _Readings(first, first_count, last, count)


def _run(side: str, readings: _Readings, decisions: dict[EventAt, Decided], rate: Rate) -> Run:
    first, first_count, last, last_count = readings
    decided = last_count - first_count
    until = last.at * 1000
    appended = [decision.appended_at for decision in decisions.values() if decision.appended_at <= until]
    began, ended = min(appended), max(appended)
    after_first = sum(at > began for at in appended)
    return Run(
        side=side,
        decisions=decided,
        seconds=(ended - began) / 1000,
        per_second=after_first / (ended - began) * 1000,
        cpu_us=(last.side - first.side) / decided * 1e6,
        broker_cpu_us=(last.broker - first.broker) / decided * 1e6,
        strangers=max(0.0, (last.strangers - first.strangers) / (last.at - first.at)),
        decision_bytes=sum(decision.size for decision in decisions.values()) / len(decisions),
        control_per_second=rate.per_second,
        control_cpu_us=rate.cpu_us,
    )
