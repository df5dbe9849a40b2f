"""Graphs: compare the speed and the results of an export's graphs with a naive graph.

The naive graph scores every item in float32, then uses ONNX's TopK, with every session padded to 20 events. The other
graphs get calls as from a worker: sessions of one width. All graphs share one body and run on one thread.

    python -m bench.graphs --items 50000 --batch 1 --batch 32
"""

import math
import time
from collections.abc import Sequence
from statistics import median

import click
import msgspec
import numpy as np
import onnxruntime as ort

from bench.machine import machine
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK, Ranking
from clickscore.export.shortlist import QuantisedShortlist
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.json_output import FormerJsonCommand, JsonOutput, json_options
from clickscore.model.onnx_runtime import native_library, open_graph
from clickscore.schemas.manifest import WIDTHS

MODEL = ModelConfig(dim=64, layers=2, max_length=20)
BEST = 20
NAIVE, NATIVE = "naive", "int8, native"
KINDS: dict[str, Ranking] = {
    NAIVE: ExactTopK(),
    "fp32": BlockwiseTopK(),
    "int8": QuantisedShortlist(),
    NATIVE: QuantisedShortlist(),
}
LENGTHS = np.array(
    [
        *(0.2741, 0.1672, 0.1155, 0.0818, 0.0625, 0.0489, 0.0388, 0.0309, 0.0250, 0.0204),
        *(0.0169, 0.0143, 0.0122, 0.0103, 0.0088, 0.0077, 0.0066, 0.0058, 0.0052, 0.0471),
    ]
)
"""Share of session prefixes with 1, 2, ..., 20 or more events, in the test file of Yoochoose 1/64."""
OUTPUTS = ["rows", "scores", "action_probabilities", "purchase"]
TURN_SECONDS = 0.4
"""Duration of one turn of a graph: long enough to fill the processor's caches."""
COMPANY = (1, 2, 3, 8, 31, 64)

Feeds = dict[str, np.ndarray]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of a graph at one batch size."""

    items: int
    batch: int
    graph: str
    ms: float
    """Time of a call in ms: the median by width, weighted by the share of sessions with this width."""
    gain: float
    """Time of the naive graph divided by the time of this graph."""


class Sameness(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a graph compared with the naive graph."""

    items: int
    graph: str
    sessions: int
    same_best: int
    """Number of sessions with the same best 20 items in the same order."""
    score_difference: float
    """Largest difference of scores at one rank."""
    batch_dependent: int
    """Number of sessions, 64 a width, whose result depends on the batch size (1 to 64)."""


@click.command(cls=FormerJsonCommand)
@click.option("--items", multiple=True, type=int, default=(10_000, 50_000, 200_000, 1_000_000), show_default=True)
@click.option("--batch", multiple=True, type=int, default=(1, 8, 32, 64), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of each graph.")
@click.option("--sessions", type=int, default=10_000, show_default=True, help="Number of sessions to compare.")
@json_options
def main(*, items: Sequence[int], batch: Sequence[int], rounds: int, sessions: int, json_output: JsonOutput) -> None:
    """Measure the graphs of an export for several catalogue and batch sizes, and print tables in Markdown."""
    speeds: list[Speed] = []
    sames: list[Sameness] = []
    for count in items:
        graphs = opened(count)
        for size in batch:
            speeds += speed(graphs, count, size, rounds)
            click.echo(f"  {count:,} items, batch {size}: {speeds[-1].gain:.2f} x", err=True)
        sames += sameness(graphs, count, sessions)
    facts = machine()
    json_output.echo("\n".join([*_speed_table(speeds), "", *_sameness_table(sames), ""]))
    json_output.echo(f"{facts['processor']}; {facts['system']}. {facts['packages']}. Commit {facts['commit']}.")
    json_output.write({"machine": facts, "speed": speeds, "sameness": sames})


def opened(items: int) -> dict[str, ort.InferenceSession]:
    """Return each kind of graph with the same random weights on one thread; the native one where it is installed."""
    weights = random_weights(MODEL, items)
    return {
        kind: open_graph(to_onnx(weights, MODEL, BEST, ranking=ranking), native=kind == NATIVE)
        for kind, ranking in KINDS.items()
        if kind != NATIVE or native_library()
    }


def speed(graphs: dict[str, ort.InferenceSession], items: int, batch: int, rounds: int) -> list[Speed]:
    """Return the time of a call of each graph, measured in turns.

    Args:
        graphs: Sessions of ONNX Runtime by name.
        items: Number of items.
        batch: Sessions a call.
        rounds: Turns of each graph.
    """
    rng = np.random.default_rng(batch)
    by_width = [(share, drawn(rng, items, batch, shortest, width)) for share, shortest, width in session_widths()]
    padded = [(1.0, drawn(rng, items, batch, 1, WIDTHS[-2]))]
    times: dict[str, list[list[float]]] = {kind: [[] for _ in by_width] for kind in graphs}
    for _ in range(rounds):
        for kind, graph in graphs.items():
            calls = padded if kind == NAIVE else by_width
            for (_, feeds), seconds in zip(calls, times[kind], strict=False):
                end = time.thread_time() + TURN_SECONDS / len(calls)
                while (started_at := time.thread_time()) < end or len(seconds) < 3:
                    graph.run(OUTPUTS, feeds)
                    seconds.append(time.thread_time() - started_at)
    ms = {
        kind: 1e3 * sum(share * median(seconds) for (share, _), seconds in zip(calls, times[kind], strict=False))
        for kind in graphs
        for calls in [padded if kind == NAIVE else by_width]
    }
    return [Speed(items=items, batch=batch, graph=kind, ms=took, gain=ms[NAIVE] / took) for kind, took in ms.items()]


def sameness(graphs: dict[str, ort.InferenceSession], items: int, sessions: int) -> list[Sameness]:
    """Return the comparison of each graph's results with the naive graph's.

    Args:
        graphs: Sessions of ONNX Runtime by name.
        items: Number of items.
        sessions: Number of sessions.
    """
    rng = np.random.default_rng(0)
    calls = [
        drawn(rng, items, 64, shortest, width)
        for share, shortest, width in session_widths()
        for _ in range(math.ceil(share * sessions / 64))
    ]
    naive = [graphs[NAIVE].run(OUTPUTS[:2], feeds) for feeds in calls]
    results: list[Sameness] = []
    for kind in graphs.keys() - {NAIVE}:
        same, apart = 0, 0.0
        for feeds, (rows, scores) in zip(calls, naive, strict=True):
            own_rows, own_scores = graphs[kind].run(OUTPUTS[:2], feeds)
            same += int((own_rows == rows).all(axis=1).sum())
            apart = max(apart, float(np.abs(own_scores - scores).max()))
        alone = sum(_other_bits(graphs[kind], drawn(rng, items, 64, low, width)) for _, low, width in session_widths())
        results.append(
            Sameness(
                items=items,
                graph=kind,
                sessions=64 * len(calls),
                same_best=same,
                score_difference=apart,
                batch_dependent=alone,
            )
        )
    return sorted(results, key=lambda row: row.graph)


def drawn(rng: np.random.Generator, items: int, batch: int, shortest: int, width: int) -> Feeds:
    """Return sessions of views of random items, padded to a width, with lengths distributed as in `LENGTHS`.

    Args:
        rng: Source of randomness.
        items: Number of items.
        batch: Number of sessions.
        shortest: Shortest length.
        width: Padded length.
    """
    shares = LENGTHS[shortest - 1 : width]
    lengths = rng.choice(np.arange(shortest, width + 1), batch, p=shares / shares.sum())
    real = np.arange(width) < lengths[:, None]  # (batch, width)
    rows = (rng.integers(1, items + 1, (batch, width)) * real).astype(np.int64)
    return {"items": rows, "actions": real.astype(np.int64), "lengths": lengths.astype(np.int64)}


def session_widths() -> list[tuple[float, int, int]]:
    """Return each padded width with its share of sessions and its shortest session."""
    ends = [width for width in WIDTHS if width <= len(LENGTHS)]
    return [
        (float(LENGTHS[shorter:width].sum()), shorter + 1, width)
        for shorter, width in zip([0, *ends], ends, strict=False)
    ]


def _other_bits(graph: ort.InferenceSession, feeds: Feeds) -> int:
    together = graph.run(OUTPUTS, feeds)
    differs = np.zeros(64, dtype=bool)
    for size in COMPANY:
        for start in range(0, 64, size):
            part = slice(start, start + size)
            answers = graph.run(OUTPUTS, {name: values[part] for name, values in feeds.items()})
            for whole, own in zip(together, answers, strict=True):
                differs[part] |= [a.tobytes() != b.tobytes() for a, b in zip(whole[part], own, strict=True)]
    return int(differs.sum())


def _speed_table(speeds: Sequence[Speed]) -> list[str]:
    kinds = [kind for kind in dict.fromkeys(speed_row.graph for speed_row in speeds) if kind != NAIVE]
    cell = {(speed_row.items, speed_row.batch, speed_row.graph): speed_row for speed_row in speeds}
    lines = [f"| items | batch | naive, ms a call | {' | '.join(kinds)} |", "|---" * (3 + len(kinds)) + "|"]
    for items, batch in dict.fromkeys((speed_row.items, speed_row.batch) for speed_row in speeds):
        cells = [
            f"{speed_row.ms:.2f}: {speed_row.gain:.2f} x" for kind in kinds for speed_row in [cell[items, batch, kind]]
        ]
        lines.append(f"| {items:,} | {batch} | {cell[items, batch, NAIVE].ms:.2f} | {' | '.join(cells)} |")
    return lines


def _sameness_table(sames: Sequence[Sameness]) -> list[str]:
    return [
        "| items | graph | same best 20 | largest score difference | sessions that depend on the batch |",
        "|---|---|---|---|---|",
        *(
            f"| {result.items:,} | {result.graph} | {result.same_best:,} of {result.sessions:,} "
            f"| {result.score_difference:.1g} | {result.batch_dependent} |"
            for result in sames
        ),
    ]


if __name__ == "__main__":
    main()
