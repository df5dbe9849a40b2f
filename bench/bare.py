"""Bare: a worker without a model, so what decoding, sessions, decisions and snapshots cost by themselves."""

from statistics import median

from bench.child import WORKER
from bench.effort import Effort
from bench.logs import natural_events
from bench.place import Place
from bench.report import Found, Row
from bench.throughput import Work, measure

HOURS_SECONDS = 7200.0  # of event time that the log covers


def natural_work(effort: Effort) -> Work:
    """Return a log of natural sessions, two hours of event time."""
    return Work(natural_events(effort.natural_events, effort.natural_events / HOURS_SECONDS))


def bare(place: Place, effort: Effort) -> Found:
    """A run a round."""
    work = natural_work(effort)
    runs = [
        measure(place, effort, "worker without a model", WORKER, work, bundle=False).run for _ in range(effort.rounds)
    ]
    row = Row(
        what="Worker without a model: decode, sessions, decisions, snapshots, a core",
        values=tuple(1e6 / run.cpu_us for run in runs),
        digits=",.0f",
        unit=" events/s",
        goal=30_000,
        at_least=True,
        beside=f"{median(run.per_second for run in runs):,.0f} events/s by the clock, beside broker and other programs",
    )
    return Found([row], runs)
