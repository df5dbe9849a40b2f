"""Effort: how much is measured, so in how much time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Three rounds take about 20 minutes on two cores."""

    rounds: int = 3
    seconds: float = 8.0
    """That a side decides."""
    control_seconds: float = 2.0
    """Of ONNX Runtime alone, before each side and after it."""
    latency_seconds: float = 24.0
    """Of which the first 3 are dropped."""
    warm_events: int = 100_000
    """More than any side decides in its seconds."""
    natural_events: int = 400_000
    users: int = 1_000_000
    """That memory is measured over."""
    replayed_events: int = 1_000_000
    judged_events: int = 100_000
    long_events: int = 10_000_000
    """Of the longer of two logs whose replays should take the same memory."""


FULL = Effort()
QUICK = Effort(
    rounds=1,
    seconds=3.0,
    control_seconds=0.5,
    latency_seconds=8.0,
    warm_events=30_000,
    natural_events=150_000,
    users=200_000,
    replayed_events=250_000,
    judged_events=40_000,
    long_events=1_000_000,
)
