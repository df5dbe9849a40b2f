"""Reasons: leave-one-out explanations of the best candidates, as an output that is computed on demand.

An event's reason for a candidate is the candidate's score minus its score with the event left out, plus the event's
part in the bonus by similar sessions. ONNX Runtime computes every output of a graph, whether the caller fetches it or
not. So the input `explained` holds the number of candidates to explain. Without the input the number is 0, and an If
skips the nodes of this file.

Shapes: B sessions, L padded length, D dim, N explained candidates, V rows of the item table.
"""

import functools
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from clickscore.export.session_graph import SessionGraph
from clickscore.export.session_neighbours_graph import NeighbourNodes, add_neighbour_reasons
from clickscore.schemas.manifest import EXPLAINED, REASONS


def add_reasons(sessions: Sequence[SessionGraph], *, neighbours: NeighbourNodes | None = None) -> None:
    """Add the output `reasons` of `SessionTransformer.reasons`: (B, N, L).

    Args:
        sessions: Nodes of each training, whose scores add up, of a graph with the outputs `rows` and `scores`.
        neighbours: Nodes of the session neighbours; None for a graph without.
    """
    graph = sessions[0].graph
    explained = graph.add_default_input(EXPLAINED, np.array([0]))  # (1,)

    def add_nothing() -> str:
        batch, length = (graph("Gather", graph("Shape", "items"), np.array([axis])) for axis in (0, 1))
        return graph("ConstantOfShape", graph("Concat", batch, np.array([0]), length, axis=0))  # (B, 0, L)

    def add_differences() -> str:
        return _add_differences(sessions, neighbours)

    is_requested = graph("Greater", explained, np.array(0))
    graph(
        "If",
        is_requested,
        then_branch=graph.build_branch(add_differences),
        else_branch=graph.build_branch(add_nothing),
        name=REASONS,
    )


def _add_differences(sessions: Sequence[SessionGraph], neighbours: NeighbourNodes | None) -> str:
    """Return the leave-one-out differences of the best candidates' scores, (B, N, L), with the arguments above."""
    session = sessions[0]
    graph, last, zero = session.graph, session.events.last, np.array(0)
    rows, scores = (
        graph("Unsqueeze", graph("Slice", values, np.array([0]), EXPLAINED, np.array([1])), np.array([1]))
        for values in ("rows", "scores")
    )  # (B, 1, N) each
    left_out = graph("Unsqueeze", session.positions, np.array([1]))  # (L, 1): each event in turn

    # The query event is the last one, or its predecessor where the last one is left out: (B, L, 1).
    query_index = graph("Sub", last, graph("Cast", graph("Equal", left_out, last), to=TensorProto.INT64))
    query_index = graph("Max", query_index, zero)
    has_others = graph("Greater", last, zero)  # (B, 1, 1)
    # The left-out event is masked for the query event: offset 0.
    masked = graph("And", graph("Equal", left_out, session.positions), has_others)  # (L, L) -> (B, L, L)
    distance = graph("Sub", query_index, session.positions)
    offsets = graph("Where", masked, zero, session.table_offsets(distance))  # (B, L, L)

    def add_scores(session: SessionGraph) -> str:
        query = session.session_vectors(offsets, query_index)  # (B, L, D)
        queries = session.query_vectors(query, offsets)  # (B, L, D)
        candidates = session.look_up(graph("Squeeze", rows, np.array([1])))  # (B, N, D)
        scores = graph("MatMul", queries, graph("Transpose", candidates, perm=(0, 2, 1)))  # (B, L, N)
        repeated, bonuses = session.repeat_bonuses(query, offsets)  # (B, L, L) each
        bonuses = graph("Where", graph("Greater", repeated, zero), bonuses, np.float32(0))
        is_candidate = graph("Equal", graph("Unsqueeze", session.events.items, np.array([2])), rows)  # (B, L, N)
        bonuses = graph("MatMul", bonuses, graph("Cast", is_candidate, to=TensorProto.FLOAT))
        return graph("Add", scores, bonuses)

    without = functools.reduce(functools.partial(graph, "Add"), map(add_scores, sessions))
    # In a session of one event the event gets the whole score.
    without = graph("Where", has_others, without, np.float32(0))
    # reason = score - score without the event, 0 for padding
    is_event = graph("LessOrEqual", left_out, last)
    reasons = graph("Sub", scores, without)
    if neighbours:
        reasons = graph("Add", reasons, _divide_bonuses(session, neighbours, rows))
    reasons = graph("Where", is_event, reasons, np.float32(0))
    if session.events.positions:
        index = graph("Unsqueeze", session.events.positions, np.array([2]))  # (B, L, 1)
        reasons = graph("GatherND", reasons, index, batch_dims=1)  # index -1 reads the last event
        reasons = graph("Where", graph("Less", index, zero), np.float32(0), reasons)  # and becomes 0 here
    return graph("Transpose", reasons, perm=(0, 2, 1))


def _divide_bonuses(session: SessionGraph, neighbours: NeighbourNodes, rows: str) -> str:
    """Return the parts of the events in the bonuses of items, less the bonuses: (B, L, N).

    Args:
        session: Nodes of the session.
        neighbours: Nodes of the session neighbours.
        rows: Rows of the items: (B, 1, N).
    """
    graph, zero = session.graph, np.array(0)
    bonuses, parts = add_neighbour_reasons(graph, neighbours, rows)  # (B, 1, N) and (B, W, N)
    age = graph("Transpose", graph("Sub", session.events.last, session.positions), perm=(0, 2, 1))  # (B, L, 1)
    is_slot = graph("Less", age, graph("Gather", graph("Shape", parts), np.array(1)))
    slot = graph("Where", is_slot, graph("Max", age, zero), zero)  # an age below 0 is of padding, which gets 0 later
    parts = graph("GatherND", parts, slot, batch_dims=1)
    return graph("Sub", graph("Where", is_slot, parts, np.float32(0)), bonuses)
