"""Cold start: vectors for items new to the model, by kernel regression from known items.

An item is described by its text vector and its price, x = (text vector, PRICE_WEIGHT * log price). Anchors are known
items with a text and with neighbours in sessions. For anchor j let u_j be its item vector and r_j the model's query
after a view of it, both at unit length; c is the mean of all r_j at unit length. The target of anchor j is

    a_j = unit(u_j without the part along c) + unit(r_j without the part along c).

A new item gets the Nadaraya-Watson estimate (Nadaraya 1964, Watson 1964) over the k nearest anchors, less a penalty:

    m = sum_j exp(-KERNEL_GAMMA * |x - x_j|^2) * a_j
    vector = unit(unit(m without the part along c) - new_item_penalty * c).

All queries share the direction c, so an item along c scores high in every session; the penalty keeps new
items from driving known items out of the ranking. `docs/experiments.md` has the measurements.

Shapes: V rows of the item table, D dim, F numbers of a description, A anchors.
"""

# pyright: standard
# torch does not type the result of a module.

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from clickscore.model.array_types import Float32Array, Floats, Longs
from clickscore.model.checkpoint import Checkpoint
from clickscore.model.examples import VIEW
from clickscore.model.loss import Queries
from clickscore.model.neighbours import ITEM_MASK, PairCounts, select_neighbours
from clickscore.model.predict import CUTOFF, MAX_SCORES, compute_queries
from clickscore.model.training_batches import PaddedBatch
from clickscore.model.transformer import NeighbourMatrix

KERNEL_GAMMA = 25.0
"""Gamma of the Gaussian kernel exp(-gamma d^2), a kernel width of 0.14: texts with a cosine of 0.986 have half the
weight of equal texts."""
PRICE_WEIGHT = 0.35
"""Weight of log price beside a text vector of length 1: a price 1.6 times as high has half the weight, too."""
MIN_PRICE = 0.01
"""Prices are raised to 0.01, because 0 has no logarithm."""
ANCHOR_COUNTS = (10, 30, 100)
"""Candidates for k, the nearest anchors of a new item."""
NEW_ITEM_PENALTIES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Candidates for the penalty of new items, a multiple of the direction c."""
ANCHOR_FOLDS = 5
"""Folds of anchors for the choice of the parameters: each fold plays the new items once."""
MIN_ANCHORS = 2 * ANCHOR_FOLDS
"""Minimum number of anchors for the choice: two in each fold."""
QUERIES_PER_FOLD = 2_000
"""Sampled queries of a fold: a hit rate of 30 % has a standard error of 1 % then."""
MAX_TUNING_ANCHORS = 20_000
"""Maximum number of anchors for the choice of the parameters; the final map uses all anchors."""


class ColdStartParams(NamedTuple):
    """Parameters of the map from descriptions to vectors."""

    nearest_anchors: int
    """Maximum number k of anchors behind an item's vector."""
    new_item_penalty: float
    """Multiple of the common direction to subtract."""


class HitRates(NamedTuple):
    """Shares of queries with the answer among the best `CUTOFF` items."""

    mapped: float
    """Hit rate of answers with a mapped vector, as for new items."""
    known: float
    """Hit rate of all other answers."""
    overall: float
    """Hit rate of all answers."""


class ParamChoice(NamedTuple):
    """The best parameters and their measured hit rates."""

    params: ColdStartParams
    hit_rates: HitRates
    queries: int
    """Number of queries behind the hit rates."""


def describe_items(texts: Float32Array, prices: Float32Array) -> Float32Array:
    """Return the descriptions x of items: (n, F).

    Args:
        texts: Text vectors of length 1: (n, F - 1).
        prices: Prices, NaN if unknown; the mean log price replaces unknown prices: (n,).
    """
    logs = np.log(np.maximum(prices, MIN_PRICE))
    default = logs[~np.isnan(logs)].mean() if not np.isnan(logs).all() else 0.0
    return np.column_stack((texts, PRICE_WEIGHT * np.where(np.isnan(logs), default, logs))).astype(np.float32)


def choose_params(
    checkpoint: Checkpoint,
    pairs: PairCounts,
    rows: Longs,
    descriptions: Float32Array,
    on_fold: Callable[[int, int], None],
) -> ParamChoice:
    """Return the parameters with the highest hit rate over new and known items, cross-validated over anchors.

    Each fold of anchors plays the new items in turn: removed from all neighbour lists, so that no other item's vector
    depends on the fold, and mapped from the other folds. Queries are views of an item outside the fold, with a
    co-occurring item as the answer, sampled in proportion to the co-occurrence. All items are ranked; an item of an
    equal score counts as better.

    Args:
        checkpoint: The trained model.
        pairs: Co-occurrence counts of the training sessions.
        rows: Rows of the anchors: (A,).
        descriptions: Descriptions of the anchors: (A, F).
        on_fold: Called with the number of finished folds and the number of folds.
    """
    rng = np.random.default_rng(0)
    if len(rows) > MAX_TUNING_ANCHORS:
        sample = np.sort(rng.choice(len(rows), MAX_TUNING_ANCHORS, replace=False))
        rows, descriptions = rows[sample], descriptions[sample]
    fold_of = rng.permutation(np.arange(len(rows)) % ANCHOR_FOLDS)  # (A,)
    grid = [ColdStartParams(*values) for values in itertools.product(ANCHOR_COUNTS, NEW_ITEM_PENALTIES)]
    hits = np.zeros((len(grid), 2), dtype=np.int64)  # columns: known answers, mapped answers
    queries = np.zeros(2, dtype=np.int64)
    for fold in range(ANCHOR_FOLDS):
        on_fold(fold, ANCHOR_FOLDS)
        inside = fold_of == fold
        table = _table_without(checkpoint, pairs, rows[inside])
        kernel_map = fit_kernel_map(checkpoint, table, rows[~inside], descriptions[~inside])
        items, answers = _sample_cooccurrences(pairs, rows[inside], rng)
        is_mapped = np.isin(answers, rows[inside])
        queries += np.bincount(is_mapped, minlength=2)
        for index, params in enumerate(grid):
            table[rows[inside]] = kernel_map.predict(descriptions[inside], params)
            is_hit = _score_hits(checkpoint, table, items, answers)
            hits[index] += np.bincount(is_mapped, is_hit, minlength=2).astype(np.int64)
    on_fold(ANCHOR_FOLDS, ANCHOR_FOLDS)
    best = int(hits.sum(axis=1).argmax())
    known, mapped = hits[best] / queries.clip(min=1)
    overall = float(hits[best].sum() / queries.sum().clip(min=1))
    return ParamChoice(grid[best], HitRates(float(mapped), float(known), overall), int(queries.sum()))


class KernelMap(NamedTuple):
    """Kernel regression from descriptions to item vectors."""

    descriptions: Float32Array
    """Descriptions x_j of the anchors: (A, F)."""
    targets: Float32Array
    """Targets a_j of the anchors, orthogonal to `common`: (A, D)."""
    common: Float32Array
    """Common direction c of all queries, at unit length: (D,)."""

    def predict(self, descriptions: Float32Array, params: ColdStartParams) -> torch.Tensor:
        """Return item vectors at unit length: (n, F) -> (n, D)."""
        estimates = np.empty((len(descriptions), self.targets.shape[1]), dtype=np.float32)
        step, k = max(1, MAX_SCORES // len(self.descriptions)), min(params.nearest_anchors, len(self.descriptions))
        squares = (self.descriptions**2).sum(axis=1)  # (A,)
        for start in range(0, len(descriptions), step):
            x = descriptions[start : start + step]  # (step, F)
            # |x - x_j|^2 = |x|^2 + |x_j|^2 - 2 x x_j
            distances = (x**2).sum(axis=1)[:, None] + squares - 2 * x @ self.descriptions.T  # (step, A)
            nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]  # (step, k)
            distances = np.take_along_axis(distances, nearest, axis=1)
            # The smallest distance is subtracted, or all weights could underflow; the direction stays the same
            weights = np.exp(-KERNEL_GAMMA * (distances - distances.min(axis=1, keepdims=True)))  # (step, k)
            estimates[start : start + step] = (weights[:, :, None] * self.targets[nearest]).sum(axis=1)
        directions = _normalise(_remove_direction(estimates, self.common))
        return torch.from_numpy(_normalise(directions - params.new_item_penalty * self.common))


def fit_kernel_map(checkpoint: Checkpoint, table: torch.Tensor, rows: Longs, descriptions: Float32Array) -> KernelMap:
    """Return the map with the targets of its anchors.

    With u_j alone a new item would lie where similar items lie; queries lie elsewhere, and the item would hardly ever
    be recommended. Hence the target includes r_j.

    Args:
        checkpoint: The trained model.
        table: Vectors of all items: (V, D).
        rows: Rows of the anchors: (A,).
        descriptions: Descriptions of the anchors: (A, F).
    """
    queries = np.concatenate(  # (A, D): r_j
        [_normalise(queries.vectors.numpy()) for queries in _query_after_views(checkpoint, table, rows)]
    )
    common = _normalise(queries.mean(axis=0))  # (D,): c
    item_part = _normalise(_remove_direction(table[rows].numpy(), common))
    targets = item_part + _normalise(_remove_direction(queries, common))  # (A, D): a_j
    return KernelMap(descriptions, targets, common)


@torch.inference_mode()
def _query_after_views(checkpoint: Checkpoint, table: torch.Tensor, items: Longs) -> list[Queries]:
    """Return the queries after a view of each item, in batches, to bound the scores in memory."""
    step = max(1, MAX_SCORES // len(table))
    views = [items[start : start + step, None].astype(np.int64) for start in range(0, len(items), step)]  # (step, 1)
    return [
        compute_queries(
            checkpoint.model,
            table,
            PaddedBatch(view, np.full_like(view, VIEW), np.ones(len(view), dtype=np.int64)),
        )[1]
        for view in views
    ]


def _score_hits(checkpoint: Checkpoint, table: torch.Tensor, items: Longs, answers: Longs) -> np.ndarray:
    """Return whether each answer is among the best `CUTOFF` items after a view of the item: (queries,)."""
    hits: list[np.ndarray] = []
    for queries in _query_after_views(checkpoint, table, items):
        scores = checkpoint.model.scores(table, queries)  # (n, V - 1)
        start = sum(map(len, hits))
        answer_scores = scores.gather(1, torch.from_numpy(answers[start : start + len(scores), None] - 1))  # (n, 1)
        hits.append(((scores >= answer_scores).sum(dim=1) <= CUTOFF).numpy())
    return np.concatenate([np.zeros(0, dtype=bool), *hits])


def _table_without(checkpoint: Checkpoint, pairs: PairCounts, rows: Longs) -> torch.Tensor:
    """Return the vectors of all items, with the given rows removed from all neighbour lists: (V, D)."""
    is_removed = np.isin(pairs.keys >> 32, rows) | np.isin(pairs.keys & ITEM_MASK, rows)
    remaining = PairCounts(pairs.keys[~is_removed], pairs.counts[~is_removed])
    neighbours = select_neighbours(remaining, len(checkpoint.model.item), checkpoint.record.config.model.neighbours)
    with torch.no_grad():
        return checkpoint.model.table(NeighbourMatrix(neighbours, torch.device("cpu")))


def _sample_cooccurrences(pairs: PairCounts, rows: Longs, rng: np.random.Generator) -> tuple[Longs, Longs]:
    """Return sampled items outside `rows`, each with a co-occurring item as the answer: (queries,) each."""
    first = pairs.keys >> 32  # a key holds the first item above 32 bits, the second below
    outside = np.flatnonzero(~np.isin(first, rows))
    if not len(outside):
        return outside, outside
    sample = rng.choice(outside, QUERIES_PER_FOLD, p=pairs.counts[outside] / pairs.counts[outside].sum())
    return first[sample], pairs.keys[sample] & ITEM_MASK


def _remove_direction(vectors: Float32Array, direction: Float32Array) -> Floats:
    """Return vectors v without the part along a unit direction d: v - (v d) d: (n, D)."""
    return vectors - (vectors @ direction)[:, None] * direction


def _normalise(vectors: Floats) -> Float32Array:
    """Return vectors at unit length; a zero vector stays zero."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)).astype(np.float32)
