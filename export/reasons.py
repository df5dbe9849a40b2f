"""Reasons: by how much each event of a session raised the scores of the best candidates, as an output made on demand.

ONNX Runtime computes every output of a graph, fetched or not. So the input `explained` says of how many candidates
reasons are wanted. It is 0 where nobody feeds it; then what is here is a branch that is not taken.

N is how many candidates are explained.
"""

import numpy as np
from onnx import TensorProto

from clickscore.export.session_graph import SessionGraph
from clickscore.schemas.manifest import EXPLAINED, REASONS


def add_reasons(body: SessionGraph, table: str, of_items: str, x: str, vectors: str) -> None:
    """Add the output `reasons`, as `SessionTransformer.reasons` has it: (B, N, L).

    Args:
        body: Of a graph with the outputs `rows` and `scores` in it.
        table: The vectors of all items: (V, D).
        of_items: The vectors of the session's items: (B, L, D).
        x: What the last block reads: (B, L, D).
        vectors: The session vectors: (B, L, D).
    """
    graph = body.graph
    explained = graph.add_default_input(EXPLAINED, np.array([0]))  # (1,)

    def none() -> str:
        batch, length = (graph("Gather", graph("Shape", "items"), np.array([axis])) for axis in (0, 1))
        return graph("ConstantOfShape", graph("Concat", batch, np.array([0]), length, axis=0))  # (B, 0, L)

    def some() -> str:
        return _reasons(body, table, of_items, x, vectors)

    is_wanted = graph("Greater", explained, np.array(0))
    graph("If", is_wanted, then_branch=graph.build_branch(some), else_branch=graph.build_branch(none), name=REASONS)


def _reasons(body: SessionGraph, table: str, of_items: str, x: str, vectors: str) -> str:
    """Return what the events brought to the best of the candidates: (B, N, L)."""
    graph, last, nothing = body.graph, body.read.last, np.array(0)
    rows, whole = (
        graph("Unsqueeze", graph("Slice", of, np.array([0]), EXPLAINED, np.array([1])), np.array([1]))
        for of in ("rows", "scores")
    )  # (B, 1, N) each
    left_out = graph("Unsqueeze", body.at, np.array([1]))  # (L, 1): each event in its turn

    # Without the last event the one before it asks; all others are asked by the last. What is left out is not seen.
    before = graph("Sub", last, graph("Cast", graph("Equal", left_out, last), to=TensorProto.INT64))  # (B, L, 1)
    asks = graph("Max", before, nothing)
    has_others = graph("Greater", last, nothing)  # (B, 1, 1)
    hidden = graph("And", graph("Equal", left_out, body.at), has_others)  # (L, L) -> (B, L, L)
    place = graph("Where", hidden, nothing, body.places(graph("Sub", asks, body.at)))  # (B, L, L)
    asking = body.session_vectors(x, place, asks)  # (B, L, D)
    wanted = body.readout(vectors, of_items, asking, place)  # (B, L, D)

    of_rows = graph("Gather", table, graph("Squeeze", rows, np.array([1])))  # (B, N, D)
    without = graph("MatMul", wanted, graph("Transpose", of_rows, perm=(0, 2, 1)))  # (B, L, N)
    named, added = body.repeats(asking, place)  # (B, L, L) each
    added = graph("Where", graph("Greater", named, nothing), added, np.float32(0))
    is_on = graph("Equal", graph("Unsqueeze", body.read.items, np.array([2])), rows)  # (B, L, N)
    added = graph("MatMul", added, graph("Cast", is_on, to=TensorProto.FLOAT))
    without = graph("Where", has_others, graph("Add", without, added), np.float32(0))  # an only event brings it all
    reasons = graph("Where", graph("LessOrEqual", left_out, last), graph("Sub", whole, without), np.float32(0))
    if body.read.place:
        at = graph("Unsqueeze", body.read.place, np.array([2]))  # (B, L, 1); -1 takes the last, which is struck out
        reasons = graph("GatherND", reasons, at, batch_dims=1)
        reasons = graph("Where", graph("Less", at, nothing), np.float32(0), reasons)
    return graph("Transpose", reasons, perm=(0, 2, 1))
