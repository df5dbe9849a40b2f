"""Million: a catalogue of a million items, decided on without a GPU: in Kafka, and by the scorer alone."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from bench.effort import Effort
from bench.graphs import LENGTHS
from bench.latency import measure_latency
from bench.place import MODEL, Place, say
from bench.report import Found, Row
from clickscore.export.random_bundle import write_random_bundle
from clickscore.schemas.events import View
from clickscore.stream.request import Request
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer

ITEMS = 1_000_000
RATE = 300
TUNED = {"gather_ms": 10, "score_threads": 2}
"""A call reads the whole catalogue, so it is worth waiting for company."""
WARM = 20


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """From a session's arrival to its answer; times in ms."""

    sessions: int
    p50: float
    p99: float
    busy: float
    """Share of the time in which sessions were scored."""


def million(place: Place, effort: Effort) -> Found:
    """A run of each kind a round, with a bundle of random weights whose graph finds candidates in 8 bits."""
    folder = place.folder / "million"
    say(f"writing a bundle of {ITEMS:,} items")
    manifest = write_random_bundle(folder, ITEMS, MODEL, precision="int8")
    overlap = manifest.fidelity.overlap if manifest.fidelity else 1.0
    there = replace(place, bundle=folder)
    runs = [measure_latency(there, effort, RATE, tuned=TUNED) for _ in range(effort.rounds)]
    alone = [measure_waits(folder, effort.latency_seconds) for _ in range(effort.rounds)]
    rows = [
        Row(
            what=f"{what} with {ITEMS:,} items at {RATE}/s, p99",
            values=values,
            digits=".0f",
            unit=" ms",
            goal=50.0,
            at_least=False,
            beside=beside,
        )
        for what, values, beside in (
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
    return Found(rows, [*runs, *alone])


def measure_waits(bundle: Path, seconds: float) -> Waits:
    """Let sessions arrive at random, as many a second as `RATE`, and score whatever has arrived, over and over."""
    scorer = Scorer(load_bundle(bundle, TUNED["score_threads"]))
    rng = np.random.default_rng(0)
    count = int(RATE * seconds)
    requests = [_request(number, rng) for number in range(count)]
    scorer.score(requests[:WARM])
    due = time.perf_counter() + np.cumsum(rng.exponential(1 / RATE, count))
    waits: list[float] = []
    busy, done = 0.0, 0
    while done < count:
        time.sleep(max(0.0, float(due[done]) - time.perf_counter()))
        began = time.perf_counter()
        end = int(np.searchsorted(due, began, side="right"))
        scorer.score(requests[done:end])
        ended = time.perf_counter()
        waits += (1e3 * (ended - due[done:end])).tolist()
        busy, done = busy + ended - began, end
    p50, p99 = np.quantile(waits, [0.5, 0.99]).tolist()
    say(f"{RATE} sessions/s without Kafka: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {busy / seconds:.0%} busy")
    return Waits(sessions=count, p50=p50, p99=p99, busy=busy / seconds)


def _request(number: int, rng: np.random.Generator) -> Request:
    """Return a session of views of random items, whose length is as frequent as in `LENGTHS`."""
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
