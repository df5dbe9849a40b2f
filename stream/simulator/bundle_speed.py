"""Bundle speed: how many events a second one core decides on with a bundle, and how long a batch takes."""

import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from clickscore.schemas.durations import MINUTE_MS
from clickscore.schemas.events import View, encode_event
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

BATCHES = (1, 8, 64, 256)
"""Numbers of events in a batch: one by one in light traffic, hundreds when a worker catches up."""
USERS = 500
"""Users whose events alternate."""
SESSION_EVENTS = 10
"""Events of a session. The session after it begins in the same user's next visit."""
START_TS = 1_767_225_600_000
"""Time of the first event, ms: 2026-01-01."""
SEED = 7
"""Seed of the items: the same events in each run."""
WARM_UP_S = 0.2
"""Time before the measurement of a batch size: ONNX Runtime allocates its buffers in the first calls, s."""
MB = 2**20


class BatchSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed with batches of one size."""

    batch: int
    """Events of a batch."""
    p50_ms: float
    """Median time of a batch, from records to encoded decisions, ms."""
    p99_ms: float
    events_per_s: float
    """Events a second by the clock."""
    cpu_us: float
    """CPU time of an event in all threads, us."""


class BundleSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed and memory of a bundle on this machine."""

    bundle: str
    items: int
    load_s: float
    """Time to load the bundle, s."""
    memory_mb: float
    """Largest memory of the process, the bundle and the users of the measurement included, MB."""
    batches: list[BatchSpeed]


class TimedRecord(msgspec.Struct, frozen=True):
    """A record of a partition, as the pipeline reads it."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


def measure_bundle(folder: Path, settings: Settings, seconds: float, policy_file: PolicyFile) -> BundleSpeed:
    """Measure a bundle on views of its own items, in sessions of random items.

    Args:
        folder: Folder of the bundle.
        settings: Settings of scoring, sessions and policy, as a worker would have them.
        seconds: Time for each batch size, s.
        policy_file: Rules of what is shown.
    """
    started_at = time.perf_counter()
    bundle = load_bundle(folder, settings.scoring.score_threads, settings.scoring.min_overlap)
    has_reasons = policy_file.max_reasons(settings.policy) > 0
    scorer = Scorer(bundle, settings.scoring.score_batch, reasons=has_reasons)
    load_s = time.perf_counter() - started_at
    pipeline = Pipeline(settings.sessions, settings.policy, "bench", Catalogue(), scorer, policy_file=policy_file)
    records = generate_records(bundle.items, SEED)
    speeds: list[BatchSpeed] = []
    for size in BATCHES:
        _measure(pipeline, records, size, min(WARM_UP_S, seconds))
        speeds.append(_measure(pipeline, records, size, seconds))
    return BundleSpeed(
        bundle=bundle.manifest.version,
        items=bundle.manifest.items,
        load_s=load_s,
        memory_mb=peak_memory_mb(),
        batches=speeds,
    )


def generate_records(items: Sequence[str], seed: int) -> Iterator[TimedRecord]:
    """Yield views of random items without end, a session after the other for each of the users.

    Args:
        items: Items of the bundle.
        seed: Seed of the choice.
    """
    choice, offset, ts = random.Random(seed), 0, START_TS
    while True:
        for _ in range(SESSION_EVENTS):
            for user in range(USERS):
                event = View(
                    event_id=str(offset), user_id=f"user-{user}", ts=ts + 20 * offset, item_id=choice.choice(items)
                )
                yield TimedRecord(offset, event.ts, event.user_id.encode(), encode_event(event))
                offset += 1
        ts += 60 * MINUTE_MS  # longer than a session's gap


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak / 1024  # bytes on macOS, KiB on Linux


def _measure(pipeline: Pipeline, records: Iterator[TimedRecord], size: int, seconds: float) -> BatchSpeed:
    """Process batches for some time, at least one.

    Args:
        pipeline: Pipeline with the model.
        records: Source of the events.
        size: Events of a batch.
        seconds: Time to spend, s.
    """
    times: list[float] = []
    cpu_s = 0.0
    while sum(times) < seconds:
        batch = list(islice(records, size))  # making the events does not count
        cpu_before, started_at = time.process_time(), time.perf_counter()
        output = pipeline.process(0, batch)
        times.append(time.perf_counter() - started_at)
        cpu_s += time.process_time() - cpu_before
        assert len(output.recommendations) == size
    times.sort()
    return BatchSpeed(
        batch=size,
        p50_ms=1000 * times[len(times) // 2],
        p99_ms=1000 * times[int(len(times) * 0.99)],
        events_per_s=size * len(times) / sum(times),
        cpu_us=1e6 * cpu_s / (size * len(times)),
    )
