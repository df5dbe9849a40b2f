"""Quantised shortlist: find candidates by 8-bit products, and prove that they are the best items in float32.

The proof: items and queries become whole numbers of steps. The vector e of an item is (e' + epsilon) / t, and the query
q is (q' + delta) / s. So

    q . e = (q' . e' + q' . epsilon + delta . (e' + epsilon)) / (s t),

and by Cauchy and Schwarz an item that is missing on the list has at most the score

    (lowest q' . e' on the list + |q'| max |epsilon| + |delta| max |e' + epsilon|) / (s t).

Where the last candidate's score is not above this bound, the session is scored again with the whole catalogue. The
session's own items are always scored, so a missing item has no bonus.

The ranking is the function `BestItems` of the graph, with standard operators inside. Where the operator of
`model/best_items.c` is installed, ONNX Runtime takes it instead.

Shapes: B sessions, L padded length, D dim, W padded dim, V rows of the item table, K candidates, S items of a list.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import (
    BlockwiseTopK,
    Bonuses,
    ItemTable,
    Ranking,
    RowBonuses,
    add_bonuses,
    block_size,
    join_bonuses,
    score_rows,
    top_k_by_blocks,
)

NOT_AN_ITEM = -(2**30)
"""Integer bonus of a row that is no item: far below every integer score, and no sum with it leaves int32."""
QUERY_STEPS = 63
"""Quantisation steps of a query on each side of 0, which is 7 bits: with 8 bits the sum of two products can exceed the
16 bits in which AVX2 adds them."""
ITEM_STEPS = 127
"""Quantisation steps of an item vector on each side of 0: all of int8."""
KERNEL_ITEMS, CHUNK = 16, 64
"""Items and dimensions that the native operator takes at once, as in `model/best_items.c`."""
QUANTISED_AT_ONCE = 65_536
"""Rows that are quantised at once: a few MB of numbers."""
FLOAT_ERROR = 2.0**-22
"""Bound on the error of each of a float32 product's additions, relative to the lengths: four times the rounding error,
because the bound is computed in float32, too."""
SMALLEST = np.float32(1e-30)
"""Length that stands for 0, so that a query of zeros has a scale, too."""


@dataclass(frozen=True)
class QuantisedShortlist:
    """Find a shortlist with 8-bit integer products, and score only the shortlist and the session's items in float32.

    Integer sums are exact and each query has its own scale, so a result is batch-invariant. The items share one scale:
    with a scale per item each sum would need one more multiplication.
    """

    spare: int = 32
    """Items on the list beside four for each candidate and one for each event. With this many, the proof held for 99 of
    100 sessions of 64 dimensions and 200,000 random items; fewer items only cost time."""

    def row_multiple(self, rows: int, candidates: int) -> int:
        """Return 0, since the quantised table is a separate constant; for a small catalogue as `BlockwiseTopK` does.

        Args:
            rows: Rows of the item table.
            candidates: Number of candidates, K.
        """
        return 0 if self._has_shortlist(rows, candidates) else BlockwiseTopK().row_multiple(rows, candidates)

    def add_outputs(self, graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses, candidates: int) -> None:
        """Add the outputs, as in `Ranking`.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            query: Query vectors: (B, D).
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        if not self._has_shortlist(table.rows, candidates):
            BlockwiseTopK().add_outputs(graph, table, query, bonuses, candidates)
            return
        minimum = self._minimum(candidates)
        block = max(block_size(table.rows, minimum), KERNEL_ITEMS)
        items = quantise_items(table.vectors[: table.rows], block)
        mask = np.zeros((len(items.steps) // block, block), dtype=np.int32)
        mask.flat[0] = mask.flat[table.rows :] = NOT_AN_ITEM
        own = join_bonuses(graph, bonuses)
        inputs = {
            "query": query,
            "own_rows": own.rows,
            "own_bonuses": own.bonuses,
            "table": table.name,
            "table_in_8_bits": graph.add_constant(items.in_blocks(), "table_in_8_bits"),
            "offsets": items.offsets(),
            "mask": mask,
            "measures": np.array(items.measures(), dtype=np.float32),
            "counts": np.array([candidates, minimum, table.rows]),
        }
        function = _BestItems(items, (len(mask), block), table.rows, candidates, minimum)
        graph.call_function("BestItems", inputs, function.build, ("scores", "rows"))

    def _minimum(self, candidates: int) -> int:
        """Return the length of the list of a session without events."""
        return max(4 * candidates + self.spare, candidates)

    def _has_shortlist(self, rows: int, candidates: int) -> bool:
        return rows - 1 > self._minimum(candidates)


RANKINGS: dict[str, Ranking] = {"fp32": BlockwiseTopK(), "int8": QuantisedShortlist()}
"""Rankings by their precision, the number format of the product with the whole catalogue."""


class _BestItems(NamedTuple):
    """The function `BestItems` in standard operators. It does not read `offsets`, `measures` and `counts`."""

    items: "QuantisedItems"
    """Quantised item table."""
    blocks: tuple[int, int]
    """Number of blocks of the search, and rows per block."""
    rows: int
    """Number of items plus 1."""
    candidates: int
    """Number of candidates, K."""
    minimum: int
    """Length of the list of a session without events."""

    def build(self, graph: GraphBuilder) -> tuple[str, str]:
        """Return the outputs `scores` and `rows` of the function: (B, K) each.

        Args:
            graph: Builder of the function.
        """
        shortlist, bound = self._add_shortlist(graph)  # (B, S), (B, 1)
        # Sort by row; TopK is stable, so the session's mention of an item comes before the shortlist's. A row that
        # equals its predecessor is struck out, and so is row 0, because a 0 stands before the first row.
        rows = graph("Concat", "own_rows", shortlist, axis=1)  # (B, L + S)
        count = graph("Slice", graph("Shape", rows), np.array([1]), np.array([2]))
        rows, sources = graph.top_k(rows, count, largest=False)
        previous = graph(
            "Pad", graph("Slice", rows, np.array([0]), np.array([-1]), np.array([1])), np.array([0, 1, 0, 0])
        )
        bonuses = graph("Concat", "own_bonuses", graph("ConstantOfShape", graph("Shape", shortlist)), axis=1)
        scores = score_rows(graph, graph("Gather", "table", rows), "query")  # (B, L + S)
        bonuses = graph("GatherElements", bonuses, sources, axis=1)
        # A row of the session stands before the neighbours' mention of the item, which has another bonus.
        next_rows, next_bonuses = (
            graph("Pad", graph("Slice", part, np.array([1]), count, np.array([1])), np.array([0, 0, 0, 1]))
            for part in (rows, bonuses)
        )
        second = graph("Where", graph("Equal", rows, next_rows), next_bonuses, np.float32(0))
        scores = graph("Add", graph("Add", scores, bonuses), second)
        scores = graph("Where", graph("Equal", rows, previous), np.float32(-np.inf), scores)
        best, sources = graph.top_k(scores, self.candidates)  # (B, K)
        rows = graph("GatherElements", rows, sources, axis=1)

        last = graph("Slice", best, np.array([self.candidates - 1]), np.array([self.candidates]), np.array([1]))
        proven = graph("Cast", graph("Greater", last, bound), to=TensorProto.INT32)  # (B, 1)
        scores, rows = graph.choose(
            graph("Cast", graph("ReduceMin", proven, keepdims=0), to=TensorProto.BOOL),
            lambda: (graph("Identity", best), graph("Identity", rows)),
            lambda: self._score_unproven(graph, best, rows, proven),
        )
        return graph("Identity", scores, name="scores"), graph("Identity", rows, name="rows")

    def _add_shortlist(self, graph: GraphBuilder) -> tuple[str, str]:
        """Return the rows with the best integer scores, (B, S), and a bound on the scores of the others: (B, 1)."""
        items, dim, width = self.items, self.items.dim, self.items.steps.shape[1]
        query = graph("Pad", "query", np.array([0, 0, 0, width - dim])) if width > dim else "query"
        largest = graph("ReduceMax", graph("Abs", query), np.array([1]))  # (B, 1)
        chunks = graph("ReduceL2", graph("Reshape", query, np.array([0, -1, items.chunk])), np.array([2]), keepdims=0)
        longest = graph("ReduceMax", chunks, np.array([1]))  # (B, 1)
        limits = ((QUERY_STEPS, largest), (items.longest_chunk, longest))
        scale = graph("Min", *(graph("Div", np.float32(n), graph("Max", x, SMALLEST)) for n, x in limits))  # s: (B, 1)
        scaled = graph("Mul", query, scale)
        rounded = graph("Round", scaled)  # q'
        steps = graph("Add", rounded, np.float32(QUERY_STEPS + 1))  # the fast kernels take uint8
        steps = graph("Cast", steps, to=TensorProto.UINT8)
        columns = graph("Transpose", "table_in_8_bits", perm=(1, 3, 0, 2))
        columns = graph("Reshape", columns, np.array([width, -1]))  # (W, V)
        scores = graph("MatMulInteger", steps, columns, np.uint8(QUERY_STEPS + 1))  # (B, W) x (W, V) -> (B, V)
        length = graph("Slice", graph("Shape", "own_rows"), np.array([1]), np.array([2]))  # (1,)
        # S = min(minimum + L, number of items): (1,)
        size = graph("Min", graph("Add", length, np.array([self.minimum])), np.array([self.rows - 1]))
        values, rows = top_k_by_blocks(graph, scores, "mask", self.blocks, size)
        lowest = graph("Cast", graph("ReduceMin", values, np.array([1])), to=TensorProto.FLOAT)  # (B, 1)

        error = graph("Mul", _lengths(graph, rounded), np.float32(items.largest_error))  # |q'| max |epsilon|
        rest = graph("Mul", _lengths(graph, graph("Sub", scaled, rounded)), np.float32(items.longest))
        bound = graph("Add", lowest, graph("Add", error, rest))
        bound = graph("Div", bound, graph("Mul", scale, np.float32(items.scale)))
        slack = np.float32((width + 16) * FLOAT_ERROR * items.longest / items.scale)
        return rows, graph("Add", bound, graph("Mul", _lengths(graph, query), slack))

    def _score_unproven(self, graph: GraphBuilder, best: str, rows: str, proven: str) -> tuple[str, str]:
        """Return scores and rows, (B, K) each, where sessions without a proof are scored with the whole catalogue.

        Args:
            graph: Builder of the function.
            best: Scores by the shortlist: (B, K).
            rows: Rows by the shortlist: (B, K).
            proven: 1 for a session with a proof, else 0: (B, 1).
        """
        unproven = graph("NonZero", graph("Equal", graph("Squeeze", proven, np.array([1])), np.int32(0)))  # (1, n)
        index = graph("Squeeze", unproven, np.array([0]))
        queries, own_rows, own_bonuses = (
            graph("Gather", values, index, axis=0) for values in ("query", "own_rows", "own_bonuses")
        )
        scores = add_bonuses(graph, score_rows(graph, "table", queries), RowBonuses(own_rows, own_bonuses))
        values, exact_rows = graph.top_k(scores, self.candidates)  # (n, K)
        index = graph("Transpose", unproven, perm=(1, 0))  # (n, 1)
        return graph("ScatterND", best, index, values), graph("ScatterND", rows, index, exact_rows)


class QuantisedItems(NamedTuple):
    """Item vectors as whole numbers of steps."""

    steps: npt.NDArray[np.int8]
    """e' of each item, padded with zeros: (V, W)."""
    scale: float
    """Steps of a component 1: t."""
    largest_error: float
    """Largest |epsilon|, in steps."""
    longest: float
    """Largest |e' + epsilon|, in steps."""

    dim: int
    """Dimensions without padding: D."""

    @property
    def chunk(self) -> int:
        """Number of dimensions whose products the native operator adds in 16 bits."""
        return min(self.steps.shape[1], CHUNK)

    @property
    def longest_chunk(self) -> float:
        """Largest length of a chunk of a query, in steps before rounding, whose sums fit into 16 bits.

        By Cauchy and Schwarz a sum is at most the product of the lengths. Rounding adds 1/2 a component at most.
        """
        parts = self.steps.reshape(len(self.steps), -1, self.chunk).astype(np.float32)
        longest = float(np.linalg.norm(parts, axis=2).max()) or 1.0
        return np.iinfo(np.int16).max / longest - math.sqrt(self.chunk) / 2

    def measures(self) -> tuple[float, float, float, float]:
        """Return the numbers that the native operator needs, in its order."""
        return self.scale, self.largest_error, self.longest, self.longest_chunk

    def in_blocks(self) -> npt.NDArray[np.int8]:
        """Return the steps in the order in which the native operator reads them: (V / 16, W / 4, 16, 4)."""
        rows, width = self.steps.shape
        blocks = self.steps.reshape(rows // KERNEL_ITEMS, KERNEL_ITEMS, width // 4, 4)
        return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))

    def offsets(self) -> npt.NDArray[np.int16]:
        """Return what cancels the zero of a query's steps in each sum, modulo 2^16: (V / 16, chunks, 16, 2).

        A sum adds the first or the last two of each four dimensions of a chunk.
        """
        (rows, width), chunk = self.steps.shape, self.chunk
        parts = self.steps.reshape(rows // KERNEL_ITEMS, KERNEL_ITEMS, width // chunk, chunk // 4, 2, 2)
        sums = -(QUERY_STEPS + 1) * parts.sum(axis=(3, 5), dtype=np.int32)  # (V / 16, 16, chunks, 2)
        return np.ascontiguousarray(sums.astype(np.int16).transpose(0, 2, 1, 3))


def quantise_items(vectors: npt.NDArray[np.float32], multiple: int) -> QuantisedItems:
    """Return item vectors in steps of 1/127 of the largest absolute component.

    Args:
        vectors: Vectors of the items: (V, D).
        multiple: Number that the number of rows becomes a multiple of, by rows of zeros.
    """
    rows, dim = vectors.shape
    scale = ITEM_STEPS / (float(np.abs(vectors).max()) or 1.0)
    steps = np.zeros((rows + -rows % multiple, dim + -dim % (CHUNK if dim > CHUNK else 4)), dtype=np.int8)
    largest_error = longest = 0.0
    for start in range(0, rows, QUANTISED_AT_ONCE):
        scaled = vectors[start : start + QUANTISED_AT_ONCE].astype(np.float64) * scale
        rounded = np.round(scaled)
        steps[start : start + len(rounded), :dim] = rounded
        largest_error = max(largest_error, float(np.linalg.norm(scaled - rounded, axis=1).max()))
        longest = max(longest, float(np.linalg.norm(scaled, axis=1).max()))
    return QuantisedItems(steps, scale, largest_error, longest, dim)


def _lengths(graph: GraphBuilder, vectors: str) -> str:
    """Return the length of each vector: (B, D) -> (B, 1)."""
    return graph("ReduceL2", vectors, np.array([1]))
