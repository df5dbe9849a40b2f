"""Profiles: show where a worker spends its time, with the model, without a model, and under light traffic."""

from bench.bare import natural_work
from bench.child import WORKER
from bench.environment import Environment
from bench.latency import measure_latency
from bench.logs import warm_events, warm_snapshots
from bench.run_budget import RunBudget
from bench.sampling import Profile
from bench.throughput import Work, measure


def profiles(environment: Environment, budget: RunBudget) -> list[str]:
    """Return a table for each profile."""
    scoring, bare, trickle = (
        Profile(environment.folder, name)
        for name in ("a worker at full speed", "a worker without a model", "a worker at 500 events/s")
    )
    measure(
        environment,
        budget,
        scoring.name,
        WORKER,
        Work(warm_events(budget.warm_events), warm_snapshots()),
        profile=scoring,
    )
    measure(environment, budget, bare.name, WORKER, natural_work(budget), bundle=False, profile=bare)
    measure_latency(environment, budget, 500, profile=trickle)
    return [profile.summary() for profile in (scoring, bare, trickle)]
