"""Start: measure the time from a worker's start, or from the death of its predecessor, to its first decision."""

import time

from bench.child import WORKER, Child, child
from bench.environment import Environment, report_progress
from bench.load import fill, watching
from bench.logs import Keyed, natural_events
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import Settings

EVENTS_THERE = 200
_LIMIT_SECONDS = 60.0
_AFTER_KILL_SECONDS = 2.0  # that the first worker lives on after its first decision: commits, heartbeats


def start(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure both times once a round."""
    starts = [first_start(environment) for _ in range(budget.rounds)]
    takeovers = [takeover(environment) for _ in range(budget.rounds)]
    rows = (
        Row(
            title="Start of a worker to its first decision",
            values=tuple(starts),
            digits=".1f",
            unit=" s",
            goal=3.0,
            at_least=False,
            beside=f"{EVENTS_THERE} events wait; the bundle has 50,000 items",
        ),
        Row(
            title="`kill -9` of a worker to the first decision of another worker that starts at that moment",
            values=tuple(takeovers),
            digits=".1f",
            unit=" s",
            goal=8.0,
            at_least=False,
            beside="the group waits 6 s for the dead worker",
        ),
    )
    return Measurement(rows, [{"starts": starts, "takeovers": takeovers}])


def first_start(environment: Environment) -> float:
    """Return the seconds from the start of a worker to its first decision. Events are waiting at the start."""
    events = natural_events(EVENTS_THERE, 100)
    environment.idle_check.wait()
    with environment.topics() as settings:
        fill(settings, EVENTS, events)
        with child(WORKER, settings, environment.folder) as worker:
            took = _decided_at(settings, worker, 0) - worker.began_at
    report_progress(f"started and decided in {took:.2f} s")
    return took


def takeover(environment: Environment) -> float:
    """Return the seconds from `kill -9` of a worker to the first decision of its immediate successor."""
    events = natural_events(2 * EVENTS_THERE, 100)
    environment.idle_check.wait()
    with environment.topics() as settings:
        fill(settings, EVENTS, events[:EVENTS_THERE])
        with child(WORKER, settings, environment.folder) as worker:
            _decided_at(settings, worker, EVENTS_THERE - 1)
            time.sleep(_AFTER_KILL_SECONDS)
            killed_at = time.time()
            worker.kill()
        took = _succeed(environment, settings, events[EVENTS_THERE:]) - killed_at
    report_progress(f"took over and decided in {took:.2f} s")
    return took


def _succeed(environment: Environment, settings: Settings, events: list[Keyed]) -> float:
    """Start a worker, send events, and return the time of its first decision.

    Args:
        environment: Broker, bundle and folder.
        settings: Settings of the worker.
        events: Events to send.
    """
    with child(WORKER, settings, environment.folder) as worker:
        fill(settings, EVENTS, events)
        return _decided_at(settings, worker, EVENTS_THERE)


def _decided_at(settings: Settings, worker: Child, skipped: int) -> float:
    """Return the append time in seconds of decision number `skipped`.

    Args:
        settings: Settings of the worker.
        worker: Running worker.
        skipped: Number of earlier decisions.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    with watching(settings, RECOMMENDATIONS) as watch:
        while watch.count() <= skipped:
            worker.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no decision within {_LIMIT_SECONDS:.0f} s")
            time.sleep(0.02)
        return sorted(message.timestamp()[1] for message in watch.records())[skipped] / 1000
