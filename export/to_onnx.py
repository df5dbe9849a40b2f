"""ONNX export: write the model as a graph from sessions to candidates, node by node.

The graph scores the next item after the last event only, and the scores of the catalogue never leave the graph. Input,
readout and scores read the same finished item table: neighbours folded in, at unit length. The graph is
batch-invariant, which means that a session's outputs have the same bits in any batch of the same width: no node mixes
sessions, and each row of an operator is computed with a shape that does not depend on the number of rows.

The graph is written by hand instead of traced. The code is short, states exactly each operator, and takes milliseconds
(see `docs/decisions/0015-the-graph-is-written-by-hand.md`). `export.parity` compares the graph with the PyTorch model
at each export. `export.session_graph` reads the session, and `export.ranking` ranks the catalogue.

Shapes: B sessions, L padded length, D dim, V rows of the item table, K candidates, S trainings.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.errors import ExportError
from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import BlockwiseTopK, Bonuses, ItemTable, Ranking, RowBonuses
from clickscore.export.reasons import add_reasons
from clickscore.export.session_graph import SessionGraph, Weights, divide_scores, read_all_events, read_known_events
from clickscore.export.session_neighbours_graph import add_neighbours
from clickscore.model.config import MIN_ACTION_PROBABILITY, ModelConfig
from clickscore.model.session_neighbours import SessionIndex
from clickscore.schemas.manifest import NEXT_ACTIONS

MAX_BYTES = 2**31  # protobuf's limit for one ONNX file

AddStack = Callable[[GraphBuilder], str]
"""Adds the nodes of a stack and returns the name of the logits: (B, 6)."""


def to_onnx(
    weights: Weights,
    config: ModelConfig,
    candidates: int = CANDIDATES,
    add_stack: AddStack | None = None,
    ranking: Ranking | None = None,
    *,
    neighbours: SessionIndex | None = None,
    mean_with: Sequence[Weights] = (),
) -> bytes:
    """Return the ONNX file of a model, with the inputs and outputs of `schemas.manifest`.

    Args:
        weights: Weights of the model.
        config: Shape of the model.
        candidates: Number of candidates per session; all items where the catalogue has fewer.
        add_stack: Adds the logits of a stack; the graph then also reads searches and events on unknown items.
        ranking: Way to find the candidates, `BlockwiseTopK` by default.
        neighbours: Index of sessions whose items get bonuses; None for a graph without.
        mean_with: Weights of other trainings of the same shape and items. The scores are the mean over all trainings,
            and the probabilities are of `weights` alone.

    Raises:
        ExportError: The model is larger than an ONNX file can be.
    """
    too_large = "the model is larger than the 2 GB of an ONNX file: take fewer items (min_count) or a smaller dim"
    trainings = (weights, *mean_with)
    if sum(array.nbytes for part in trainings for array in part.values()) >= MAX_BYTES:
        raise ExportError(too_large)
    rows, ranking = len(weights["table"]), ranking or BlockwiseTopK()
    candidates = min(candidates, rows - 1)
    multiple = ranking.row_multiple(rows, candidates)
    vectors = np.concatenate([part["table"] for part in trainings], axis=1)  # (V, S D)
    padded = np.pad(vectors, ((0, -rows % multiple if multiple else 0), (0, 0)))
    graph = GraphBuilder()
    table = ItemTable(graph.add_constant(padded, "table"), padded, rows)
    events = read_known_events(graph) if add_stack else read_all_events(graph)
    sessions = [
        SessionGraph(graph, *divide_scores(part, config, len(trainings)), events, table, training=number)
        for number, part in enumerate(trainings)
    ]
    logits = sessions[0].head_logits(graph("Squeeze", sessions[0].last_vector, np.array([1])))
    if add_stack:
        # Without a known item the heads say nothing: their logits become 0, and the stack's logits remain.
        has_known = graph("Min", events.known_count, np.array([1]))  # (B, 1)
        logits = graph("Mul", logits, graph("Cast", has_known, to=TensorProto.FLOAT))
        logits = graph("Add", logits, add_stack(graph))
    add_action_probabilities(graph, logits)
    add_purchase(graph, logits)
    query_vectors = [session.query_vectors(session.last_vector, session.last_offsets) for session in sessions]
    query = functools.reduce(functools.partial(graph, "Concat", axis=2), query_vectors)  # (B, 1, S D)
    repeats = [session.repeat_bonuses(session.last_vector, session.last_offsets) for session in sessions]
    (repeated, *_), repeat_bonuses = zip(*repeats, strict=True)  # (B, 1, L) each; every training has the same rows
    total = functools.reduce(functools.partial(graph, "Add"), repeat_bonuses)
    own = RowBonuses(*(graph("Squeeze", values, np.array([1])) for values in (repeated, total)))
    similar = add_neighbours(graph, own.rows, events.last, neighbours) if neighbours else None
    bonuses = Bonuses(own, similar and similar.bonuses)
    ranking.add_outputs(graph, table, graph("Squeeze", query, np.array([1])), bonuses, candidates)
    add_reasons(sessions, neighbours=similar)
    model = graph.serialize(candidates)
    if len(model) >= MAX_BYTES:
        raise ExportError(too_large)
    return model


def add_action_probabilities(graph: GraphBuilder, logits: str) -> None:
    """Add the output `action_probabilities` for logits (B, 6); no action falls below the lower limit.

    A ReduceSum over a single row may add in another order than over many. LpNormalization divides each row by its sum,
    row by row.
    """
    action_logits = graph("Slice", logits, np.array([0]), np.array([len(NEXT_ACTIONS)]), np.array([1]))
    limited = graph("Max", graph("Softmax", action_logits, axis=-1), np.float32(MIN_ACTION_PROBABILITY))  # (B, 5)
    graph("LpNormalization", limited, axis=1, p=1, name="action_probabilities")


def add_purchase(graph: GraphBuilder, logits: str) -> None:
    """Add the output `purchase` for logits (B, 6).

    The logistic function of z is written as softmax(0, z)[1], which ONNX Runtime computes session by session. A Sigmoid
    over the batch as one vector may treat the vector's end in another way, and then a bit depends on the batch.
    """
    actions = len(NEXT_ACTIONS)
    purchase_logit = graph("Slice", logits, np.array([actions]), np.array([actions + 1]), np.array([1]))  # (B, 1)
    pair = graph("Softmax", graph("Mul", purchase_logit, np.array([[0, 1]], dtype=np.float32)), axis=-1)  # (B, 2)
    graph("Gather", pair, np.array(1), axis=1, name="purchase")  # (B,)
