"""Session graph: the nodes from a session's events to its query vector, method by method as in `model.transformer`.

The next item's score is the dot product of the query vector with an item vector, plus the repeat bonus of an item that
the session has had.

Shapes: B sessions, L padded length, Q query events, D dim, H heads, M max_length, V rows of the item table, S
trainings.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import ItemTable
from clickscore.model.config import REPEAT_STEP, ModelConfig

LAYER_NORM_EPSILON = 1e-5  # torch's default in LayerNorm
MIN_NORM = 1e-12  # torch's default in normalize
NOT_THE_LAST = 1024
"""Added to an event's repeat count for each later event on its item: above every count, and exact in float32."""

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Arrays by the names of `SessionTransformer.state_dict()`, and the finished item table as `table`."""


class InputEvents(NamedTuple):
    """Names of the tensors of the Transformer's events, left-aligned."""

    items: str
    """Rows of the items: (B, L)."""
    actions: str
    """Codes of the actions: (B, L)."""
    last: str
    """Position of the last event: (B, 1, 1)."""
    known_count: str = ""
    """Number of events on known items, (B, 1); empty where each session has at least one."""
    positions: str = ""
    """New position of each event of the session, -1 for a left-out event: (B, L). Empty where all stay."""


def read_all_events(graph: GraphBuilder) -> InputEvents:
    """Return the input events of a graph whose sessions hold only known items."""
    last = graph("Unsqueeze", graph("Sub", "lengths", np.array(1)), np.array([1, 2]))
    return InputEvents("items", "actions", last)


def read_known_events(graph: GraphBuilder) -> InputEvents:
    """Return the input events of a graph that also gets searches and unknown items.

    The events on known items move to the left and keep their order; the others become padding.
    """
    is_known = graph("Greater", "items", np.array(0))  # (B, L)
    length = graph("Slice", graph("Shape", "items"), np.array([1]), np.array([2]))  # (1,)
    # Sort keys (L,): L, L - 1, ..., 1. Multiplied by `is_known` they are 0 for the events that are left out.
    keys = graph("Sub", length, graph("Range", np.array(0), graph("Squeeze", length), np.array(1)))
    order = graph("Mul", graph("Cast", is_known, to=TensorProto.INT64), keys)  # (B, L)
    _, sources = graph.top_k(order, length)
    items, actions = (
        graph("GatherElements", graph("Where", is_known, values, np.array(0)), sources, axis=1)
        for values in ("items", "actions")
    )
    counted = graph("Cast", is_known, to=TensorProto.INT64)  # (B, L)
    known_count = graph("ReduceSum", counted, np.array([1]))  # (B, 1)
    # position = is_known * cumulative sum of is_known - 1: (B, L)
    positions = graph("Sub", graph("Mul", graph("CumSum", counted, np.array(1)), counted), np.array(1))
    last = graph("Sub", graph("Max", known_count, np.array([1])), np.array([1]))
    return InputEvents(items, actions, graph("Unsqueeze", last, np.array([2])), known_count, positions)


class SessionGraph:
    """Nodes of one graph from the events to the query vector, the repeat bonuses and the logits of the heads.

    A relative-position table starts with one more entry, for events later than the query event: the attention bias of
    a later event is -inf. One Gather by `distance + 1`, clipped to 0..M, is then relative position and causal mask.
    """

    item_vectors: str
    """Item vectors of the session: (B, L, D)."""
    block_input: str
    """Input of the last block: (B, L, D)."""
    vectors: str
    """Session vectors after each event: (B, L, D)."""
    last_vector: str
    """Session vector after the last event, which is the query event of the scores: (B, 1, D)."""

    def __init__(
        self,
        graph: GraphBuilder,
        weights: Weights,
        config: ModelConfig,
        events: InputEvents,
        table: ItemTable,
        *,
        training: int = 0,
    ) -> None:
        """Add the nodes up to the session vectors.

        Args:
            graph: Builder to add nodes to.
            weights: Weights of the model.
            config: Shape of the model.
            events: Input events of the Transformer.
            table: Item table, with the vectors of each training beside each other: (V, S D).
            training: Number of the training whose vectors are read, from 0.
        """
        self.graph = graph
        self.weights = weights
        self.config = config
        self.events = events
        self.table = table
        self.training = training
        length = graph("Gather", graph("Shape", "items"), np.array(1))
        self.positions = graph("Range", np.array(0), length, np.array(1))  # (L,)
        # distance = position of the query event - position of the other: (1, L, 1) - (L,) -> (1, L, L)
        distance = graph("Sub", graph("Unsqueeze", self.positions, np.array([0, 2])), self.positions)
        self.offsets = self.table_offsets(distance)  # (1, L, L)
        self.last_offsets = self.table_offsets(graph("Sub", events.last, self.positions))  # (B, 1, L)
        self.item_vectors = self.look_up(events.items)
        self.block_input = self.embed_events()
        self.vectors = self.session_vectors()
        self.last_vector = graph("GatherND", self.vectors, events.last, batch_dims=1)

    def table_offsets(self, distance: str) -> str:
        """Return the index into relative-position tables for each distance, 0 for a later event: of the same shape."""
        graph, max_length = self.graph, self.config.max_length
        return graph("Clip", graph("Add", distance, np.array(1)), np.array(0), np.array(max_length))

    def look_up(self, rows: str) -> str:
        """Return the vectors of items: (B, n) -> (B, n, D)."""
        vectors, dim = self.graph("Gather", self.table.name, rows), self.config.dim  # (B, n, S D)
        if self.table.vectors.shape[1] == dim:
            return vectors
        start = self.training * dim
        return self.graph("Slice", vectors, np.array([start]), np.array([start + dim]), np.array([2]))

    def embed_events(self) -> str:
        """Return the input of the last block: (B, L, D)."""
        graph = self.graph
        # x = sqrt(D) * item + action: item vectors have length 1, the layers expect components of about 1
        x = graph("Mul", self.item_vectors, np.float32(self.config.dim**0.5))
        x = graph("Add", x, graph("Gather", self.weights["action.weight"], self.events.actions))
        for layer in range(self.config.layers - 1):
            x = self.add_block(layer, x, self.offsets)
        return x

    def session_vectors(self, offsets: str = "", query_index: str = "") -> str:
        """Return the session vectors after the query events: (B, Q, D).

        Args:
            offsets: Table offsets, as in `add_block`.
            query_index: Positions of the query events, as in `add_block`.
        """
        last_block = self.add_block(self.config.layers - 1, self.block_input, offsets or self.offsets, query_index)
        return self.layer_norm("norm", last_block)

    def add_block(self, layer: int, x: str, offsets: str, query_index: str = "") -> str:
        """Add a pre-norm Transformer block and return its output for the query events: (B, Q, D).

        Args:
            layer: Number of the block, from 0.
            x: Input: (B, L, D).
            offsets: Table offsets of each event for each query event, 0 where the event is masked: (1 or B, Q, L).
            query_index: Positions of the query events, (B, Q, 1); each event is one where this is empty.
        """
        block = f"blocks.{layer}"
        query = normed = self.layer_norm(f"{block}.norm_attention", x)
        if query_index:
            query, x = (self.graph("GatherND", values, query_index, batch_dims=1) for values in (normed, x))
        x = self.graph("Add", x, self.attend(f"{block}.attention", normed, query, offsets))
        hidden = self.graph("Gelu", self.linear(f"{block}.ffn_in", self.layer_norm(f"{block}.norm_ffn", x)))
        return self.graph("Add", x, self.linear(f"{block}.ffn_out", hidden))

    def attend(self, attention: str, x: str, query: str, offsets: str) -> str:
        """Add multi-head attention and return its output for the query events: (B, Q, D).

        softmax(query key^T / sqrt(D / H) + bias[distance]) value, with a learned bias per relative position and head
        (Shaw, Uszkoreit and Vaswani, "Self-attention with relative position representations", 2018, in the scalar form
        of T5).

        Args:
            attention: Prefix of the weights' names.
            x: Normalised events: (B, L, D).
            query: Normalised query events: (B, Q, D).
            offsets: Table offsets, as in `add_block`.
        """
        graph, dim, heads = self.graph, self.config.dim, self.config.heads
        query = self.linear(f"{attention}.query", query)
        key = self.linear(f"{attention}.key_value", x, slice(0, dim))
        value = self.linear(f"{attention}.key_value", x, slice(dim, 2 * dim))
        table = _prepend_later_events(self.weights[f"{attention}.distance"].T, -np.inf)  # (H, M + 1)
        bias = graph("Transpose", graph("Gather", table, offsets, axis=1), perm=(1, 0, 2, 3))  # (1 or B, H, Q, L)
        gathered = graph("Attention", query, key, value, bias, q_num_heads=heads, kv_num_heads=heads)
        return self.linear(f"{attention}.output", gathered)

    def query_vectors(self, query: str, offsets: str) -> str:
        """Add the item attention pooling and return the query vector after each query event: (B, Q, D).

        The query vector is the attention-weighted mean of the session's item vectors plus a linear map of the session
        vector, at unit length, divided by the temperature (the representation-consistent readout of CORE: Hou, Hu,
        Zhang and Zhao, SIGIR 2022).

        Args:
            query: Session vectors of the query events: (B, Q, D).
            offsets: Table offsets, as in `add_block`.
        """
        graph = self.graph
        readout_query = self.readout_query(query)
        logits = graph("MatMul", readout_query, graph("Transpose", self.vectors, perm=(0, 2, 1)))  # (B, Q, L)
        table = _prepend_later_events(self.weights["readout.distance"][:, 0], -np.inf)
        logits = graph("Add", logits, graph("Gather", table, offsets))
        shares = graph("Softmax", logits, axis=-1)
        pooled = graph("MatMul", shares, self.item_vectors)  # (B, Q, L) x (B, L, D) -> (B, Q, D)
        pooled = graph("Add", pooled, graph("MatMul", query, self.weights["readout.own.weight"].T))
        norm = graph("Max", graph("ReduceL2", pooled, np.array([2])), np.float32(MIN_NORM))  # (B, Q, 1)
        return graph("Div", graph("Div", pooled, norm), np.float32(self.config.temperature))

    def readout_query(self, query: str) -> str:
        """Return the vectors whose products with session vectors are the readout's logits: (B, Q, D) -> (B, Q, D).

        (Q h + q) (K h_i + k) equals (Q h + q) K h_i plus a term that is the same for all i, and a softmax ignores such
        a term. So the keys K h_i are folded into the query and are never computed.
        """
        query_weight, key = self.weights["readout.query.weight"], self.weights["readout.key.weight"]
        scale = self.config.dim**-0.5
        bias = scale * (self.weights["readout.query.bias"] @ key)
        return self.graph("Add", self.graph("MatMul", query, scale * (query_weight.T @ key)), bias)

    def repeat_bonuses(self, query: str, offsets: str) -> tuple[str, str]:
        """Return the rows of the session, and the bonuses of the scores: (B, Q, L) each.

        bonus = table[distance to the item's last event][number of earlier events on the item] + readiness . query.
        A row appears once, at the last visible event on the item; the other events name row 0, which is no item.

        Args:
            query: Session vectors of the query events: (B, Q, D).
            offsets: Table offsets, as in `add_block`.
        """
        graph, distances = self.graph, np.arange(self.config.max_length)
        visible = graph("Greater", offsets, np.array(0))  # (B, Q, L)
        items = graph("Unsqueeze", self.events.items, np.array([1]))  # (B, 1, L)
        same = graph("Equal", graph("Unsqueeze", self.events.items, np.array([2])), items)  # (B, L, L)
        # weight of an event for another: 0 for itself, 1 for an earlier one, NOT_THE_LAST for a later one
        counts = _prepend_later_events(np.minimum(distances, 1).astype(np.float32), NOT_THE_LAST)
        counts = graph("Gather", counts, graph("Transpose", self.offsets, perm=(0, 2, 1)))  # (1, L, L): row for column
        counts = graph("Mul", graph("Cast", same, to=TensorProto.FLOAT), counts)
        # Earlier visible events on the item. Whole numbers, so exact in any order: (B, Q, L) x (B, L, L)
        times = graph("MatMul", graph("Cast", visible, to=TensorProto.FLOAT), counts)

        table = self.weights["repeats.table"]  # (distances, times)
        rows, columns = table.shape
        # The flat index of a cell: min(distance, rows - 1) * columns + min(times, columns - 1).
        starts = _prepend_later_events(np.minimum(distances, rows - 1).astype(np.float32) * columns, 0)
        cell = graph("Add", graph("Gather", starts, offsets), graph("Min", times, np.float32(columns - 1)))
        bonus = graph("Gather", table.ravel() * REPEAT_STEP, graph("Cast", cell, to=TensorProto.INT64))

        readiness = graph("Mul", query, self.weights["repeats.readiness.weight"])  # (B, Q, D)
        readiness = graph("ReduceSum", readiness, np.array([2]))  # (B, Q, 1)
        bonus = graph("Add", bonus, graph("Add", readiness, self.weights["repeats.readiness.bias"]))
        is_last = graph("And", visible, graph("Less", times, np.float32(NOT_THE_LAST)))
        return graph("Where", is_last, items, np.array(0)), bonus

    def linear(self, layer: str, x: str, rows: slice = slice(None)) -> str:
        """Add a linear layer and return its output: (B, Q, in) -> (B, Q, out).

        Args:
            layer: Prefix of the weights' names.
            x: Input.
            rows: Slice of the output features, all by default.
        """
        weight, bias = self.weights[f"{layer}.weight"][rows], self.weights[f"{layer}.bias"][rows]
        return self.graph("Add", self.graph("MatMul", x, weight.T), bias)

    def layer_norm(self, norm: str, x: str) -> str:
        """Add a layer normalisation and return its output, of the same shape."""
        scale, bias = self.weights[f"{norm}.weight"], self.weights[f"{norm}.bias"]
        return self.graph("LayerNormalization", x, scale, bias, epsilon=LAYER_NORM_EPSILON)

    def head_logits(self, vector: str) -> str:
        """Return the logits of the five next actions and of a purchase: (B, D) -> (B, 6)."""
        weight, bias = (
            np.concatenate((self.weights[f"next_action.{part}"], self.weights[f"purchase.{part}"]))
            for part in ("weight", "bias")
        )
        return self.graph("Gemm", vector, weight, bias, transB=1)


def divide_scores(weights: Weights, config: ModelConfig, count: int) -> tuple[Weights, ModelConfig]:
    """Return weights and config of a model with the scores divided by a number.

    Args:
        weights: Weights of the model.
        config: Shape of the model.
        count: Number to divide by.
    """
    repeats = {name: array / np.float32(count) for name, array in weights.items() if name.startswith("repeats.")}
    return {**weights, **repeats}, dataclasses.replace(config, temperature=config.temperature * count)


def _prepend_later_events(by_distance: npt.NDArray[np.float32], value: float) -> npt.NDArray[np.float32]:
    """Return a relative-position table with one more entry in front, for events later than the query event.

    Args:
        by_distance: Table whose last axis is the distance: (..., M).
        value: Entry for later events.
    """
    later = np.full((*by_distance.shape[:-1], 1), value, np.float32)
    return np.concatenate((later, by_distance), axis=-1)
