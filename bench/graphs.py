"""Graphs: what an export's graphs take for a call, beside the naive one, and whether they say the same.

The naive graph scores every item in float32, then takes ONNX's own TopK, and every session is padded to 20 events; the
others get what a worker gives them, calls of sessions of one width. All have the same body. One thread each.

    python -m bench.graphs --items 50000 --batch 1 --batch 32
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
import msgspec
import numpy as np
import onnxruntime as ort

from bench.machine import machine
from clickscore.export.random_bundle import random_weights
from clickscore.export.ranking import BlockwiseTopK, ExactTopK, QuantisedShortlist, Ranking
from clickscore.export.to_onnx import to_onnx
from clickscore.model.config import ModelConfig
from clickscore.model.onnx_runtime import open_graph
from clickscore.stream.scoring.scorer import WIDTHS

MODEL = ModelConfig(dim=64, layers=2, max_length=20)
BEST = 20
NAIVE = "naive"
KINDS: dict[str, Ranking] = {NAIVE: ExactTopK(), "fp32": BlockwiseTopK(), "int8": QuantisedShortlist()}
LENGTHS = np.array(
    [
        *(0.2741, 0.1672, 0.1155, 0.0818, 0.0625, 0.0489, 0.0388, 0.0309, 0.0250, 0.0204),
        *(0.0169, 0.0143, 0.0122, 0.0103, 0.0088, 0.0077, 0.0066, 0.0058, 0.0052, 0.0471),
    ]
)
"""Share of beginnings with 1, 2, ..., 20 or more events, in the test file of Yoochoose 1/64."""
OUTPUTS = ["rows", "scores", "action_probabilities", "purchase"]
TURN_SECONDS = 0.4
"""How long a graph runs before the next one does: long enough for its table to be where the processor has it."""
COMPANY = (1, 2, 3, 8, 31, 64)

Feeds = dict[str, np.ndarray]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """A graph at one batch."""

    items: int
    batch: int
    graph: str
    ms: float
    """A call takes, the median by width, weighed by how many sessions have it."""
    gain: float
    """The naive graph's time by its own."""


class Sameness(msgspec.Struct, frozen=True, kw_only=True):
    """A graph's answers beside the naive one's."""

    items: int
    graph: str
    sessions: int
    same_best: int
    """Sessions with the same best 20 in the same order."""
    score_difference: float
    """The largest, place by place."""
    other_bits_in_company: int
    """Sessions of 64 a width whose answer had other bits in some batch of 1 to 64."""


@click.command()
@click.option("--items", multiple=True, type=int, default=(10_000, 50_000, 200_000, 1_000_000), show_default=True)
@click.option("--batch", multiple=True, type=int, default=(1, 8, 32, 64), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of each graph.")
@click.option("--sessions", type=int, default=10_000, show_default=True, help="Whose answers are compared.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure to this file."
)
def main(*, items: Sequence[int], batch: Sequence[int], rounds: int, sessions: int, file: Path | None) -> None:
    """Measure the graphs of an export at several catalogues and batches, and print tables in Markdown."""
    speeds: list[Speed] = []
    sames: list[Sameness] = []
    for count in items:
        graphs = opened(count)
        for size in batch:
            speeds += speed(graphs, count, size, rounds)
            click.echo(f"  {count:,} items, batch {size}: {speeds[-1].gain:.2f} x", err=True)
        sames += sameness(graphs, count, sessions)
    facts = machine()
    click.echo("\n".join([*_speed_table(speeds), "", *_sameness_table(sames), ""]))
    click.echo(f"{facts['processor']}; {facts['system']}. {facts['packages']}. Commit {facts['commit']}.")
    if file:
        file.write_bytes(msgspec.json.encode({"machine": facts, "speed": speeds, "sameness": sames}))


def opened(items: int) -> dict[str, ort.InferenceSession]:
    """Return each kind of graph, with the same random weights, on one thread."""
    weights = random_weights(MODEL, items)
    return {kind: open_graph(to_onnx(weights, MODEL, BEST, ranking=ranking)) for kind, ranking in KINDS.items()}


def speed(graphs: dict[str, ort.InferenceSession], items: int, batch: int, rounds: int) -> list[Speed]:
    """Return what a call of each graph takes, measured in turns."""
    rng = np.random.default_rng(batch)
    by_width = [(share, drawn(rng, items, batch, shortest, width)) for share, shortest, width in _widths()]
    padded = [(1.0, drawn(rng, items, batch, 1, WIDTHS[-2]))]
    taken: dict[str, list[list[float]]] = {kind: [[] for _ in by_width] for kind in graphs}
    for _ in range(rounds):
        for kind, graph in graphs.items():
            calls = padded if kind == NAIVE else by_width
            for (_, feeds), times in zip(calls, taken[kind], strict=False):
                end = time.perf_counter() + TURN_SECONDS / len(calls)
                while (began := time.perf_counter()) < end or len(times) < 3:
                    graph.run(OUTPUTS, feeds)
                    times.append(time.perf_counter() - began)
    ms = {
        kind: 1e3 * sum(share * median(times) for (share, _), times in zip(calls, taken[kind], strict=False))
        for kind in graphs
        for calls in [padded if kind == NAIVE else by_width]
    }
    return [Speed(items=items, batch=batch, graph=kind, ms=took, gain=ms[NAIVE] / took) for kind, took in ms.items()]


def sameness(graphs: dict[str, ort.InferenceSession], items: int, sessions: int) -> list[Sameness]:
    """Return how the answers of each graph but the naive one compare with its."""
    rng = np.random.default_rng(0)
    every = [
        drawn(rng, items, 64, shortest, width)
        for share, shortest, width in _widths()
        for _ in range(math.ceil(share * sessions / 64))
    ]
    naive = [graphs[NAIVE].run(OUTPUTS[:2], feeds) for feeds in every]
    found: list[Sameness] = []
    for kind in graphs.keys() - {NAIVE}:
        same, apart = 0, 0.0
        for feeds, (rows, scores) in zip(every, naive, strict=True):
            own_rows, own_scores = graphs[kind].run(OUTPUTS[:2], feeds)
            same += int((own_rows == rows).all(axis=1).sum())
            apart = max(apart, float(np.abs(own_scores - scores).max()))
        alone = sum(_other_bits(graphs[kind], drawn(rng, items, 64, low, width)) for _, low, width in _widths())
        found.append(
            Sameness(
                items=items,
                graph=kind,
                sessions=64 * len(every),
                same_best=same,
                score_difference=apart,
                other_bits_in_company=alone,
            )
        )
    return sorted(found, key=lambda one: one.graph)


def drawn(rng: np.random.Generator, items: int, batch: int, shortest: int, width: int) -> Feeds:
    """Return sessions of views of random items, whose lengths are as frequent as in `LENGTHS`, padded to a width."""
    shares = LENGTHS[shortest - 1 : width]
    lengths = rng.choice(np.arange(shortest, width + 1), batch, p=shares / shares.sum())
    real = np.arange(width) < lengths[:, None]  # (batch, width)
    rows = (rng.integers(1, items + 1, (batch, width)) * real).astype(np.int64)
    return {"items": rows, "actions": real.astype(np.int64), "lengths": lengths.astype(np.int64)}


def _widths() -> list[tuple[float, int, int]]:
    """Return each width that sessions of up to 20 events are padded to: its share, and its shortest session."""
    ends = [width for width in WIDTHS if width <= len(LENGTHS)]
    return [
        (float(LENGTHS[before:width].sum()), before + 1, width) for before, width in zip([0, *ends], ends, strict=False)
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
    kinds = [kind for kind in KINDS if kind != NAIVE]
    cell = {(one.items, one.batch, one.graph): one for one in speeds}
    lines = [f"| items | batch | naive, ms a call | {' | '.join(kinds)} |", "|---" * (3 + len(kinds)) + "|"]
    for items, batch in dict.fromkeys((one.items, one.batch) for one in speeds):
        told = [f"{one.ms:.2f}: {one.gain:.2f} x" for kind in kinds for one in [cell[items, batch, kind]]]
        lines.append(f"| {items:,} | {batch} | {cell[items, batch, NAIVE].ms:.2f} | {' | '.join(told)} |")
    return lines


def _sameness_table(sames: Sequence[Sameness]) -> list[str]:
    return [
        "| items | graph | same best 20 | scores apart, at most | other bits in company |",
        "|---|---|---|---|---|",
        *(
            f"| {one.items:,} | {one.graph} | {one.same_best:,} of {one.sessions:,} | {one.score_difference:.1g} "
            f"| {one.other_bits_in_company} |"
            for one in sames
        ),
    ]


if __name__ == "__main__":
    main()
