"""Mixed ranking: find the candidates of sessions with several query vectors, whose scores are mixed.

The mixed score of an item is log sum_r exp(product_r) + bonus, as in `model.loss.mix`. The best items by each single
product, found by any ranking, are the candidates, and they are ranked by their mixed scores. So an item is left out if
it is among the best K by no single product. Its mixed score exceeds its largest product by log R at most.

Shapes: B sessions, D dim, K candidates, R readouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.ranking import Bonuses, ItemTable, Ranking, RowBonuses, score_rows


@dataclass(frozen=True)
class MixedRanking:
    """Find the candidates of all readouts by another ranking, and rank these by their mixed scores."""

    ranking: Ranking
    """Way to find the best items of a single query vector."""

    def find(
        self, graph: GraphBuilder, table: ItemTable, queries: Sequence[str], bonuses: Bonuses, candidates: int
    ) -> tuple[str, str]:
        """Return the scores and the rows of the candidates, best first: (B, K) each.

        Args:
            graph: Builder to add nodes to.
            table: Item table.
            queries: Query vectors of each readout: (B, D) each.
            bonuses: Bonuses of the scores.
            candidates: Number of candidates, K.
        """
        readouts = len(queries)
        if readouts == 1:
            return self.ranking.find(graph, table, queries[0], bonuses, candidates)
        # Each readout asks for candidates as a session of its own
        repeats = _repeat(graph, bonuses.session, readouts)
        similar = _repeat(graph, bonuses.neighbours, readouts) if bonuses.neighbours else None
        stacked = graph("Concat", *queries, axis=0)  # (R B, D)
        lists = self.ranking.find(graph, table, stacked, Bonuses(repeats, similar), candidates)
        scores, rows = (_join_lists(graph, values, readouts, candidates) for values in lists)  # (B, R K) each

        # mixed score = score by one readout - log share of the readout in the mixed score
        vectors = graph("Gather", table.name, rows)  # (B, R K, D)
        log_shares = log_mix_shares(graph, [score_rows(graph, vectors, query) for query in queries])  # (B, R K, R)
        finders = np.repeat(np.arange(readouts), candidates)[:, None] == np.arange(readouts)  # (R K, R)
        finder_shares = graph("Where", finders, log_shares, np.float32(0))
        scores = graph("Sub", scores, graph("ReduceSum", finder_shares, np.array([2]), keepdims=0))

        # Sort by row, for the order of equal scores; a row that equals its predecessor is struck out
        rows, sources = graph.top_k(rows, readouts * candidates, largest=False)
        scores = graph("GatherElements", scores, sources, axis=1)
        previous = graph("Slice", rows, np.array([0]), np.array([-1]), np.array([1]))
        is_repeated = graph("Equal", rows, graph("Pad", previous, np.array([0, 1, 0, 0])))
        scores, sources = graph.top_k(graph("Where", is_repeated, np.float32(-np.inf), scores), candidates)
        return scores, graph("GatherElements", rows, sources, axis=1)


def mix_products(graph: GraphBuilder, products: Sequence[str]) -> str:
    """Return log sum_r exp(product_r), in the shape of each product.

    Args:
        graph: Builder to add nodes to.
        products: Products of items with the query vector of each readout.
    """
    if len(products) == 1:
        return products[0]
    first_share = graph("Gather", log_mix_shares(graph, products), np.array(0), axis=-1)
    return graph("Sub", products[0], first_share)


def log_mix_shares(graph: GraphBuilder, products: Sequence[str]) -> str:
    """Return the logarithm of the share of each readout in a mixed score, with an axis more: (..., R).

    ONNX Runtime computes LogSoftmax row by row, so that no bit depends on the batch, as with `Softmax` in
    `export.to_onnx.add_purchase`.

    Args:
        graph: Builder to add nodes to.
        products: Products of items with the query vector of each readout.
    """
    columns = [graph("Unsqueeze", values, np.array([-1])) for values in products]
    return graph("LogSoftmax", graph("Concat", *columns, axis=-1), axis=-1)


def _repeat(graph: GraphBuilder, bonuses: RowBonuses, times: int) -> RowBonuses:
    """Return the bonuses of the batch several times, one after another: (B, n) -> (times B, n)."""
    return RowBonuses(*(graph("Concat", *[values] * times, axis=0) for values in bonuses))


def _join_lists(graph: GraphBuilder, values: str, readouts: int, candidates: int) -> str:
    """Return the lists of all readouts of a session beside each other: (R B, K) -> (B, R K)."""
    lists = graph("Reshape", values, np.array([readouts, -1, candidates]))
    return graph("Reshape", graph("Transpose", lists, perm=(1, 0, 2)), np.array([-1, readouts * candidates]))
