"""Body: the graph from a session's events to what it wants, method by method as `model.transformer` has it.

Shapes: B sessions, L padded length, Q events that ask, D dim, H heads, V rows of the item table.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.model.config import REPEAT_STEP, ModelConfig

EPSILON = 1e-5  # torch's LayerNorm
SHORTEST = 1e-12  # torch's normalize
NOT_THE_LAST = 1024
"""Added to an event's count of earlier ones on its item for each later one."""

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Arrays by the names of `SessionTransformer.state_dict()`, and the finished item table as `table`."""


class Read(NamedTuple):
    """The events that the Transformer reads, left-aligned."""

    items: str
    actions: str
    last: str
    """Where the last of them is: (B, 1, 1)."""
    known: str = ""
    """How many are on known items, where that can be 0: (B, 1)."""
    place: str = ""
    """Of each event of the session, where it stands here, -1 for one that does not: (B, L). None where all do."""


def events_as_given(graph: GraphBuilder) -> Read:
    """Return the events of sessions that hold nothing but known items."""
    last = graph("Unsqueeze", graph("Sub", "lengths", np.array(1)), np.array([1, 2]))
    return Read("items", "actions", last)


def known_events(graph: GraphBuilder) -> Read:
    """Return the events on known items of sessions that hold others, too: moved to the left, in their order."""
    known = graph("Greater", "items", np.array(0))  # (B, L)
    length = graph("Slice", graph("Shape", "items"), np.array([1]), np.array([2]))  # (1,)
    first = graph("Sub", length, graph("Range", np.array(0), graph("Squeeze", length), np.array(1)))  # (L,): L, ..., 1
    order = graph("Mul", graph("Cast", known, to=TensorProto.INT64), first)  # 0 for the others
    _, at = graph.top_k(order, length)
    items, actions = (
        graph("GatherElements", graph("Where", known, values, np.array(0)), at, axis=1)
        for values in ("items", "actions")
    )
    counted = graph("Cast", known, to=TensorProto.INT64)  # (B, L)
    number = graph("ReduceSum", counted, np.array([1]))  # (B, 1)
    place = graph("Sub", graph("Mul", graph("CumSum", counted, np.array(1)), counted), np.array(1))  # (B, L)
    last = graph("Sub", graph("Max", number, np.array([1])), np.array([1]))
    return Read(items, actions, graph("Unsqueeze", last, np.array([2])), number, place)


class SessionGraph:
    """The graph up to the scores.

    What depends on distance alone is a table that starts one place early, with what holds for events to come: one
    Gather by `behind + 1` is then bias and mask at once.
    """

    def __init__(self, graph: GraphBuilder, weights: Weights, config: ModelConfig, read: Read) -> None:
        self.graph = graph
        self.weights = weights
        self.config = config
        self.read = read
        length = graph("Gather", graph("Shape", "items"), np.array(1))
        self.at = graph("Range", np.array(0), length, np.array(1))  # (L,)
        behind = graph("Sub", graph("Unsqueeze", self.at, np.array([0, 2])), self.at)  # (1, L, 1) - (L,) -> (1, L, L)
        self.place = self.places(behind)  # (1, L, L)
        self.place_of_last = self.places(graph("Sub", read.last, self.at))  # (B, 1, L)

    def places(self, behind: str) -> str:
        """Return where tables by distance have events that lie so far behind, of the same shape."""
        return self.graph("Clip", self.graph("Add", behind, np.array(1)), np.array(0), np.array(self.config.max_length))

    def before_last_block(self, table: str) -> tuple[str, str]:
        """Return the vectors of the items, and what the last block reads: (B, L, D) each."""
        graph = self.graph
        of_items = graph("Gather", table, self.read.items)  # (B, L, D)
        x = graph("Mul", of_items, np.float32(self.config.dim**0.5))
        x = graph("Add", x, graph("Gather", self.weights["action.weight"], self.read.actions))
        for layer in range(self.config.layers - 1):
            x = self.block(layer, x, self.place)
        return of_items, x

    def session_vectors(self, x: str, place: str = "", asking: str = "") -> str:
        """Return the session vectors after the events that ask, (B, Q, D): all as `block` takes them."""
        return self.norm("norm", self.block(self.config.layers - 1, x, place or self.place, asking))

    def block(self, layer: int, x: str, place: str, asking: str = "") -> str:
        """Return what becomes of the events that ask: (B, Q, D).

        Args:
            layer: Its number.
            x: What the events bring: (B, L, D).
            place: Where tables by distance have each event for those that ask, 0 where it is not seen: (1 or B, Q, L).
            asking: Which events ask: (B, Q, 1); each does where none are named.
        """
        block = f"blocks.{layer}"
        query = normed = self.norm(f"{block}.norm_attention", x)
        if asking:
            query, x = (self.graph("GatherND", of, asking, batch_dims=1) for of in (normed, x))
        x = self.graph("Add", x, self.attention(f"{block}.attention", normed, query, place))
        hidden = self.graph("Gelu", self.linear(f"{block}.ffn_in", self.norm(f"{block}.norm_ffn", x)))
        return self.graph("Add", x, self.linear(f"{block}.ffn_out", hidden))

    def attention(self, attention: str, x: str, asking: str, place: str) -> str:
        """Return what each event that asks gathers from those that it sees: (B, Q, D)."""
        graph, dim, heads = self.graph, self.config.dim, self.config.heads
        query = self.linear(f"{attention}.query", asking)
        key = self.linear(f"{attention}.key_value", x, slice(0, dim))
        value = self.linear(f"{attention}.key_value", x, slice(dim, 2 * dim))
        distance = _with_those_to_come(self.weights[f"{attention}.distance"].T, -np.inf)  # (H, M + 1)
        bias = graph("Transpose", graph("Gather", distance, place, axis=1), perm=(1, 0, 2, 3))  # (1 or B, H, Q, L)
        gathered = graph("Attention", query, key, value, bias, q_num_heads=heads, kv_num_heads=heads)
        return self.linear(f"{attention}.output", gathered)

    def readout(self, vectors: str, of_items: str, asking: str, place: str) -> str:
        """Return the wanted vector after each event that asks: (B, Q, D).

        Args:
            vectors: The session vectors: (B, L, D).
            of_items: The vectors of the items: (B, L, D).
            asking: The session vectors that ask: (B, Q, D).
            place: As `block` takes it.
        """
        graph = self.graph
        logits = graph("MatMul", self.asked(asking), graph("Transpose", vectors, perm=(0, 2, 1)))  # (B, Q, L)
        distance = _with_those_to_come(self.weights["readout.distance"][:, 0], -np.inf)
        logits = graph("Add", logits, graph("Gather", distance, place))
        shares = graph("Softmax", logits, axis=-1)
        mixed = graph("MatMul", shares, of_items)  # (B, Q, L) x (B, L, D) -> (B, Q, D)
        wanted = graph("Add", mixed, graph("MatMul", asking, self.weights["readout.own.weight"].T))
        length = graph("Max", graph("ReduceL2", wanted, np.array([2])), np.float32(SHORTEST))  # (B, Q, 1)
        return graph("Div", graph("Div", wanted, length), np.float32(self.config.temperature))

    def asked(self, asking: str) -> str:
        """Return what the readout's logits are products of session vectors with: (B, Q, D) -> (B, Q, D).

        (Q h + q) (K h_i + k) is (Q h + q) K h_i and something that is the same for all i, which a softmax does not see:
        so the keys need not be made for every event.
        """
        query, key = self.weights["readout.query.weight"], self.weights["readout.key.weight"]
        scale = self.config.dim**-0.5
        bias = scale * (self.weights["readout.query.bias"] @ key)
        return self.graph("Add", self.graph("MatMul", asking, scale * (query.T @ key)), bias)

    def repeats(self, asking: str, place: str) -> tuple[str, str]:
        """Return rows that the session has had, and what is added to their scores: (B, Q, L) each.

        A row is named once, by the last event on it that is seen; the other events name row 0, which is no item.

        Args:
            asking: The session vectors that ask: (B, Q, D).
            place: As `block` takes it.
        """
        graph, at_most = self.graph, np.arange(self.config.max_length)
        seen = graph("Greater", place, np.array(0))  # (B, Q, L)
        items = graph("Unsqueeze", self.read.items, np.array([1]))  # (B, 1, L)
        same = graph("Equal", graph("Unsqueeze", self.read.items, np.array([2])), items)  # (B, L, L)
        counts = _with_those_to_come(np.minimum(at_most, 1).astype(np.float32), NOT_THE_LAST)  # 0 for an event itself
        counts = graph("Gather", counts, graph("Transpose", self.place, perm=(0, 2, 1)))  # (1, L, L): row for column
        counts = graph("Mul", graph("Cast", same, to=TensorProto.FLOAT), counts)
        # Earlier events on the item. Whole numbers, so exact in any order: (B, Q, L) x (B, L, L)
        times = graph("MatMul", graph("Cast", seen, to=TensorProto.FLOAT), counts)

        table = self.weights["repeats.table"]  # (distances, times)
        of_distance, of_times = table.shape
        cells = _with_those_to_come(np.minimum(at_most, of_distance - 1).astype(np.float32) * of_times, 0)
        cell = graph("Add", graph("Gather", cells, place), graph("Min", times, np.float32(of_times - 1)))
        added = graph("Gather", table.ravel() * REPEAT_STEP, graph("Cast", cell, to=TensorProto.INT64))

        readiness = graph("Mul", asking, self.weights["repeats.readiness.weight"])  # (B, Q, D)
        readiness = graph("ReduceSum", readiness, np.array([2]))  # (B, Q, 1)
        added = graph("Add", added, graph("Add", readiness, self.weights["repeats.readiness.bias"]))
        is_last = graph("And", seen, graph("Less", times, np.float32(NOT_THE_LAST)))
        return graph("Where", is_last, items, np.array(0)), added

    def linear(self, layer: str, x: str, of: slice = slice(None)) -> str:
        """Return a linear layer's output, or a slice of it: (B, Q, in) -> (B, Q, out)."""
        weight, bias = self.weights[f"{layer}.weight"][of], self.weights[f"{layer}.bias"][of]
        return self.graph("Add", self.graph("MatMul", x, weight.T), bias)

    def norm(self, norm: str, x: str) -> str:
        """Return normalised input, of the same shape."""
        scale, bias = self.weights[f"{norm}.weight"], self.weights[f"{norm}.bias"]
        return self.graph("LayerNormalization", x, scale, bias, epsilon=EPSILON)

    def logits(self, vector: str) -> str:
        """Return the logits of the next actions, then of a purchase: (B, D) -> (B, 6)."""
        weight, bias = (
            np.concatenate((self.weights[f"next_action.{part}"], self.weights[f"purchase.{part}"]))
            for part in ("weight", "bias")
        )
        return self.graph("Gemm", vector, weight, bias, transB=1)


def _with_those_to_come(by_distance: npt.NDArray[np.float32], to_come: float) -> npt.NDArray[np.float32]:
    """Return a table whose last axis is distance, with a value for events that are yet to come in front."""
    before = np.full((*by_distance.shape[:-1], 1), to_come, np.float32)
    return np.concatenate((before, by_distance), axis=-1)
