"""Reasons: what each event of a session brings to the scores of the best candidates, as an output made on demand.

ONNX Runtime computes every output of a graph, fetched or not. So the input `explained` says of how many candidates
reasons are wanted; it is 0 where nobody feeds it, and then these nodes have nothing to work on.
"""

from typing import NamedTuple

import numpy as np

from export.graph import Graph


class Speakers(NamedTuple):
    """What the events that the Transformer reads bring to a score."""

    of_items: str
    """The vectors of their items: (B, L, D)."""
    shares: str
    """How much of these is in the wanted vector: (B, 1, L)."""
    repeated: str
    """Row of the item that an event is the last on, else 0: (B, L)."""
    added: str
    """What is added to the score of that item: (B, L)."""


def add_reasons(graph: Graph, table: str, by: Speakers, place: str = "") -> None:
    """Add the output `reasons`: (B, N, L), N of `explained`.

    Args:
        graph: With the output `rows` in it.
        table: The vectors of all items: (V, D).
        by: What speaks.
        place: Of each event that is fed, where it stands among those that are read, -1 for one that is not: (B, L).
            None where all are read.
    """
    explained = graph.default("explained", np.array([0]))  # (1,)
    rows = graph("Slice", "rows", np.array([0]), explained, np.array([1]))  # (B, N)
    vectors = graph("Transpose", graph("Gather", table, rows), perm=(0, 2, 1))  # (B, N, D) -> (B, D, N)
    reasons = graph("MatMul", by.of_items, vectors)  # (B, L, N)
    reasons = graph("Mul", reasons, graph("Transpose", by.shares, perm=(0, 2, 1)))
    is_repeat = graph("Equal", graph("Unsqueeze", by.repeated, np.array([2])), graph("Unsqueeze", rows, np.array([1])))
    repeats = graph("Where", is_repeat, graph("Unsqueeze", by.added, np.array([2])), np.float32(0))  # (B, L, N)
    reasons = graph("Add", reasons, repeats)
    if place:
        at = graph("Unsqueeze", place, np.array([2]))  # (B, L, 1); -1 takes the last one, which is struck out
        reasons = graph("GatherND", reasons, at, batch_dims=1)  # (B, L, N)
        reasons = graph("Where", graph("Less", at, np.array(0)), np.float32(0), reasons)
    graph("Transpose", reasons, perm=(0, 2, 1), name="reasons")
