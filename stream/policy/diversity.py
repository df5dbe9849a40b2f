"""Diversity: re-rank a slate so that its first places differ, by maximal marginal relevance.

Each place gets the item with the largest

    (1 - strength) * relevance - strength * largest similarity to an item of an earlier place

(Carbonell and Goldstein, The use of MMR, SIGIR 1998). The relevance of a place is that of the slate's order, so earlier
re-rankers count: the best item has the largest relevance of the slate, whatever its own is.
"""

from collections.abc import Callable, Sequence

import numpy as np

from clickscore.stream.policy.relevance import relevances
from clickscore.stream.policy.rules import Reranker
from clickscore.stream.policy.slate import Slate
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request

FindVectors = Callable[[Sequence[str]], np.ndarray]
"""Returns a unit vector for each item, all zeros for an item without: (items, dimensions)."""

SIMILARITY_DECIMALS = 4
"""Decimals of a similarity: machines add up products in different orders, and must decide the same."""


def similarities(items: Sequence[str], find_vectors: FindVectors | None, catalogue: AnyCatalogue) -> np.ndarray:
    """Return the similarity of each pair of items, 0 to 1: (items, items).

    It is the cosine of the vectors, and at least 0. Where one of the two has no vector, it is 1 for items of the same
    category, and 0 for others.

    Args:
        items: The items.
        find_vectors: Finds the vectors of the bundle; None without vectors.
        catalogue: Categories of the items.
    """
    categories = [catalogue.category_of(item) or "" for item in items]
    numbers = {category: number for number, category in enumerate(dict.fromkeys(categories))}
    groups = np.array([numbers[category] for category in categories])  # (items,)
    has_category = np.array([bool(category) for category in categories], dtype=bool)
    same = ((groups[:, None] == groups[None, :]) & has_category).astype(np.float64)  # (items, items)
    if find_vectors is None:
        return same
    vectors = find_vectors(items)
    is_known: np.ndarray = np.any(vectors, axis=1)  # (items,)
    cosines = np.maximum(vectors @ vectors.T, 0.0).round(SIMILARITY_DECIMALS)
    return np.where(np.logical_and.outer(is_known, is_known), cosines, same)


def order_by_margin(relevance: Sequence[float], similarity: np.ndarray, strength: float, places: int) -> list[int]:
    """Return the rows of a slate in order of maximal marginal relevance; of equal rows the first comes first.

    Args:
        relevance: Relevance of each row, 0 to 1: (rows,).
        similarity: Similarity of each pair of rows, 0 to 1: (rows, rows).
        strength: How much similarity counts, 0 to 1.
        places: Number of places to choose for; the other rows follow in their order.
    """
    worth = (1.0 - strength) * np.array(relevance, dtype=np.float64)
    largest = np.zeros(len(relevance))
    chosen: list[int] = []
    for _ in range(min(places, len(relevance))):
        row = int(np.argmax(worth - strength * largest))
        chosen.append(row)
        worth[row] = -np.inf
        np.maximum(largest, similarity[row], out=largest)
    taken = set(chosen)
    return chosen + [row for row in range(len(relevance)) if row not in taken]


def diversify(strength: float, find_vectors: FindVectors | None, places: int) -> Reranker:
    """Return the rule that gives the first places to items that differ.

    Args:
        strength: How much similarity counts, 0 to 1.
        find_vectors: Finds the vectors of the bundle; None without vectors.
        places: Number of places to choose for.
    """

    def rerank(slate: Slate, request: Request, catalogue: AnyCatalogue) -> Slate:
        del request
        if not slate:
            return slate
        relevance = sorted(relevances(slate), reverse=True)
        similarity = similarities([choice.item_id for choice in slate], find_vectors, catalogue)
        return [slate[row] for row in order_by_margin(relevance, similarity, strength, places)]

    return Reranker("diversity", "items like those on earlier places stand back", rerank)


SPARE = 2
"""Diverse places for each shown place: caps may leave some of them out."""


def make_diversity(strength: float, find_vectors: FindVectors | None, size: int) -> tuple[Reranker, ...]:
    """Return the rule of a policy, if the policy has it.

    Args:
        strength: How much similarity counts, 0 to 1.
        find_vectors: Finds the vectors of the bundle; None without vectors.
        size: Number of items in the list.
    """
    return (diversify(strength, find_vectors, SPARE * size),) if strength else ()
