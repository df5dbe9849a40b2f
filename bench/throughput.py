"""Throughput: run one side on a full topic, and measure the cost of its decisions."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import msgspec

from bench.baseline import Rate, between
from bench.child import Child, child
from bench.decisions import Decided, EventAt, WrongError, read_decisions
from bench.environment import Environment, report_progress
from bench.load import Watch, fill, watching
from bench.logs import Keyed
from bench.meter import Meter, Reading
from bench.run_budget import RunBudget
from bench.sampling import Profile
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS, SNAPSHOTS

POLL_SECONDS = 0.05
START_SECONDS = 60.0


class Work(NamedTuple):
    """Content of the topics at the start of a side."""

    events: Sequence[Keyed]
    snapshots: Sequence[Keyed] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a side, with the baseline before and after the run."""

    side: str
    decisions: int
    seconds: float
    per_second: float
    """Decisions per second by append time, without the first batch, whose work lies before its append."""
    cpu_us: float
    """CPU time of the side's process per decision, microseconds."""
    broker_cpu_us: float
    strangers: float
    """Cores used by unrelated programs."""
    decision_bytes: float
    control_per_second: float
    control_cpu_us: float

    @property
    def share(self) -> float:
        """Speed relative to ONNX Runtime alone."""
        return self.per_second / self.control_per_second

    @property
    def cpu_share(self) -> float:
        """Speed relative to ONNX Runtime alone by CPU time, which unrelated programs disturb less."""
        return self.control_cpu_us / self.cpu_us


class Measured(NamedTuple):
    """A run and its decisions."""

    run: Run
    decisions: dict[EventAt, Decided]


def measure(
    environment: Environment,
    budget: RunBudget,
    side: str,
    arguments: Sequence[str],
    work: Work,
    *,
    bundle: bool = True,
    profile: Profile | None = None,
) -> Measured:
    """Run a side for some time, counted from its first decision.

    Args:
        environment: Broker, bundle and folder.
        budget: Duration of the run.
        side: Name of the side.
        arguments: Module and arguments of the process.
        work: Content of the topics.
        bundle: Whether the side gets the bundle.
        profile: Profile to record during the run.
    """
    control, seconds = environment.baseline, budget.control_seconds
    with environment.topics(bundle=bundle) as settings, watching(settings, RECOMMENDATIONS) as watch:
        fill(settings, SNAPSHOTS, work.snapshots)
        fill(settings, EVENTS, work.events)
        environment.idle_check.wait()
        baseline_before = control.measure(seconds)
        with child(arguments, settings, environment.folder) as running:
            meter = Meter(running.process, environment.broker.pid)
            readings = _watch(running, watch, meter, budget.seconds, len(work.events), profile=profile)
        rate = between(baseline_before, control.measure(seconds))
        decisions = read_decisions(watch)
    run = _run(side, readings, decisions, rate)
    report_progress(
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
    """Read the clocks at the first decisions, and at the last decisions before the end.

    Args:
        running: Process of the side.
        watch: Topic of decisions.
        meter: CPU clocks.
        seconds: Duration.
        total: Number of events.
        profile: Profile to record during the run.
    """
    deadline = time.time() + START_SECONDS
    while not (count := watch.count()):
        running.check()
        if time.time() > deadline:
            raise WrongError(f"no decision within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    first, first_count = meter.read(), count
    with profile.sampling(running.process.pid, seconds) if profile else nullcontext():
        last = first
        while count < total and time.time() - first.read_at < seconds:
            time.sleep(POLL_SECONDS)
            running.check()
            earlier, count = count, watch.count()
            if count > earlier:  # read where a batch has just come, as at first: no half batch is in the CPU time
                last = meter.read()
    if last is first:
        raise WrongError(f"no more than the first {count} decisions within {seconds:.0f} s")
    return _Readings(first, first_count, last, count)


def _run(side: str, readings: _Readings, decisions: dict[EventAt, Decided], rate: Rate) -> Run:
    first, first_count, last, last_count = readings
    decided = last_count - first_count
    end_ms = last.read_at * 1000
    appended = [decision.appended_at for decision in decisions.values() if decision.appended_at <= end_ms]
    first_append, ended = min(appended), max(appended)
    after_first = sum(appended_at > first_append for appended_at in appended)
    return Run(
        side=side,
        decisions=decided,
        seconds=(ended - first_append) / 1000,
        per_second=after_first / (ended - first_append) * 1000,
        cpu_us=(last.side - first.side) / decided * 1e6,
        broker_cpu_us=(last.broker - first.broker) / decided * 1e6,
        strangers=max(0.0, (last.strangers - first.strangers) / (last.read_at - first.read_at)),
        decision_bytes=sum(decision.size for decision in decisions.values()) / len(decisions),
        control_per_second=rate.per_second,
        control_cpu_us=rate.cpu_us,
    )
