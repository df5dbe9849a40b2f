"""Million: measure a catalogue of a million items without a GPU, with Kafka and with the scorer alone."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from bench.environment import MODEL, Environment, report_progress
from bench.graphs import LENGTHS
from bench.latency import measure_latency
from bench.report import Measurement, Row
from bench.run_budget import RunBudget
from clickscore.export.random_bundle import write_random_bundle
from clickscore.schemas.events import View
from clickscore.stream.request import Request
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer

ITEMS = 1_000_000
RATE = 300
TUNED = {"fetch_wait_ms": 10, "score_threads": 2}
"""A call reads the whole catalogue, so a larger micro-batch is worth a longer wait."""
WARM = 20


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Time from a session's arrival to its scores; times in ms."""

    sessions: int
    p50: float
    p99: float
    busy: float
    """Share of the time spent on scoring."""


def million(environment: Environment, budget: RunBudget) -> Measurement:
    """Measure one run of each kind a round, with random weights and an 8-bit shortlist."""
    folder = environment.folder / "million"
    report_progress(f"writing a bundle of {ITEMS:,} items")
    manifest = write_random_bundle(folder, ITEMS, MODEL, precision="int8")
    overlap = manifest.fidelity.overlap if manifest.fidelity else 1.0
    million_environment = replace(environment, bundle=folder)
    runs = [measure_latency(million_environment, budget, RATE, tuned=TUNED) for _ in range(budget.rounds)]
    alone = [measure_waits(folder, budget.latency_seconds) for _ in range(budget.rounds)]
    rows = [
        Row(
            title=f"{title} with {ITEMS:,} items at {RATE}/s, p99",
            values=values,
            digits=".0f",
            unit=" ms",
            goal=50.0,
            at_least=False,
            beside=beside,
        )
        for title, values, beside in (
            (
                "Event to decision",
                tuple(float(run.p99) for run in runs),
                f"p50 {median(run.p50 for run in runs):.0f} ms; "
                f"cores taken: worker {median(run.cpu for run in runs):.2f}, "
                f"broker {median(run.broker for run in runs):.2f}; recall@20 against exact {overlap:.4f}",
            ),
            (
                "Session to scores, without Kafka,",
                tuple(run.p99 for run in alone),
                f"p50 {median(run.p50 for run in alone):.0f} ms; two threads, "
                f"{median(run.busy for run in alone):.0%} of the time busy",
            ),
        )
    ]
    return Measurement(rows, [*runs, *alone])


def measure_waits(bundle: Path, seconds: float) -> Waits:
    """Score sessions that arrive at random, `RATE` sessions per second. Each call scores all waiting sessions."""
    scorer = Scorer(load_bundle(bundle, TUNED["score_threads"]))
    rng = np.random.default_rng(0)
    count = int(RATE * seconds)
    requests = [_request(number, rng) for number in range(count)]
    scorer.score(requests[:WARM])
    arrivals = time.perf_counter() + np.cumsum(rng.exponential(1 / RATE, count))
    waits: list[float] = []
    busy, done = 0.0, 0
    while done < count:
        time.sleep(max(0.0, float(arrivals[done]) - time.perf_counter()))
        started_at = time.perf_counter()
        end = int(np.searchsorted(arrivals, started_at, side="right"))
        scorer.score(requests[done:end])
        ended = time.perf_counter()
        waits += (1e3 * (ended - arrivals[done:end])).tolist()
        busy, done = busy + ended - started_at, end
    p50, p99 = np.quantile(waits, [0.5, 0.99]).tolist()
    report_progress(f"{RATE} sessions/s without Kafka: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {busy / seconds:.0%} busy")
    return Waits(sessions=count, p50=p50, p99=p99, busy=busy / seconds)


def _request(number: int, rng: np.random.Generator) -> Request:
    """Return a session of views of random items, with a length distributed as in `LENGTHS`."""
    length = int(rng.choice(len(LENGTHS), p=LENGTHS / LENGTHS.sum())) + 1
    items = [f"item-{row}" for row in rng.integers(1, ITEMS + 1, length)]
    event = View(event_id=f"e-{number}", user_id=f"u-{number}", ts=number, item_id=items[-1])
    return Request(
        decision_id=f"events-0-{number}",
        event=event,
        session_id=f"0-{number}",
        session_length=length,
        items=items,
        actions=bytes([1]) * length,
        bought=frozenset(),
        variant="model",
        late=False,
        popular=[],
    )
