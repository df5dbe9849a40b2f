"""Control: ONNX Runtime alone on the bundle's graph, the most that any side could do at that moment."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.logs import ITEMS, WARM
from clickscore.stream.scoring.bundle import load_bundle

OUTPUTS = ["rows", "scores", "action_probabilities", "purchase"]
BATCH = 64


class Rate(NamedTuple):
    """What one core of this machine scores just now."""

    per_second: float
    cpu_us: float
    """CPU time a session."""


class Control:
    """The graph on one thread, fed with sessions of 20 events that are ready in memory."""

    def __init__(self, bundle: Path) -> None:
        self._session = load_bundle(bundle).session
        rng = np.random.default_rng(0)
        self._sessions = [
            (rng.random((BATCH, WARM)) ** 3 * ITEMS).astype(np.int64) + 1  # (batch, length)
            for _ in range(32)
        ]

    def measure(self, seconds: float, batch: int = BATCH) -> Rate:
        """Score batches for a while."""
        feeds = [
            {
                "items": rows[:batch],
                "actions": np.ones((batch, WARM), dtype=np.int64),
                "lengths": np.full(batch, WARM, dtype=np.int64),
            }
            for rows in self._sessions
        ]
        self._session.run(OUTPUTS, feeds[0])
        began, cpu, done = time.perf_counter(), time.thread_time(), 0
        while time.perf_counter() - began < seconds:
            for feed in feeds:
                self._session.run(OUTPUTS, feed)
            done += batch * len(feeds)
        return Rate(done / (time.perf_counter() - began), (time.thread_time() - cpu) / done * 1e6)


def between(before: Rate, after: Rate) -> Rate:
    """Return the control of what ran between two."""
    return Rate((before.per_second + after.per_second) / 2, (before.cpu_us + after.cpu_us) / 2)
