"""Ranking: find the candidates, the top k of the whole catalogue, inside the graph.

A ranking is an exchangeable part. Each kind adds the outputs `rows` and `scores`: best first, equal scores in order of
row, never row 0. With a large catalogue most of a request's time is spent here.

Shapes: B sessions, L padded length, D dim, V rows of the item table, K candidates, S items of a shortlist.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder

VECTOR_REGISTER = 16  # float32 numbers in an AVX-512 register
NOT_AN_ITEM = -(2**30)
"""Integer bonus of a row that is no item: far below every integer score, and no sum with it leaves int32."""
QUERY_STEPS = 63
"""Quantisation steps of a query on each side of 0, which is 7 bits: with 8 bits the sum of two products can exceed the
16 bits in which AVX2 adds them."""
ITEM_STEPS = 127
"""Quantisation steps of an item vector on each side of 0: all of int8."""


class ItemTable(NamedTuple):
    """The item table of a graph."""

    name: str
    """Name of the constant: (V, D)."""
    vectors: npt.NDArray[np.float32]
    """Value of the constant; rows after the items are padding."""
    rows: int
    """Number of items plus 1, for row 0, which is no item."""


class RowBonuses(NamedTuple):
    """Names of tensors with bonuses of items."""

    rows: str
    """Rows of the items, and 0 elsewhere: (B, n)."""
    bonuses: str
    """Bonuses to add to the scores of `rows`: (B, n)."""


class Bonuses(NamedTuple):
    """Bonuses of the scores."""

    session: RowBonuses
    """Repeat bonuses of the session's own items, with an entry an item: (B, L)."""
    neighbours: RowBonuses | None = None
    """Bonuses of the items of similar sessions, at least 0, with an entry an item: (B, E). None without an index."""


class Ranking(Protocol):
    """A way to find the candidates."""

    def row_multiple(self, rows: int, candidates: int) -> int:
        """Return the number that the table's length must be a multiple of, 0 where every length will do."""
        ...

    def add_outputs(self, graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses, candidates: int) -> None:
        """Add the outputs `rows` and `scores`.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            query: Query vectors: (B, D).
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        ...


class ExactTopK:
    """Score every item in float32, then ONNX's TopK: the plain way, and the reference for the other rankings."""

    def row_multiple(self, rows: int, candidates: int) -> int:
        """Return 0."""
        return 0

    def add_outputs(self, graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses, candidates: int) -> None:
        """Add the outputs, as in `Ranking`.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            query: Query vectors: (B, D).
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        scores, rows = graph.top_k(_score_all(graph, table, query, bonuses), candidates)  # (B, K)
        graph("Identity", scores, name="scores")
        graph("Identity", rows, name="rows")


class BlockwiseTopK:
    """Top k in two steps, with the same bits as `ExactTopK`: first the best blocks of rows, then the best rows in them.

    Exactness: take the K blocks with the largest maxima, equal maxima in order of block. A row outside of them has at
    least K rows before it, the blocks' best ones, each with a larger score, or with an equal score and a lower row.
    Row 0 and the padding may have larger scores and bring up to two more blocks to the front, the first and the last.
    So the search takes K + 2 blocks and strikes out the rows that are no item. The blocks are sorted by row again, so
    that TopK's order of equal values is the order of rows.
    """

    def row_multiple(self, rows: int, candidates: int) -> int:
        """Return the size of a block, 0 where one step is as quick.

        A block has at least the size of one vector register. Smaller blocks, which means up to 8,000 items with 64
        candidates, were no quicker than one step; with 200,000 items two steps took 0.6 of the time of one.
        """
        size = block_size(rows, candidates)
        return size if size >= VECTOR_REGISTER else 0

    def add_outputs(self, graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses, candidates: int) -> None:
        """Add the outputs, as in `Ranking`.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            query: Query vectors: (B, D).
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        block = self.row_multiple(table.rows, candidates)
        if not block:
            ExactTopK().add_outputs(graph, table, query, bonuses, candidates)
            return
        scores = _score_all(graph, table, query, bonuses)
        mask = np.zeros(len(table.vectors), dtype=np.float32)
        mask[table.rows :] = -np.inf  # padding; row 0 is masked by its bonus
        best, rows = _top_k_by_blocks(graph, scores, mask, block, candidates)
        graph("Identity", best, name="scores")
        graph("Identity", rows, name="rows")


@dataclass(frozen=True)
class QuantisedShortlist:
    """Find a shortlist with 8-bit integer products, and score only the shortlist and the session's items in float32.

    An item on the shortlist gets the same bits as in the other rankings. An item that is missing there is lost. So the
    list has `spare` items more than candidates, and one more for each event, because the session's own items may be on
    the list and then lose their ranks by their bonuses. The items of similar sessions may gain ranks, so they join it.
    Each export measures how often the list is too short
    (`export.quantisation_check`).

    Integer sums are exact and each query has its own scale, so the shortlist is batch-invariant and the same on every
    processor. The items share one scale: with a scale per item each sum would need one more multiplication.
    """

    spare: int = 16  # with 20,000 random items nothing is lost; with 0 spare items some are (tests/export)

    def row_multiple(self, rows: int, candidates: int) -> int:
        """Return 0: the quantised table is a separate constant."""
        return 0

    def add_outputs(self, graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses, candidates: int) -> None:
        """Add the outputs, as in `Ranking`.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            query: Query vectors: (B, D).
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        session, neighbours = bonuses
        shortlist = listed = self._add_shortlist(graph, table, query, session, candidates)  # (B, S)
        if neighbours:
            shortlist = graph("Concat", neighbours.rows, listed, axis=1)  # (B, E + S)
        # Sort by row; TopK is stable, so the session's mention of an item comes before the shortlist's. A row that
        # equals its predecessor is struck out, and so is row 0, because a 0 stands before the first row.
        rows = graph("Concat", session.rows, shortlist, axis=1)  # (B, L + S)
        count = graph("Slice", graph("Shape", rows), np.array([1]), np.array([2]))
        rows, sources = graph.top_k(rows, count, largest=False)
        previous = graph(
            "Pad", graph("Slice", rows, np.array([0]), np.array([-1]), np.array([1])), np.array([0, 1, 0, 0])
        )
        repeats = graph("Concat", session.bonuses, graph("ConstantOfShape", graph("Shape", shortlist)), axis=1)

        # Two equal query columns: a product with a single column would add in another order than the whole table's.
        column = graph("Unsqueeze", query, np.array([2]))
        columns = graph("Concat", column, column, axis=2)  # (B, D, 2)
        scores = graph("MatMul", graph("Gather", table.name, rows), columns)  # (B, L + S, D) x -> (B, L + S, 2)
        scores = graph("Gather", scores, np.array(0), axis=2)
        scores = graph("Add", scores, graph("GatherElements", repeats, sources, axis=1))
        if neighbours:
            # A row of the session stands before the neighbours' mention, which has the bonus.
            zeros = (
                graph("ConstantOfShape", graph("Shape", session.rows)),
                graph("ConstantOfShape", graph("Shape", listed)),
            )
            added = graph("Concat", zeros[0], neighbours.bonuses, zeros[1], axis=1)
            added = graph("GatherElements", added, sources, axis=1)
            next_rows, next_added = (
                graph("Pad", graph("Slice", part, np.array([1]), count, np.array([1])), np.array([0, 0, 0, 1]))
                for part in (rows, added)
            )
            added = graph("Add", added, graph("Where", graph("Equal", rows, next_rows), next_added, np.float32(0)))
            scores = graph("Add", scores, added)
        scores = graph("Where", graph("Equal", rows, previous), np.float32(-np.inf), scores)
        best, sources = graph.top_k(scores, candidates)  # (B, K)
        graph("Identity", best, name="scores")
        graph("GatherElements", rows, sources, axis=1, name="rows")

    def _add_shortlist(
        self, graph: GraphBuilder, table: ItemTable, query: str, session: RowBonuses, candidates: int
    ) -> str:
        """Return the rows with the best integer scores: (B, S).

        quantised query = round(query * 63 / max |query|), quantised item = round(item * 127 / max |table|).
        """
        minimum = candidates + self.spare
        block = block_size(table.rows, minimum)
        length = graph("Slice", graph("Shape", session.rows), np.array([1]), np.array([2]))  # (1,)
        # S = min(K + spare + L, number of items): (1,)
        size = graph("Min", graph("Add", length, np.array([minimum])), np.array([table.rows - 1]))
        items = np.pad(_quantise(table.vectors[: table.rows]), ((0, -table.rows % block), (0, 0)))
        largest = graph("ReduceMax", graph("Abs", query), np.array([1]))  # (B, 1)
        steps = graph("Mul", query, graph("Div", np.float32(QUERY_STEPS), largest))
        steps = graph("Add", graph("Round", steps), np.float32(QUERY_STEPS + 1))  # the fast kernels take uint8
        steps = graph("Cast", steps, to=TensorProto.UINT8)
        quantised = graph.add_constant(items.T, "table_in_8_bits")
        scores = graph("MatMulInteger", steps, quantised, np.uint8(QUERY_STEPS + 1))  # (B, D) x (D, V) -> (B, V)
        mask = np.zeros(len(items), dtype=np.int32)
        mask[0] = mask[table.rows :] = NOT_AN_ITEM
        _, rows = _top_k_by_blocks(graph, scores, mask, block, size)
        return rows


RANKINGS: dict[str, Ranking] = {"fp32": BlockwiseTopK(), "int8": QuantisedShortlist()}
"""Rankings by their precision, the number format of the product with the whole catalogue."""


def block_size(rows: int, count: int) -> int:
    """Return the number of rows per block, a power of two, for a search of the best `count` rows.

    The first step reads `rows / size` maxima and the second `count * size` scores. The sum is smallest at
    size = sqrt(rows / count).
    """
    return max(1, 2 ** round(math.log2(math.sqrt(rows / count))))


def _score_all(graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses) -> str:
    """Return the scores of all rows, with the bonuses; row 0 gets -inf: (B, V)."""
    scores = graph("Gemm", query, table.name, transB=1)  # (B, D) x (D, V) -> (B, V)
    one_more = np.array([0, 0, 0, 1])  # one more column, which names row 0 with the bonus -inf
    rows, values = bonuses.session
    if bonuses.neighbours:
        rows, values = (
            graph("Concat", *parts, axis=1) for parts in zip(bonuses.session, bonuses.neighbours, strict=True)
        )
    rows = graph("Pad", rows, one_more)
    values = graph("Pad", values, one_more, np.float32(-np.inf))
    return graph("ScatterElements", scores, rows, values, axis=1, reduction="add")


def _top_k_by_blocks(
    graph: GraphBuilder, scores: str, mask: npt.NDArray[np.generic], block: int, count: int | str
) -> tuple[str, str]:
    """Return the best scores and their rows, as `BlockwiseTopK` describes: (B, count) each.

    Args:
        graph: Builder to add nodes to.
        scores: Scores of all rows: (B, V).
        mask: Numbers added to the scores, very low where a row is no item: (V,).
        block: Rows per block.
        count: Number of rows to find, or the name of a tensor (1,) with the number.
    """
    number = count if isinstance(count, str) else np.array([count])
    block_count = graph("Min", graph("Add", number, np.array([2])), np.array([len(mask) // block]))  # (1,)
    blocks = graph("Reshape", scores, np.array([0, -1, block]))  # (B, V) -> (B, V / block, block)
    maxima = graph("ReduceMax", blocks, np.array([-1]), keepdims=0)  # (B, V / block)
    _, chosen = graph.top_k(maxima, block_count)
    chosen, _ = graph.top_k(chosen, block_count, largest=False)  # in order of row
    # Scores inside the chosen blocks: (B, block_count, block).
    inside = graph("GatherND", blocks, graph("Unsqueeze", chosen, np.array([2])), batch_dims=1)
    inside = graph("Add", inside, graph("Gather", mask.reshape(-1, block), chosen))
    values, index = graph.top_k(graph("Reshape", inside, np.array([0, -1])), count)  # (B, count)
    # A row's number: its block's number times the block size, plus its index inside the block.
    size = np.array(block)
    chosen_block = graph("GatherElements", chosen, graph("Div", index, size), axis=1)
    return values, graph("Add", graph("Mul", chosen_block, size), graph("Mod", index, size))


def _quantise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Return vectors in int8 with one scale for all: steps of 1/127 of the largest absolute component."""
    return np.round(vectors / (np.abs(vectors).max() or 1) * ITEM_STEPS).astype(np.int8)
