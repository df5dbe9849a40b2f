"""Scoring: compare decisions per second of a worker and of its peers, in turn, on the same events."""

from collections.abc import Sequence
from statistics import median

from bench.child import WORKER
from bench.decisions import Decided, EventAt, check_same
from bench.environment import Environment
from bench.logs import warm_events, warm_snapshots
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from bench.throughput import Run, Work, measure

PEERS = {
    "faust_idiomatic": ("an idiomatic Faust agent (`async for`)", 5.0),
    "faust_take": ("Faust `take_events(64)`, tuned", 1.5),
    "quix": ("Quix Streams `apply(stateful=True)`", 2.6),
}
"""Module, name and target speed-up of each peer."""


def scoring(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure every side once a round, with ONNX Runtime alone before and after each side."""
    work = Work(warm_events(budget.warm_events), warm_snapshots())
    sides = {"worker": WORKER, **{peer: (f"bench.peers.{peer}",) for peer in PEERS}}
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for _ in range(budget.rounds):
        decisions: dict[str, dict[EventAt, Decided]] = {}
        for side, arguments in sides.items():
            run, decisions[side] = measure(environment, budget, side, arguments, work)
            runs[side].append(run)
        check_same(decisions)
    worker_runs = runs["worker"]
    rows = [
        Row(
            title="Decisions/s of a worker, relative to ONNX Runtime alone on the same graph in batches of 64",
            values=tuple(run.share for run in worker_runs),
            digits=".2f",
            goal=0.80,
            at_least=True,
            beside=f"{_pace(worker_runs)}; by CPU time {median(run.cpu_share for run in worker_runs):.2f}",
        ),
        *(_against(name, goal, worker_runs, runs[peer]) for peer, (name, goal) in PEERS.items()),
    ]
    return Measurement(rows, [run for side in runs.values() for run in side])


def _against(name: str, goal: float, worker_runs: Sequence[Run], peer_runs: Sequence[Run]) -> Row:
    pairs = list(zip(worker_runs, peer_runs, strict=True))
    by_cpu = median(their.cpu_us / our.cpu_us for our, their in pairs)
    return Row(
        title=f"Decisions/s of a worker, relative to {name}",
        values=tuple(our.share / their.share for our, their in pairs),
        digits=".1f",
        unit=" x",
        goal=goal,
        at_least=True,
        beside=f"{_pace(peer_runs)}; by CPU time {by_cpu:.1f} x",
    )


def _pace(runs: Sequence[Run]) -> str:
    decided, alone = median(run.per_second for run in runs), median(run.control_per_second for run in runs)
    return f"{decided:,.0f} of {alone:,.0f}/s, {median(run.cpu_us for run in runs):.0f} us CPU each"
