"""Session neighbours in the graph: find similar training sessions, and the bonuses of their items.

`model.session_neighbours` describes the method and computes the same in numpy. Sums are of whole numbers below 2**24,
so they are exact in float32, and a session gets the same bits in any batch. The logarithm is a reduction of single
numbers: the operator Log computes the odd end of a vector in another way, and where a part of the batch ends depends on
the batch and on the number of threads.

Shapes: B sessions, L padded length, W slots, Q lists, C candidate sessions, T items of a session, k neighbours, E = k T
entries, N explained candidates.
"""

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import RowBonuses
from clickscore.model.session_neighbours import (
    LIST_SESSIONS,
    LISTS,
    NEIGHBOURS,
    SESSION_ITEMS,
    SHARE_SCALE,
    SLOTS,
    SessionIndex,
)

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


class NeighbourNodes(NamedTuple):
    """Names of the tensors of a graph with session neighbours."""

    slots: str
    """Items of the newest events as int32, -1 for padding: (B, W, 1)."""
    weights: str
    """Weights of the slots: (B, W)."""
    decay: str
    """Weight of a neighbour, divided by the similarity: (B, k)."""
    items: str
    """Items of the neighbours: (B, k, T)."""
    bonuses: RowBonuses
    """Bonuses of the distinct items: (B, E)."""


def add_neighbours(graph: GraphBuilder, session_rows: str, last: str, neighbours: SessionIndex) -> NeighbourNodes:
    """Add nodes to find the neighbours of a session.

    Args:
        graph: Builder to add nodes to.
        session_rows: Row of an item at the newest event on the item, 0 elsewhere: (B, L).
        last: Position of the last event: (B, 1, 1).
        neighbours: Index of sessions.
    """
    zero = np.array(0)
    last = graph("Squeeze", last, np.array([2]))  # (B, 1)
    length = graph("Cast", graph("Add", last, np.array(1)), to=FLOAT)  # (B, 1)
    width = graph("Min", graph("Gather", graph("Shape", session_rows), np.array(1)), np.array(SLOTS))
    ages = graph("Range", zero, width, np.array(1))  # (W,)
    position = graph("Sub", last, ages)  # (B, W)
    rows = graph("GatherElements", session_rows, graph("Max", position, zero), axis=1)
    rows = graph("Where", graph("GreaterOrEqual", position, zero), rows, zero)
    is_slot = graph("Greater", rows, zero)
    slots = graph("Cast", graph("Where", is_slot, rows, np.array(-1)), to=INT32)
    slots = graph("Unsqueeze", slots, np.array([2]))  # (B, W, 1)
    weights = graph("Sub", length, graph("Cast", ages, to=FLOAT))  # (B, W)

    # Candidates: the newest sessions of the newest items
    newness = graph("Where", is_slot, graph("Sub", np.array(SLOTS), ages), zero)
    list_count = graph("Unsqueeze", graph("Min", width, np.array(LISTS)), np.array([0]))
    _, newest = graph.top_k(newness, list_count)  # (B, Q): ages
    listed = graph("Unsqueeze", graph("GatherElements", rows, newest, axis=1), np.array([2]))  # (B, Q, 1)
    steps = np.arange(1, LIST_SESSIONS + 1)
    index = graph("Sub", graph("Gather", neighbours.ends, listed), steps)  # (B, Q, sessions of a list)
    is_session = graph("LessOrEqual", steps, graph("Gather", neighbours.counts, listed))
    index = graph("Where", is_session, index, np.array(len(neighbours.sessions) - 1))
    sessions = graph("Gather", neighbours.sessions, index)  # (B, Q, sessions of a list)

    # Similarity; a candidate counts in the list of its newest common item alone
    table = graph.add_constant(neighbours.items, "session_items")
    items = graph("Reshape", graph("Gather", table, sessions), np.array([0, 1, -1]))  # (B, 1, C T)
    common = graph("Cast", graph("Equal", items, slots), to=FLOAT)  # (B, W, C T)
    weighted = graph("MatMul", graph("Unsqueeze", weights, np.array([1])), common)  # (B, 1, C T)
    weighted = graph("Reshape", weighted, np.array([0, -1, LIST_SESSIONS, SESSION_ITEMS]))
    newest_common = graph("ReduceMax", weighted, np.array([3]), keepdims=0)  # (B, Q, sessions of a list)
    expected = graph("Unsqueeze", graph("Sub", length, graph("Cast", newest, to=FLOAT)), np.array([2]))  # (B, Q, 1)
    similarity = graph("ReduceSum", weighted, np.array([3]), keepdims=0)
    similarity = graph("Where", graph("Equal", newest_common, expected), similarity, np.float32(0))
    similarity, nearest = graph.top_k(graph("Reshape", similarity, np.array([0, -1])), NEIGHBOURS)  # (B, k)

    newest_common = graph("GatherElements", graph("Reshape", newest_common, np.array([0, -1])), nearest, axis=1)
    decay = graph("Sub", newest_common, graph("Sub", length, np.float32(SLOTS)))
    decay = graph("Where", graph("Greater", similarity, np.float32(0)), decay, np.float32(0))
    weight = graph("Mul", similarity, decay)  # (B, k)
    nearest = graph("GatherElements", graph("Reshape", sessions, np.array([0, -1])), nearest, axis=1)
    items = graph("Gather", table, nearest)  # (B, k, T)
    is_item = graph("Greater", items, np.int32(0))
    values = graph("Where", is_item, graph("Unsqueeze", weight, np.array([2])), np.float32(0))  # (B, k, T)
    rows, values = (graph("Reshape", part, np.array([0, -1])) for part in (items, values))  # (B, E)
    rows, sums = _sum_by_row(graph, graph("Cast", rows, to=INT64), values)
    total = graph("Max", graph("ReduceSum", weight, np.array([1])), np.float32(1))  # (B, 1)
    shares = graph("Mul", graph("Div", sums, total), np.float32(SHARE_SCALE))
    one_more = graph("Unsqueeze", graph("Add", shares, np.float32(1)), np.array([2]))  # (B, E, 1)
    logarithms = graph("ReduceLogSum", one_more, np.array([2]), keepdims=0)  # (B, E)
    bonuses = RowBonuses(rows, graph("Mul", logarithms, np.float32(neighbours.factor)))
    return NeighbourNodes(slots, weights, decay, items, bonuses)


def _sum_by_row(graph: GraphBuilder, rows: str, values: str) -> tuple[str, str]:
    """Return the distinct rows and the sums of the values, row 0 and sum 0 elsewhere: (B, E) and (B, E).

    A table of the catalogue for every session would cost more time than the ranking. So entries are sorted by row, and
    an entry adds the values of the entries 1, 2, 4 ... places earlier, if the rows are equal. A row has at most an
    entry a neighbour, so the last entry of a row then has the sum.

    Args:
        graph: Builder to add nodes to.
        rows: Rows of the entries: (B, E).
        values: Values of the entries, 0 for row 0: (B, E).
    """
    rows, order = graph.top_k(rows, NEIGHBOURS * SESSION_ITEMS, largest=False)
    sums = graph("GatherElements", values, order, axis=1)
    axis = np.array([1])
    distance = 1
    while distance < NEIGHBOURS:
        shift = np.array([0, distance, 0, 0]), np.array([0]), np.array([-distance])
        earlier_rows, earlier = (
            graph("Pad", graph("Slice", part, *shift[1:], axis), shift[0]) for part in (rows, sums)
        )
        is_same = graph("Equal", rows, earlier_rows)
        sums = graph("Add", sums, graph("Where", is_same, earlier, np.float32(0)))
        distance *= 2
    later = graph(
        "Pad", graph("Slice", rows, np.array([1]), np.array([NEIGHBOURS * SESSION_ITEMS]), axis), np.array([0, 0, 0, 1])
    )
    is_repeated = graph("Equal", rows, later)
    return graph("Where", is_repeated, np.array(0), rows), graph("Where", is_repeated, np.float32(0), sums)


def add_neighbour_reasons(graph: GraphBuilder, nodes: NeighbourNodes, rows: str) -> tuple[str, str]:
    """Return the bonuses of items, (B, 1, N), and the parts of the newest events in the bonuses, (B, W, N).

    A bonus is divided among the events by their parts in the weight of the neighbours with the item.

    Args:
        graph: Builder to add nodes to.
        nodes: Neighbours.
        rows: Rows of the items: (B, 1, N).
    """
    flat = graph("Reshape", nodes.items, np.array([0, 1, -1]))  # (B, 1, E)
    common = graph("Cast", graph("Equal", flat, nodes.slots), to=FLOAT)  # (B, W, E)
    common = graph("Reshape", common, np.array([0, 0, -1, SESSION_ITEMS]))
    common = graph("ReduceMax", common, np.array([3]), keepdims=0)  # (B, W, k)
    parts = graph(
        "Mul", graph("Unsqueeze", nodes.weights, np.array([2])), graph("Unsqueeze", nodes.decay, np.array([1]))
    )
    parts = graph("Unsqueeze", graph("Mul", common, parts), np.array([3]))  # (B, W, k, 1)
    parts = graph("Expand", parts, np.array([1, 1, 1, SESSION_ITEMS]))
    parts = graph("Reshape", parts, np.array([0, 0, -1]))  # (B, W, E)
    entries = graph("Cast", graph("Reshape", nodes.items, np.array([0, -1, 1])), to=INT64)  # (B, E, 1)
    parts = graph("MatMul", parts, graph("Cast", graph("Equal", entries, rows), to=FLOAT))  # (B, W, N)
    distinct, bonuses = (graph("Unsqueeze", part, np.array([2])) for part in nodes.bonuses)  # (B, E, 1)
    bonuses = graph("Where", graph("Equal", distinct, rows), bonuses, np.float32(0))  # (B, E, N)
    bonuses = graph("ReduceMax", bonuses, np.array([1]))  # (B, 1, N)
    sums = graph("Max", graph("ReduceSum", parts, np.array([1])), np.float32(1))  # (B, 1, N)
    return bonuses, graph("Mul", parts, graph("Div", bonuses, sums))
