"""Million: a catalogue of a million items, decided on by one worker without a GPU."""

from dataclasses import replace
from statistics import median

from bench.effort import Effort
from bench.latency import measure_latency
from bench.place import MODEL, Place, say
from bench.report import Found, Row
from export.random_bundle import write_random_bundle

ITEMS = 1_000_000
RATE = 300


def million(place: Place, effort: Effort) -> Found:
    """A run a round, with a bundle of random weights whose graph finds candidates in 8 bits."""
    folder = place.folder / "million"
    say(f"writing a bundle of {ITEMS:,} items")
    manifest = write_random_bundle(folder, ITEMS, MODEL, precision="int8")
    runs = [measure_latency(replace(place, bundle=folder), effort, RATE) for _ in range(effort.rounds)]
    overlap = manifest.fidelity.overlap if manifest.fidelity else 1.0
    row = Row(
        what=f"Event to decision with {ITEMS:,} items at {RATE} events/s, p99",
        values=tuple(run.p99 for run in runs),
        digits=".0f",
        unit=" ms",
        goal=50.0,
        at_least=False,
        beside=f"p50 {median(run.p50 for run in runs):.0f} ms; worker {median(run.cpu for run in runs):.2f} cores; "
        f"recall@20 against exact {overlap:.4f}",
    )
    return Found([row], runs)
