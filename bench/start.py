"""Start: from the start of a worker to its first decision, and from the death of one to the first of its successor."""

import time

from bench.child import WORKER, Child, child
from bench.effort import Effort
from bench.load import fill, watching
from bench.logs import Keyed, natural_events
from bench.place import Place, say
from bench.report import Found, Row
from clickscore.schemas.topics import EVENTS, RECOMMENDATIONS
from clickscore.stream.settings import Settings

EVENTS_THERE = 200
_LIMIT_SECONDS = 60.0
_AFTER_KILL_SECONDS = 2.0  # that the first worker lives on after its first decision: commits, heartbeats


def start(place: Place, effort: Effort) -> Found:
    """Both, once a round."""
    starts = [first_start(place) for _ in range(effort.rounds)]
    takeovers = [takeover(place) for _ in range(effort.rounds)]
    rows = (
        Row(
            what="Start of a worker to its first decision",
            values=tuple(starts),
            digits=".1f",
            unit=" s",
            goal=3.0,
            at_least=False,
            beside=f"{EVENTS_THERE} events wait; the bundle has 50,000 items",
        ),
        Row(
            what="`kill -9` of a worker to the first decision of another, started in that moment",
            values=tuple(takeovers),
            digits=".1f",
            unit=" s",
            goal=8.0,
            at_least=False,
            beside="the group waits 6 s for the dead one",
        ),
    )
    return Found(rows, [{"starts": starts, "takeovers": takeovers}])


def first_start(place: Place) -> float:
    """Return seconds from the start of a worker to its first decision; events wait for it."""
    events = natural_events(EVENTS_THERE, 100)
    place.quiet.wait()
    with place.topics() as settings:
        fill(settings, EVENTS, events)
        with child(WORKER, settings, place.folder) as worker:
            took = _decided_at(settings, worker, 0) - worker.began_at
    say(f"started and decided in {took:.2f} s")
    return took


def takeover(place: Place) -> float:
    """Return seconds from `kill -9` of a worker to the first decision of one that is started in the same moment."""
    events = natural_events(2 * EVENTS_THERE, 100)
    place.quiet.wait()
    with place.topics() as settings:
        fill(settings, EVENTS, events[:EVENTS_THERE])
        with child(WORKER, settings, place.folder) as worker:
            _decided_at(settings, worker, EVENTS_THERE - 1)
            time.sleep(_AFTER_KILL_SECONDS)
            killed_at = time.time()
            worker.kill()
        took = _succeed(place, settings, events[EVENTS_THERE:]) - killed_at
    say(f"took over and decided in {took:.2f} s")
    return took


def _succeed(place: Place, settings: Settings, events: list[Keyed]) -> float:
    """Start a worker and give it events; return when it decided on the first."""
    with child(WORKER, settings, place.folder) as worker:
        fill(settings, EVENTS, events)
        return _decided_at(settings, worker, EVENTS_THERE)


def _decided_at(settings: Settings, worker: Child, after: int) -> float:
    """Return the append time, in seconds, of the first decision that comes after so many others."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    with watching(settings, RECOMMENDATIONS) as watch:
        while watch.count() <= after:
            worker.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no decision within {_LIMIT_SECONDS:.0f} s")
            time.sleep(0.02)
        return sorted(message.timestamp()[1] for message in watch.records())[after] / 1000
