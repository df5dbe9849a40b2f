"""Budget: size and duration of the measurements."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunBudget:
    """Sizes and durations. Three rounds take about 20 minutes on two cores."""

    rounds: int = 3
    seconds: float = 8.0
    """Duration of a side's run."""
    control_seconds: float = 2.0
    """Duration of the baseline before and after each side."""
    latency_seconds: float = 24.0
    """Duration of a latency run. The first 3 s do not count."""
    warm_events: int = 100_000
    """Number of events: more than any side decides in its time."""
    natural_events: int = 400_000
    users: int = 1_000_000
    """Number of users in the measurement of memory."""
    replayed_events: int = 1_000_000
    judged_events: int = 100_000
    decision_repeats: int = 30
    """Runs of each side over 1,000 decisions: a busy machine needs many until each micro-batch had a quiet moment."""
    long_events: int = 10_000_000
    """Size of the longer log of two replays that should need the same memory."""


FULL = RunBudget()
QUICK = RunBudget(
    rounds=1,
    seconds=3.0,
    control_seconds=0.5,
    latency_seconds=8.0,
    warm_events=30_000,
    natural_events=150_000,
    users=200_000,
    replayed_events=250_000,
    judged_events=40_000,
    decision_repeats=5,
    long_events=1_000_000,
)
