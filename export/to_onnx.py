"""To ONNX: the model as a graph that reads a session and returns candidates, written node by node.

The graph answers for the last event alone, and the scores of the catalogue never leave it. The item table is the
finished one: neighbours folded in, at unit length, read by input, readout and scores alike. Nothing in it mixes the
sessions of a batch, and every row of an operator is computed with a shape that does not depend on how many rows there
are: so an answer has the same bits in any batch of the same width.

Written by hand instead of traced: that is short, says exactly what is computed, and takes milliseconds (see
`docs/decisions/graph-by-hand.md`). `export.parity` compares it with the PyTorch model at each export. What reads the
session is in `export.session_graph`, what ranks the catalogue in `export.ranking`.

Shapes: B sessions, L padded length, D dim, H heads, V rows of the item table, K candidates.
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import BlockwiseTopK, ItemTable, Ranking, RepeatBonuses
from clickscore.export.reasons import add_reasons
from clickscore.export.session_graph import SessionGraph, Weights, events_as_given, known_events
from clickscore.model.config import ModelConfig
from clickscore.model.errors import TrainingError
from clickscore.schemas.manifest import NEXT_ACTIONS

CANDIDATES = 64
"""Items that a graph returns by default: a policy may drop most of them and still fill a list."""
MAX_BYTES = 2**31  # what one ONNX file can hold: protobuf's limit

Beside = Callable[[GraphBuilder], str]


def to_onnx(
    weights: Weights,
    config: ModelConfig,
    candidates: int = CANDIDATES,
    beside: Beside | None = None,
    ranking: Ranking | None = None,
) -> bytes:
    """Return the graph of `schemas.manifest` for a model.

    Args:
        weights: The model's weights.
        config: The model's shape.
        candidates: Items that it returns a session; all where the catalogue has fewer.
        beside: Adds what answers beside the heads and returns its logits (B, 6); with it the graph reads every event.
        ranking: What finds the candidates; `BlockwiseTopK` where none is given.

    Raises:
        TrainingError: The model is larger than an ONNX file can be.
    """
    too_large = "the model is larger than the 2 GB of an ONNX file: take fewer items (min_count) or a smaller dim"
    if sum(array.nbytes for array in weights.values()) >= MAX_BYTES:
        raise TrainingError(too_large)
    rows, ranking = len(weights["table"]), ranking or BlockwiseTopK()
    candidates = min(candidates, rows - 1)
    block = ranking.block(rows, candidates)
    vectors = np.pad(weights["table"], ((0, -rows % block if block else 0), (0, 0)))
    graph = GraphBuilder()
    catalogue = ItemTable(graph.add_constant(vectors, "table"), vectors, rows)  # (V, D)
    body = SessionGraph(graph, weights, config, known_events(graph) if beside else events_as_given(graph))
    of_items, x = body.before_last_block(catalogue.table)  # (B, L, D) each
    vectors = body.session_vectors(x)  # (B, L, D)
    vector = graph("GatherND", vectors, body.read.last, batch_dims=1)  # (B, 1, D)
    logits = body.logits(graph("Squeeze", vector, np.array([1])))
    if beside:
        has_known = graph("Min", body.read.known, np.array([1]))  # (B, 1)
        logits = graph("Mul", logits, graph("Cast", has_known, to=TensorProto.FLOAT))
        logits = graph("Add", logits, beside(graph))
    probabilities(graph, logits)
    wanted = body.readout(vectors, of_items, vector, body.place_of_last)  # (B, 1, D)
    repeats = body.repeats(vector, body.place_of_last)  # (B, 1, L) each
    session = RepeatBonuses(*(graph("Squeeze", of, np.array([1])) for of in repeats))
    ranking.add(graph, catalogue, graph("Squeeze", wanted, np.array([1])), session, candidates)
    add_reasons(body, catalogue.table, of_items, x, vectors)
    model = graph.serialize(candidates)
    if len(model) >= MAX_BYTES:
        raise TrainingError(too_large)
    return model


def probabilities(graph: GraphBuilder, logits: str) -> None:
    """Add the outputs `action_probabilities` and `purchase`.

    The logistic function of z is written as the softmax of (0, z): that is computed a session at a time, while an
    operator on the batch as one vector may treat its end differently, so that a bit would depend on the batch.
    """
    actions = len(NEXT_ACTIONS)
    of_actions = graph("Slice", logits, np.array([0]), np.array([actions]), np.array([1]))
    graph("Softmax", of_actions, axis=-1, name="action_probabilities")  # (B, 5)
    of_purchase = graph("Slice", logits, np.array([actions]), np.array([actions + 1]), np.array([1]))  # (B, 1)
    both = graph("Softmax", graph("Mul", of_purchase, np.array([[0, 1]], dtype=np.float32)), axis=-1)  # (B, 2)
    graph("Gather", both, np.array(1), axis=1, name="purchase")  # (B,)
