"""Bare: measure a worker without a model: decoding, sessions, decisions and snapshots."""

from statistics import median

from bench.child import WORKER
from bench.environment import Environment
from bench.logs import natural_events
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from bench.throughput import Work, measure

HOURS_SECONDS = 7200.0  # of event time that the log covers


def natural_work(budget: RunBudget) -> Work:
    """Return a log of natural sessions over two hours of event time."""
    return Work(natural_events(budget.natural_events, budget.natural_events / HOURS_SECONDS))


def bare(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one run a round."""
    work = natural_work(budget)
    runs = [
        measure(environment, budget, "worker without a model", WORKER, work, bundle=False).run
        for _ in range(budget.rounds)
    ]
    row = Row(
        title="Worker without a model: decode, sessions, decisions, snapshots, on one core",
        values=tuple(1e6 / run.cpu_us for run in runs),
        digits=",.0f",
        unit=" events/s",
        goal=30_000,
        at_least=True,
        beside=f"{median(run.per_second for run in runs):,.0f} events/s by the clock, with broker and other programs",
    )
    return Measurement([row], runs)
