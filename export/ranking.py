"""Ranking: what finds the candidates, the best of the whole catalogue, inside the graph.

A part that can be exchanged. Each kind adds the outputs `rows` and `scores`: best first, equal scores in order of row,
never row 0. With a large catalogue most of the time is spent here.

Shapes: B sessions, L padded length, D dim, V rows of the item table, K candidates, S items of a shortlist.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder

REGISTER = 16  # float32 numbers that a wide vector register holds
NOT_AN_ITEM = -(2**30)
"""Far below every score in whole numbers, and far above the least int32."""
QUERY_STEPS = 63
"""Steps of 7 bits on each side of 0: with 8 bits two products can be more than the 16 bits that AVX2 adds them in."""


class ItemTable(NamedTuple):
    """The item table of a graph."""

    table: str
    """Its name: (V, D)."""
    vectors: npt.NDArray[np.float32]
    """The same; rows after the items are padding."""
    rows: int
    """Row 0, which is no item, and the items'."""


class RepeatBonuses(NamedTuple):
    """The rows that a session has had, each once, or 0, and what is added to their scores: (B, L) each."""

    rows: str
    added: str


class Ranking(Protocol):
    """What finds the candidates."""

    def block(self, rows: int, candidates: int) -> int:
        """Return what the table's rows have to be a multiple of, 0 where that does not matter."""
        ...

    def add(
        self, graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses, candidates: int
    ) -> None:
        """Add the outputs for wanted vectors (B, D)."""
        ...


class ExactTopK:
    """Score every item in float32, then ONNX's TopK: the plain way, and what the others are measured against."""

    def block(self, rows: int, candidates: int) -> int:
        """Return 0."""
        return 0

    def add(
        self, graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses, candidates: int
    ) -> None:
        """Add the outputs for wanted vectors (B, D)."""
        best, rows = graph.top_k(_all_scores(graph, catalogue, wanted, session), candidates)  # (B, K)
        graph("Identity", best, name="scores")
        graph("Identity", rows, name="rows")


class BlockwiseTopK:
    """The same answer bit by bit, but quicker: the blocks with the largest maxima first, then the best inside them.

    Exact. Blocks are contiguous, so what lies outside the K blocks of the largest maxima (equal ones in order of
    block) has K scores before it, each larger, or equal and of a lower row. What is no item may score more, which can
    bring two blocks to the front that do not belong there, the first and the last: so two more are taken, and what is
    no item is struck out. The blocks are put back in order of row, so that TopK's lower index is the lower row.
    """

    def block(self, rows: int, candidates: int) -> int:
        """Return the size of a block, 0 where one step is as quick.

        At least one vector register: below that, which is up to 8,000 items for 64 candidates, two steps were no
        quicker; at 200,000 items they took 0.6 of the time.
        """
        size = block_size(rows, candidates)
        return size if size >= REGISTER else 0

    def add(
        self, graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses, candidates: int
    ) -> None:
        """Add the outputs for wanted vectors (B, D)."""
        block = self.block(catalogue.rows, candidates)
        if not block:
            ExactTopK().add(graph, catalogue, wanted, session, candidates)
            return
        scores = _all_scores(graph, catalogue, wanted, session)
        no_item = np.zeros(len(catalogue.vectors), dtype=np.float32)
        no_item[catalogue.rows :] = -np.inf
        best, rows = _best_of_blocks(graph, scores, no_item, block, candidates)
        graph("Identity", best, name="scores")
        graph("Identity", rows, name="rows")


@dataclass(frozen=True)
class QuantisedShortlist:
    """Products of 8-bit integers find a shortlist, which alone is scored in float32, with the session's own items.

    What is on the list gets the bits that the other rankings give it. What is not on it is lost, so the list holds
    `spare` items more than are wanted, and one more for each event, since the session's own items may be on it and
    then lose their places by what repeats add. How often that is not enough is measured at each export
    (`export.quantisation_check`).

    Sums of whole numbers are exact, and a wanted vector has a scale of its own: so the list depends neither on who
    shares the batch nor on how a processor adds. The items have one scale for all, or each sum would be multiplied.
    """

    spare: int = 16

    def block(self, rows: int, candidates: int) -> int:
        """Return 0: the table in whole numbers is one of its own."""
        return 0

    def add(
        self, graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses, candidates: int
    ) -> None:
        """Add the outputs for wanted vectors (B, D)."""
        listed = self._shortlist(graph, catalogue, wanted, session, candidates)  # (B, S)
        # In order of row, the session's mention of an item before the list's. A row that comes again is struck out,
        # and so is row 0, since a 0 is put before the first.
        rows = graph("Concat", session.rows, listed, axis=1)  # (B, L + S)
        count = graph("Slice", graph("Shape", rows), np.array([1]), np.array([2]))
        rows, at = graph.top_k(rows, count, largest=False)
        before = graph(
            "Pad", graph("Slice", rows, np.array([0]), np.array([-1]), np.array([1])), np.array([0, 1, 0, 0])
        )
        added = graph("Concat", session.added, graph("ConstantOfShape", graph("Shape", listed)), axis=1)

        # Asked twice, since a product with a single column would add in another order than the whole table's.
        query = graph("Unsqueeze", wanted, np.array([2]))
        twice = graph("Concat", query, query, axis=2)  # (B, D, 2)
        scores = graph("MatMul", graph("Gather", catalogue.table, rows), twice)  # (B, L + S, D) x -> (B, L + S, 2)
        scores = graph("Gather", scores, np.array(0), axis=2)
        scores = graph("Add", scores, graph("GatherElements", added, at, axis=1))
        scores = graph("Where", graph("Equal", rows, before), np.float32(-np.inf), scores)
        best, at = graph.top_k(scores, candidates)  # (B, K)
        graph("Identity", best, name="scores")
        graph("GatherElements", rows, at, axis=1, name="rows")

    def _shortlist(
        self, graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses, candidates: int
    ) -> str:
        """Return the rows that whole numbers rank best: (B, S)."""
        least = candidates + self.spare
        block = block_size(catalogue.rows, least)
        length = graph("Slice", graph("Shape", session.rows), np.array([1]), np.array([2]))  # (1,)
        listed = graph("Min", graph("Add", length, np.array([least])), np.array([catalogue.rows - 1]))  # (1,)
        items = np.pad(_in_8_bits(catalogue.vectors[: catalogue.rows]), ((0, -catalogue.rows % block), (0, 0)))
        largest = graph("ReduceMax", graph("Abs", wanted), np.array([1]))  # (B, 1)
        query = graph("Mul", wanted, graph("Div", np.float32(QUERY_STEPS), largest))
        query = graph("Add", graph("Round", query), np.float32(QUERY_STEPS + 1))  # unsigned, as the fast kernels want
        query = graph("Cast", query, to=TensorProto.UINT8)
        table = graph.add_constant(items.T, "table_in_8_bits")
        scores = graph("MatMulInteger", query, table, np.uint8(QUERY_STEPS + 1))  # (B, D) x (D, V) -> (B, V)
        no_item = np.zeros(len(items), dtype=np.int32)
        no_item[0] = no_item[catalogue.rows :] = NOT_AN_ITEM
        _, rows = _best_of_blocks(graph, scores, no_item, block, listed)
        return rows


RANKINGS: dict[str, Ranking] = {"fp32": BlockwiseTopK(), "int8": QuantisedShortlist()}
"""By what the products with the catalogue are made in."""


def block_size(rows: int, best: int) -> int:
    """Return how many rows make a block of a search for so many, a power of two.

    The first step looks at `rows / size` maxima, the second at `best * size` scores: their sum is least at the square
    root of `rows / best`.
    """
    return max(1, 2 ** round(math.log2(math.sqrt(rows / best))))


def _all_scores(graph: GraphBuilder, catalogue: ItemTable, wanted: str, session: RepeatBonuses) -> str:
    """Return the scores of all rows, -inf of row 0: (B, V)."""
    scores = graph("Gemm", wanted, catalogue.table, transB=1)  # (B, D) x (D, V) -> (B, V)
    one_more = np.array([0, 0, 0, 1])  # in which row 0 is named
    rows = graph("Pad", session.rows, one_more)
    added = graph("Pad", session.added, one_more, np.float32(-np.inf))
    return graph("ScatterElements", scores, rows, added, axis=1, reduction="add")


def _best_of_blocks(
    graph: GraphBuilder, scores: str, no_item: npt.NDArray[np.generic], block: int, best: int | str
) -> tuple[str, str]:
    """Return the best scores and their rows, as `BlockwiseTopK` describes it: (B, best) each.

    Args:
        graph: Where this is added.
        scores: Of all rows: (B, V).
        no_item: Added to the scores, very low where a row is no item: (V,).
        block: Rows of a block.
        best: How many are wanted, or the name of a tensor (1,).
    """
    number = best if isinstance(best, str) else np.array([best])
    taken = graph("Min", graph("Add", number, np.array([2])), np.array([len(no_item) // block]))  # (1,)
    blocks = graph("Reshape", scores, np.array([0, -1, block]))  # (B, V) -> (B, V/block, block)
    maxima = graph("ReduceMax", blocks, np.array([-1]), keepdims=0)  # (B, V/block)
    _, chosen = graph.top_k(maxima, taken)
    chosen, _ = graph.top_k(chosen, taken, largest=False)  # in order of row
    inside = graph("GatherND", blocks, graph("Unsqueeze", chosen, np.array([2])), batch_dims=1)  # (B, taken, block)
    inside = graph("Add", inside, graph("Gather", no_item.reshape(-1, block), chosen))
    values, at = graph.top_k(graph("Reshape", inside, np.array([0, -1])), best)  # (B, best)
    size = np.array(block)
    of_block = graph("GatherElements", chosen, graph("Div", at, size), axis=1)
    return values, graph("Add", graph("Mul", of_block, size), graph("Mod", at, size))


def _in_8_bits(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Return vectors in steps of a 127th of their largest number."""
    return np.round(vectors / (np.abs(vectors).max() or 1) * 127).astype(np.int8)
