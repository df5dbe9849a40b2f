"""Trainings: the CPU time of graphs that rank by the mean score of several trainings, beside a graph of one.

The graphs run in turns on one thread, without trees. With checkpoints they get prefixes of the held-out sessions; with
random weights, sessions of random items with lengths as in Yoochoose 1/64. Each call has sessions of one width.

    python -m bench.trainings CHECKPOINT CHECKPOINT
    python -m bench.trainings --items 50000 --dim 64 --layers 2
"""

import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from bench.graphs import OUTPUTS, Feeds, drawn, session_widths
from clickscore.export.bundle_options import CANDIDATES, PRECISIONS
from clickscore.export.export_bundle import extract_weights
from clickscore.export.probes import stratified_sample
from clickscore.export.random_bundle import random_weights
from clickscore.export.session_graph import Weights
from clickscore.export.shortlist import RANKINGS
from clickscore.export.to_onnx import to_onnx
from clickscore.export.trainings import load_trainings
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import native_library, open_graph
from clickscore.model.training_batches import pad_prefixes

BATCH = 64
PREFIXES = 1_024

Calls = list[tuple[float, Feeds]]
"""Share of the sessions and input of each call."""


@click.command()
@click.argument("checkpoints", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--items", type=int, default=50_000, show_default=True, help="Items of random weights.")
@click.option("--dim", type=int, default=64, show_default=True, help="Dimensions of random weights.")
@click.option("--layers", type=int, default=2, show_default=True, help="Layers of random weights.")
@click.option("--trainings", type=click.IntRange(min=1), default=2, show_default=True, help="Number of random weights.")
@click.option("--turns", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of each graph.")
def main(checkpoints: Sequence[Path], *, items: int, dim: int, layers: int, trainings: int, turns: int) -> None:
    """Measure the time of a session with one training, and with the mean of the first two, three and so on."""
    if checkpoints:
        config, weights, calls = _read(checkpoints)
    else:
        config = ModelConfig(dim=dim, layers=layers, max_length=20)
        weights, rng = [random_weights(config, items, seed) for seed in range(trainings)], np.random.default_rng(0)
        calls = [(share, drawn(rng, items, BATCH, shortest, width)) for share, shortest, width in session_widths()]
    first, *others = weights
    click.echo(f"{len(first['table']) - 1:,} items, D {config.dim}, native operator: {bool(native_library())}")
    for precision in PRECISIONS:
        ranking = RANKINGS[precision]
        graphs = [
            open_graph(to_onnx(first, config, CANDIDATES, ranking=ranking, mean_with=others[:count]))
            for count in range(len(weights))
        ]
        times = measure(graphs, calls, turns)
        for count, us in enumerate(times, start=1):
            click.echo(f"{precision}, trainings: {count}, {us:.0f} us a session, {us / times[0]:.2f} x")


def measure(graphs: Sequence[ort.InferenceSession], calls: Calls, turns: int) -> list[float]:
    """Return the CPU time of a session of each graph in us: the fastest run of each call, weighted by its share.

    Args:
        graphs: Graphs to run.
        calls: Calls of `BATCH` sessions.
        turns: Turns of each graph.
    """
    fastest = np.full((len(graphs), len(calls)), np.inf)
    for _ in range(turns):
        for graph, row in zip(graphs, fastest, strict=True):
            for index, (_, feeds) in enumerate(calls):
                started_at = time.thread_time()
                graph.run(OUTPUTS, feeds)
                row[index] = min(row[index], time.thread_time() - started_at)
    return (fastest @ np.array([share for share, _ in calls]) * 1e6 / BATCH).tolist()


def _read(checkpoints: Sequence[Path]) -> tuple[ModelConfig, list[Weights], Calls]:
    """Return the shape and the weights of trainings, and prefixes of the first one's held-out sessions."""
    trainings = load_trainings(checkpoints, unfinished=True)
    samples = [events for events in stratified_sample(trainings[0].held_out, PREFIXES) if len(events) == BATCH]
    calls = [(1 / len(samples), pad_prefixes(trainings[0].held_out, events)._asdict()) for events in samples]
    weights = [extract_weights(trained.model, trained.table()) for trained in trainings]
    return trainings[0].record.config.model, weights, calls


if __name__ == "__main__":
    main()
