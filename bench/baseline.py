"""Baseline: run ONNX Runtime alone on the bundle's graph. No side can be faster at the same moment."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.logs import ITEMS, WARM
from clickscore.stream.scoring.bundle import load_bundle

OUTPUTS = ["rows", "scores", "action_probabilities", "purchase"]
BATCH = 64


class Rate(NamedTuple):
    """Scoring speed of one core at this moment."""

    per_second: float
    cpu_us: float
    """CPU time per session, microseconds."""


class Baseline:
    """The graph on one thread, fed with sessions of 20 events from memory."""

    def __init__(self, bundle: Path) -> None:
        self._session = load_bundle(bundle).session
        rng = np.random.default_rng(0)
        self._sessions = [
            (rng.random((BATCH, WARM)) ** 3 * ITEMS).astype(np.int64) + 1  # (batch, length)
            for _ in range(32)
        ]

    def measure(self, seconds: float, batch: int = BATCH) -> Rate:
        """Score batches for some seconds."""
        feeds = [
            {
                "items": rows[:batch],
                "actions": np.ones((batch, WARM), dtype=np.int64),
                "lengths": np.full(batch, WARM, dtype=np.int64),
            }
            for rows in self._sessions
        ]
        self._session.run(OUTPUTS, feeds[0])
        started_at, cpu, done = time.perf_counter(), time.thread_time(), 0
        while time.perf_counter() - started_at < seconds:
            for feed in feeds:
                self._session.run(OUTPUTS, feed)
            done += batch * len(feeds)
        return Rate(done / (time.perf_counter() - started_at), (time.thread_time() - cpu) / done * 1e6)


def between(first: Rate, second: Rate) -> Rate:
    """Return the mean of the baselines before and after a run."""
    return Rate((first.per_second + second.per_second) / 2, (first.cpu_us + second.cpu_us) / 2)
