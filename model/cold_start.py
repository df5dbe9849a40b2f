"""Item map: vectors for items that a model never met, from what is known of them and of the items that it has met.

What is known of an item is its text vector and its price. `docs/model.md` has the formulas, and what was measured.
D dim, F numbers that are known of an item.
"""

# pyright: standard
# torch leaves what a module returns untyped.

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clickscore.model.checkpoint import Checkpoint
from clickscore.model.features import Float32Array, Longs, PaddedBatch
from clickscore.model.loss import Queries
from clickscore.model.neighbours import ITEM_MASK, PairCounts, select_neighbours
from clickscore.model.predict import CUTOFF, MAX_SCORES, compute_queries
from clickscore.model.transformer import NeighbourMatrix
from clickscore.schemas.events import ACTIONS

Floats = npt.NDArray[np.floating[Any]]

SHARPNESS = 50.0
"""How fast a teacher's weight falls with its distance, exp(-SHARPNESS distance^2 / 2): a cosine of 0.986 halves it."""
PRICE_WEIGHT = 0.35
"""What the logarithm of a price counts beside a text vector of length 1: 1.6 times the price halves a weight, too."""
ANCHOR_COUNTS = (10, 30, 100)
"""Teachers that an item is mapped from, at most: what is tried."""
NEW_ITEM_PENALTIES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""How far new items stand back behind known ones: what is tried."""
FOLDS = 5
"""Parts of the teachers: each is mapped from the others."""
MIN_ANCHORS = 2 * FOLDS
"""Teachers that a choice needs: two of each part."""
QUERIES_PER_FOLD = 2_000
"""Of a fold."""
MAX_TUNING_ANCHORS = 20_000
"""By which is chosen, drawn where there are more; all of them teach in the end."""
VIEW = ACTIONS.index("view")


class ColdStartParams(NamedTuple):
    """What can be chosen of a map."""

    nearest: int
    reticence: float


class HitRates(NamedTuple):
    """Share of the questions whose answer is among the first 20."""

    taken_out: float
    """Answers that were taken out and mapped."""
    others: float
    every: float


class ParamChoice(NamedTuple):
    """The best way, and what was measured of it."""

    way: ColdStartParams
    found: HitRates
    asked: int
    """Questions."""


def describe_items(texts: Float32Array, prices: Float32Array) -> Float32Array:
    """Return what is known of items (n, F), of text vectors (n, F - 1) and prices (n,), NaN where there is none."""
    logs = np.log(np.maximum(prices, 0.01))
    usual = logs[~np.isnan(logs)].mean() if not np.isnan(logs).all() else 0.0
    return np.column_stack((texts, PRICE_WEIGHT * np.where(np.isnan(logs), usual, logs))).astype(np.float32)


def choose_params(
    of: Checkpoint, pairs: PairCounts, rows: Longs, known: Float32Array, tell: Callable[[int, int], None]
) -> ParamChoice:
    """Return the way by which most is found, new items and known ones.

    The teachers lie in folds. One fold after another is taken out of all neighbours, so that no other item's vector
    tells of it, and is mapped from the rest. Then the model is asked what follows a view of another item; the answers
    are items that met it in sessions, drawn by how often. All items are ranked, ties counted against us.

    Args:
        of: The model.
        pairs: Which items met in its sessions.
        rows: Of the teachers: (teachers,).
        known: Of the teachers: (teachers, F).
        tell: Called with the folds that are done, and how many there are.
    """
    rng = np.random.default_rng(0)
    if len(rows) > MAX_TUNING_ANCHORS:
        drawn = np.sort(rng.choice(len(rows), MAX_TUNING_ANCHORS, replace=False))
        rows, known = rows[drawn], known[drawn]
    fold_of = rng.permutation(np.arange(len(rows)) % FOLDS)
    ways = [ColdStartParams(*way) for way in itertools.product(ANCHOR_COUNTS, NEW_ITEM_PENALTIES)]
    hits, taken_out = np.zeros((len(ways), 2), dtype=np.int64), np.zeros(2, dtype=np.int64)
    for fold in range(FOLDS):
        tell(fold, FOLDS)
        left = fold_of == fold
        table = _table_without(of, pairs, rows[left])
        lesson = fit_kernel_map(of, table, rows[~left], known[~left])
        items, answers = _meetings(pairs, rows[left], rng)
        is_left = np.isin(answers, rows[left])
        taken_out += np.bincount(is_left, minlength=2)
        for number, way in enumerate(ways):
            table[rows[left]] = lesson.vectors(known[left], way)
            found = _found(of, table, items, answers)
            hits[number] += np.bincount(is_left, found, minlength=2).astype(np.int64)
    tell(FOLDS, FOLDS)
    best = int(hits.sum(axis=1).argmax())
    others, out = hits[best] / taken_out.clip(min=1)
    found = HitRates(float(out), float(others), float(hits[best].sum() / taken_out.sum().clip(min=1)))
    return ParamChoice(ways[best], found, int(taken_out.sum()))


class KernelMap(NamedTuple):
    """What the teachers teach."""

    known: Float32Array
    """Of the teachers: (teachers, F)."""
    aims: Float32Array
    """Where an item like each belongs, across `common`: (teachers, D)."""
    common: Float32Array
    """What is wanted on average, at unit length: (D,)."""

    def vectors(self, asked: Float32Array, way: ColdStartParams) -> torch.Tensor:
        """Return vectors at unit length (n, D) of what is known of items (n, F)."""
        aims = np.empty((len(asked), self.aims.shape[1]), dtype=np.float32)
        step, most = max(1, MAX_SCORES // len(self.known)), min(way.nearest, len(self.known))
        lengths = (self.known**2).sum(axis=1)
        for start in range(0, len(asked), step):
            some = asked[start : start + step]
            apart = (some**2).sum(axis=1)[:, None] + lengths - 2 * some @ self.known.T  # (step, teachers)
            near = np.argpartition(apart, most - 1, axis=1)[:, :most]  # (step, most)
            apart = np.take_along_axis(apart, near, axis=1)
            weights = np.exp(-SHARPNESS / 2 * (apart - apart.min(axis=1, keepdims=True)))
            aims[start : start + step] = (weights[:, :, None] * self.aims[near]).sum(axis=1)
        return torch.from_numpy(_unit(_unit(_across(aims, self.common)) - way.reticence * self.common))


def fit_kernel_map(of: Checkpoint, table: torch.Tensor, rows: Longs, known: Float32Array) -> KernelMap:
    """Return what items teach: where they lie, and where those want to go who have viewed them.

    Args:
        of: The model.
        table: The vectors of all items: (V, D).
        rows: Of the teachers: (teachers,).
        known: Of the teachers: (teachers, F).
    """
    queries = np.concatenate([_unit(queries.vectors.numpy()) for queries in _asked(of, table, rows)])
    common = _unit(queries.mean(axis=0))
    aims = _unit(_across(table[rows].numpy(), common)) + _unit(_across(queries, common))
    return KernelMap(known, aims, common)


@torch.inference_mode()
def _asked(of: Checkpoint, table: torch.Tensor, items: Longs) -> list[Queries]:
    """Return what is wanted after a view of each item, a part of them at a time."""
    step = max(1, MAX_SCORES // len(table))
    views = [items[start : start + step, None].astype(np.int64) for start in range(0, len(items), step)]
    ones = [np.ones(len(view), dtype=np.int64) for view in views]
    return [
        compute_queries(of.model, table, PaddedBatch(view, np.full_like(view, VIEW), one))[1]
        for view, one in zip(views, ones, strict=True)
    ]


def _found(of: Checkpoint, table: torch.Tensor, items: Longs, answers: Longs) -> np.ndarray:
    """Return whether each answer is among the first 20 after a view of its item: (questions,)."""
    found: list[np.ndarray] = []
    for queries in _asked(of, table, items):
        scores = of.model.scores(table, queries)  # (n, V - 1)
        start = sum(map(len, found))
        own = scores.gather(1, torch.from_numpy(answers[start : start + len(scores), None] - 1))
        found.append(((scores >= own).sum(dim=1) <= CUTOFF).numpy())
    return np.concatenate([np.zeros(0, dtype=bool), *found])


def _table_without(of: Checkpoint, pairs: PairCounts, rows: Longs) -> torch.Tensor:
    """Return the vectors of all items, these rows taken out of all neighbours: (V, D)."""
    out = np.isin(pairs.keys >> 32, rows) | np.isin(pairs.keys & ITEM_MASK, rows)
    others = PairCounts(pairs.keys[~out], pairs.counts[~out])
    neighbours = select_neighbours(others, len(of.model.item), of.record.config.model.neighbours)
    with torch.no_grad():
        return of.model.table(NeighbourMatrix(neighbours, torch.device("cpu")))


def _meetings(pairs: PairCounts, rows: Longs, rng: np.random.Generator) -> tuple[Longs, Longs]:
    """Draw items that are not among the rows, and for each an item that it has met, by how often: (questions,) each."""
    first = pairs.keys >> 32
    outside = np.flatnonzero(~np.isin(first, rows))
    if not len(outside):
        return outside, outside
    drawn = rng.choice(outside, QUERIES_PER_FOLD, p=pairs.counts[outside] / pairs.counts[outside].sum())
    return first[drawn], pairs.keys[drawn] & ITEM_MASK


def _across(vectors: Float32Array, common: Float32Array) -> Floats:
    """Return vectors without what they have of a direction: (n, D)."""
    return vectors - (vectors @ common)[:, None] * common


def _unit(vectors: Floats) -> Float32Array:
    """Return vectors at unit length, those of none as they are."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)).astype(np.float32)
