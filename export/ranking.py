"""Ranking: find the candidates, the top k of the whole catalogue, inside the graph.

A ranking is an exchangeable part. Each kind adds the outputs `rows` and `scores`: best first, equal scores in order of
row, never row 0. With a large catalogue most of a request's time is spent here.

Shapes: B sessions, L padded length, D dim, V rows of the item table, K candidates, S items of a shortlist.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clickscore.export.graph_builder import GraphBuilder, Input

VECTOR_REGISTER = 16  # float32 numbers in an AVX-512 register


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
        mask = mask.reshape(-1, block)
        best, rows = top_k_by_blocks(graph, scores, mask, mask.shape, candidates)
        graph("Identity", best, name="scores")
        graph("Identity", rows, name="rows")


def block_size(rows: int, count: int) -> int:
    """Return the number of rows per block, a power of two, for a search of the best `count` rows.

    The first step reads `rows / size` maxima and the second `count * size` scores. The sum is smallest at
    size = sqrt(rows / count).
    """
    return max(1, 2 ** round(math.log2(math.sqrt(rows / count))))


def _score_all(graph: GraphBuilder, table: ItemTable, query: str, bonuses: Bonuses) -> str:
    """Return the scores of all rows, with the bonuses; row 0 gets -inf: (B, V)."""
    return add_bonuses(graph, graph("Gemm", query, table.name, transB=1), join_bonuses(graph, bonuses))


def join_bonuses(graph: GraphBuilder, bonuses: Bonuses) -> RowBonuses:
    """Return the bonuses of the session and of its neighbours in one list; an item may be in both: (B, L + E)."""
    if not bonuses.neighbours:
        return bonuses.session
    parts = zip(bonuses.session, bonuses.neighbours, strict=True)
    return RowBonuses(*(graph("Concat", *part, axis=1) for part in parts))


def add_bonuses(graph: GraphBuilder, scores: str, bonuses: RowBonuses) -> str:
    """Return scores of all rows with bonuses; row 0 gets -inf: (B, V)."""
    one_more = np.array([0, 0, 0, 1])  # one more column, which names row 0 with the bonus -inf
    rows = graph("Pad", bonuses.rows, one_more)
    values = graph("Pad", bonuses.bonuses, one_more, np.float32(-np.inf))
    return graph("ScatterElements", scores, rows, values, axis=1, reduction="add")


def score_rows(graph: GraphBuilder, vectors: str, query: str) -> str:
    """Return the products of item vectors with a query: (B, S).

    Args:
        graph: Builder to add nodes to.
        vectors: Vectors of items, for each query or for all: (B, S, D) or (S, D).
        query: Query vectors: (B, D).
    """
    # Two equal query columns: a product with a single column would add in another order than the whole table's.
    column = graph("Unsqueeze", query, np.array([2]))
    columns = graph("Concat", column, column, axis=2)  # (B, D, 2)
    return graph("Gather", graph("MatMul", vectors, columns), np.array(0), axis=2)


def top_k_by_blocks(
    graph: GraphBuilder, scores: str, mask: Input, shape: tuple[int, int], count: int | str
) -> tuple[str, str]:
    """Return the best scores and their rows, as `BlockwiseTopK` describes: (B, count) each.

    Args:
        graph: Builder to add nodes to.
        scores: Scores of all rows: (B, V).
        mask: Numbers added to the scores, very low where a row is no item: (V / block, block).
        shape: Number of blocks, and rows per block.
        count: Number of rows to find, or the name of a tensor (1,) with the number.
    """
    number = count if isinstance(count, str) else np.array([count])
    blocks_in_all, block = shape
    block_count = graph("Min", graph("Add", number, np.array([2])), np.array([blocks_in_all]))  # (1,)
    blocks = graph("Reshape", scores, np.array([0, -1, block]))  # (B, V) -> (B, V / block, block)
    maxima = graph("ReduceMax", blocks, np.array([-1]), keepdims=0)  # (B, V / block)
    _, chosen = graph.top_k(maxima, block_count)
    chosen, _ = graph.top_k(chosen, block_count, largest=False)  # in order of row
    # Scores inside the chosen blocks: (B, block_count, block).
    inside = graph("GatherND", blocks, graph("Unsqueeze", chosen, np.array([2])), batch_dims=1)
    inside = graph("Add", inside, graph("Gather", mask, chosen))
    values, index = graph.top_k(graph("Reshape", inside, np.array([0, -1])), count)  # (B, count)
    # A row's number: its block's number times the block size, plus its index inside the block.
    size = np.array(block)
    chosen_block = graph("GatherElements", chosen, graph("Div", index, size), axis=1)
    return values, graph("Add", graph("Mul", chosen_block, size), graph("Mod", index, size))
