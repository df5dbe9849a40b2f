"""To ONNX: the model as a graph that reads a session and returns candidates, written node by node.

The graph answers for the last event alone, and the scores of the catalogue never leave it. The item table is the
finished one: neighbours folded in, at unit length, read by input, readout and scores alike. Nothing in it mixes the
sessions of a batch, and every row of an operator is computed with a shape that does not depend on how many rows there
are: so an answer has the same bits in any batch of the same width.

Written by hand instead of traced: that is short, says exactly what is computed, and takes milliseconds (see
`docs/decisions/graph-by-hand.md`). `export.parity` compares it with the PyTorch model at each export.

Shapes: B sessions, L padded length, D dim, H heads, V rows of the item table, K candidates.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from export.graph import Graph
from export.reasons import add_reasons
from model.config import REPEAT_STEP, ModelConfig
from model.errors import TrainingError
from schemas.manifest import NEXT_ACTIONS

CANDIDATES = 64
"""Items that a graph returns by default: a policy may drop most of them and still fill a list."""
MAX_BYTES = 2**31  # what one ONNX file can hold: protobuf's limit
EPSILON = 1e-5  # torch's LayerNorm
SHORTEST = 1e-12  # torch's normalize

Beside = Callable[[Graph], str]

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Arrays by the names of `SessionTransformer.state_dict()`, and the finished item table as `table`."""


def to_onnx(weights: Weights, config: ModelConfig, candidates: int = CANDIDATES, beside: Beside | None = None) -> bytes:
    """Return the graph of `schemas.manifest` for a model.

    Args:
        weights: The model's weights.
        config: The model's shape.
        candidates: Items that it returns a session; all where the catalogue has fewer.
        beside: Adds what answers beside the heads and returns its logits (B, 6); with it the graph reads every event.

    Raises:
        TrainingError: The model is larger than an ONNX file can be.
    """
    if sum(array.nbytes for array in weights.values()) >= MAX_BYTES:
        message = "the model is larger than the 2 GB of an ONNX file: take fewer items (min_count) or a smaller dim"
        raise TrainingError(message)
    rows = len(weights["table"])
    candidates = min(candidates, rows - 1)
    block = block_size(rows, candidates)
    graph = Graph()
    table = graph.constant(_padded(weights["table"], block), "table")  # (V, D)

    body = Body(graph, weights, config, _known_events(graph) if beside else _Read("items", "actions", "lengths"))
    of_items, x = body.before_last_block(table)  # (B, L, D) each
    vectors = body.session_vectors(x)  # (B, L, D)
    vector = graph("GatherND", vectors, body.last, batch_dims=1)  # (B, 1, D)
    logits = body.logits(graph("Squeeze", vector, np.array([1])))
    if beside:
        has_known = graph("Min", body.read.known, np.array([1]))  # (B, 1)
        logits = graph("Mul", logits, graph("Cast", has_known, to=TensorProto.FLOAT))
        logits = graph("Add", logits, beside(graph))
    probabilities(graph, logits)
    wanted = graph("Squeeze", body.readout(vectors, of_items, vector, body.behind_last), np.array([1]))  # (B, D)
    added = graph("Squeeze", body.repeats(vector, body.behind_last), np.array([1]))  # (B, L)
    scores = graph("Gemm", wanted, table, transB=1)  # (B, D) x (D, V) -> (B, V)
    scores = graph("ScatterElements", scores, body.read.items, added, axis=1, reduction="add")
    if block:
        top_of_blocks(graph, scores, rows, block, candidates)
    else:
        top(graph, scores, candidates)
    add_reasons(body, table, of_items, x, vectors)
    return graph.serialized(candidates)


class _Read(NamedTuple):
    """The events that the Transformer reads, left-aligned."""

    items: str
    actions: str
    lengths: str
    """At least 1."""
    known: str = ""
    """How many are on known items, where that can be 0: (B, 1)."""
    place: str = ""
    """Of each event of the session, where it stands here, -1 for one that does not: (B, L). None where all do."""


def _known_events(graph: Graph) -> _Read:
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
    lengths = graph("Squeeze", graph("Max", number, np.array([1])), np.array([1]))
    return _Read(items, actions, lengths, number, place)


class Body:
    """The graph up to the scores, method by method as `model.transformer` has it."""

    def __init__(self, graph: Graph, weights: Weights, config: ModelConfig, read: _Read) -> None:
        self.graph = graph
        self.weights = weights
        self.config = config
        self.read = read
        length = graph("Gather", graph("Shape", "items"), np.array(1))
        self.at = graph("Range", np.array(0), length, np.array(1))  # (L,)
        self.last = graph("Unsqueeze", graph("Sub", read.lengths, np.array(1)), np.array([1, 2]))  # (B, 1, 1)
        self.behind = graph("Sub", graph("Unsqueeze", self.at, np.array([0, 2])), self.at)  # (1, L, 1) - (L,)
        self.behind_last = graph("Sub", self.last, self.at)  # (B, 1, L)

    def before_last_block(self, table: str) -> tuple[str, str]:
        """Return the vectors of the items, and what the last block reads: (B, L, D) each."""
        graph = self.graph
        of_items = graph("Gather", table, self.read.items)  # (B, L, D)
        x = graph("Mul", of_items, np.float32(self.config.dim**0.5))
        x = graph("Add", x, graph("Gather", self.weights["action.weight"], self.read.actions))
        for layer in range(self.config.layers - 1):
            x = self.block(layer, x, self.behind)
        return of_items, x

    def session_vectors(self, x: str, behind: str = "", place: str = "") -> str:
        """Return the session vectors after the events that ask, (B, Q, D): all as `block` takes them."""
        return self.norm("norm", self.block(self.config.layers - 1, x, behind or self.behind, place))

    def block(self, layer: int, x: str, behind: str, place: str = "") -> str:
        """Return what becomes of the events that ask: (B, Q, D).

        Args:
            layer: Its number.
            x: What the events bring: (B, L, D).
            behind: How far each event lies behind those that ask, below 0 where it is not seen: (1 or B, Q, L).
            place: Where those that ask stand: (B, Q, 1); each asks where there is none.
        """
        block = f"blocks.{layer}"
        asking = normed = self.norm(f"{block}.norm_attention", x)
        if place:
            asking, x = (self.graph("GatherND", of, place, batch_dims=1) for of in (normed, x))
        x = self.graph("Add", x, self.attention(f"{block}.attention", normed, asking, behind))
        hidden = self.graph("Gelu", self.linear(f"{block}.ffn_in", self.norm(f"{block}.norm_ffn", x)))
        return self.graph("Add", x, self.linear(f"{block}.ffn_out", hidden))

    def attention(self, attention: str, x: str, asking: str, behind: str) -> str:
        """Return what each event that asks gathers from those that it sees: (B, Q, D)."""
        graph, dim, heads = self.graph, self.config.dim, self.config.heads
        by_head = np.array([0, -1, heads, dim // heads])
        query = graph("Reshape", self.linear(f"{attention}.query", asking), by_head)
        query = graph("Transpose", query, perm=(0, 2, 1, 3))  # (B, Q, H, D/H) -> (B, H, Q, D/H)
        key = graph("Reshape", self.linear(f"{attention}.key_value", x, slice(0, dim)), by_head)
        key = graph("Transpose", key, perm=(0, 2, 3, 1))  # (B, L, H, D/H) -> (B, H, D/H, L)
        value = graph("Reshape", self.linear(f"{attention}.key_value", x, slice(dim, 2 * dim)), by_head)
        value = graph("Transpose", value, perm=(0, 2, 1, 3))  # (B, L, H, D/H) -> (B, H, L, D/H)

        bias = graph("Transpose", self.by_distance(f"{attention}.distance", behind), perm=(0, 3, 1, 2))  # (.., H, Q, L)
        unseen = graph("Unsqueeze", graph("Less", behind, np.array(0)), np.array([1]))  # (1 or B, 1, Q, L)
        bias = graph("Where", unseen, np.float32(-np.inf), bias)
        logits = graph("Mul", graph("MatMul", query, key), np.float32((dim // heads) ** -0.5))  # (B, H, Q, L)
        shares = graph("Softmax", graph("Add", logits, bias), axis=-1)
        gathered = graph("Transpose", graph("MatMul", shares, value), perm=(0, 2, 1, 3))  # (B, Q, H, D/H)
        return self.linear(f"{attention}.output", graph("Reshape", gathered, np.array([0, -1, dim])))

    def by_distance(self, distance: str, behind: str) -> str:
        """Return what distance adds to a weight's logarithm: (1 or B, Q, L) -> (1 or B, Q, L, H)."""
        near = self.graph("Clip", behind, np.array(0), np.array(self.config.max_length - 1))
        return self.graph("Gather", self.weights[distance], near)

    def readout(self, vectors: str, of_items: str, asking: str, behind: str) -> str:
        """Return the wanted vector after each event that asks: (B, Q, D).

        Args:
            vectors: The session vectors: (B, L, D).
            of_items: The vectors of the items: (B, L, D).
            asking: The session vectors that ask: (B, Q, D).
            behind: As `block` takes it.
        """
        graph = self.graph
        query, key = self.linear("readout.query", asking), self.linear("readout.key", vectors)  # (B, Q, D), (B, L, D)
        logits = graph("MatMul", query, graph("Transpose", key, perm=(0, 2, 1)))  # (B, Q, L)
        logits = graph("Mul", logits, np.float32(self.config.dim**-0.5))
        bias = graph("Squeeze", self.by_distance("readout.distance", behind), np.array([3]))  # (B, Q, L)
        bias = graph("Where", graph("Less", behind, np.array(0)), np.float32(-np.inf), bias)
        shares = graph("Softmax", graph("Add", logits, bias), axis=-1)
        mixed = graph("MatMul", shares, of_items)  # (B, Q, L) x (B, L, D) -> (B, Q, D)
        wanted = graph("Add", mixed, graph("MatMul", asking, self.weights["readout.own.weight"].T))
        length = graph("Max", graph("ReduceL2", wanted, np.array([2])), np.float32(SHORTEST))  # (B, Q, 1)
        return graph("Div", graph("Div", wanted, length), np.float32(self.config.temperature))

    def repeats(self, asking: str, behind: str) -> str:
        """Return what each event adds to its item's score: (B, Q, L).

        That is 0 but for the last event on an item that is seen: so each row is named once, and what stands after the
        end, row 0, adds nothing. Counts are sums of products of 0 and 1, exact in any order.

        Args:
            asking: The session vectors that ask: (B, Q, D).
            behind: As `block` takes it.
        """
        graph, items = self.graph, self.read.items
        seen = graph("GreaterOrEqual", behind, np.array(0))  # (B, Q, L)
        same = graph("Equal", graph("Unsqueeze", items, np.array([2])), graph("Unsqueeze", items, np.array([1])))
        before, after = (
            graph("Cast", graph("And", same, graph(order, self.behind, np.array(0))), to=TensorProto.FLOAT)
            for order in ("Less", "Greater")
        )  # (B, L, L): row before column, row after column
        counted = graph("Cast", seen, to=TensorProto.FLOAT)
        times = graph("MatMul", counted, before)  # (B, Q, L): how often the item was there before
        again = graph("MatMul", counted, after)  # (B, Q, L): how often it comes again
        is_last = graph("And", seen, graph("Less", again, np.float32(0.5)))

        of_distance, of_times = self.weights["repeats.table"].shape
        place = graph("Mul", graph("Clip", behind, np.array(0), np.array(of_distance - 1)), np.array(of_times))
        times = graph("Min", graph("Cast", times, to=TensorProto.INT64), np.array(of_times - 1))
        added = graph("Gather", self.weights["repeats.table"].ravel() * REPEAT_STEP, graph("Add", place, times))
        readiness = graph("ReduceSum", graph("Mul", asking, self.weights["repeats.readiness.weight"]), np.array([2]))
        added = graph("Add", added, graph("Add", readiness, self.weights["repeats.readiness.bias"]))
        return graph("Where", is_last, added, np.float32(0))

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


def probabilities(graph: Graph, logits: str) -> None:
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


def block_size(rows: int, candidates: int) -> int:
    """Return how many rows make a block of the two-step top-k, 0 where one step is as quick.

    The first step looks at `rows / size` maxima, the second at `candidates * size` scores: their sum is least at the
    square root of `rows / candidates`. Rounded to a power of two, and at least one vector register of 16: below that,
    which is up to 8,000 items for 64 candidates, two steps were no quicker; at 200,000 items they took 0.6 of the time.
    """
    size = 2 ** round(math.log2(math.sqrt(rows / candidates)))
    return size if size >= 16 else 0


def _padded(table: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Return the table with zero rows after its end up to a multiple of `block`."""
    return np.pad(table, ((0, -len(table) % block if block else 0), (0, 0)))


def top(graph: Graph, scores: str, candidates: int) -> None:
    """Add the outputs `rows` and `scores`: the best columns but column 0, best first, equal ones in order of column."""
    items = graph("Slice", scores, np.array([1]), np.array([np.iinfo(np.int64).max]), np.array([1]))  # (B, V - 1)
    best, at = graph.top_k(items, candidates)  # (B, K)
    graph("Identity", best, name="scores")
    graph("Add", at, np.array(1), name="rows")


def top_of_blocks(graph: Graph, scores: str, rows: int, block: int, candidates: int) -> None:
    """Add the outputs `rows` and `scores` as `top` does, but quicker: the best blocks first, then the best of them.

    Exact. Blocks are contiguous, so what lies outside the K blocks of the largest maxima (equal ones in order of
    block) has K scores before it, each larger, or equal and of a lower row. Rows that are no items score 0, which can
    bring two blocks to the front that do not belong there, the first and the last: so two more are taken, and what is
    no item is struck out. The blocks are put back in order of row, so that TopK's lower index is the lower row.
    """
    no_item = np.zeros(-(-rows // block) * block, dtype=np.float32)  # (V,)
    no_item[0] = no_item[rows:] = -np.inf

    blocks = graph("Reshape", scores, np.array([0, -1, block]))  # (B, V) -> (B, V/block, block)
    maxima = graph("ReduceMax", blocks, np.array([-1]), keepdims=0)  # (B, V/block)
    _, chosen = graph.top_k(maxima, candidates + 2)  # (B, K + 2), best first
    chosen, _ = graph.top_k(chosen, candidates + 2, largest=False)  # (B, K + 2), in order of row
    inside = graph("GatherND", blocks, graph("Unsqueeze", chosen, np.array([2])), batch_dims=1)  # (B, K + 2, block)
    inside = graph("Add", inside, graph("Gather", no_item.reshape(-1, block), chosen))
    flat = graph("Reshape", inside, np.array([0, (candidates + 2) * block]))
    best, at = graph.top_k(flat, candidates)  # (B, K)

    size = np.array(block)
    of_block = graph("GatherElements", chosen, graph("Div", at, size), axis=1)  # (B, K)
    graph("Identity", best, name="scores")
    graph("Add", graph("Mul", of_block, size), graph("Mod", at, size), name="rows")
