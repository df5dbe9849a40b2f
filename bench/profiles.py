"""Profiles: where the time of a worker goes, with the model, without it, and at a trickle."""

from bench.bare import natural_work
from bench.child import WORKER
from bench.effort import Effort
from bench.latency import measure_latency
from bench.logs import warm_events, warm_snapshots
from bench.place import Place
from bench.sampling import Profile
from bench.throughput import Work, measure


def profiles(place: Place, effort: Effort) -> list[str]:
    """Return a table for each."""
    scoring, bare, trickle = (
        Profile(place.folder, name)
        for name in ("a worker at full speed", "a worker without a model", "a worker at 500 events/s")
    )
    measure(
        place, effort, scoring.name, WORKER, Work(warm_events(effort.warm_events), warm_snapshots()), profile=scoring
    )
    measure(place, effort, bare.name, WORKER, natural_work(effort), bundle=False, profile=bare)
    measure_latency(place, effort, 500, profile=trickle)
    return [profile.summary() for profile in (scoring, bare, trickle)]
