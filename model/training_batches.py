"""Batches: sessions and prefixes padded to a rectangle; random order, with sessions of similar length together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from clickscore.model.array_types import Ints, Longs
from clickscore.model.examples import Examples
from clickscore.model.session_arrays import pad_spans

POOLED_BATCHES = 20
"""Batches whose sessions are sorted by length together: enough for little padding, few enough for a random order."""


class PaddedBatch(NamedTuple):
    """Sessions or prefixes, left-aligned, with padding 0 at the end."""

    items: Longs
    """Item rows: (B, T)."""
    actions: Longs
    """Codes of `ACTIONS`: (B, T)."""
    lengths: Longs
    """Events of each session: (B,)."""

    @property
    def ages(self) -> Longs:
        """Time since the session's first event, 0 for every event: examples hold no times: (B, T)."""
        return np.zeros_like(self.items)


def pad_sessions(examples: Examples, sessions: Longs) -> PaddedBatch:
    """Return whole sessions by index, padded to the longest."""
    return _pad(examples, examples.starts[sessions], examples.lengths[sessions])


def pad_prefixes(examples: Examples, ends: Longs) -> PaddedBatch:
    """Return the session prefixes that end with these events, padded to the longest."""
    first = examples.starts[np.searchsorted(examples.starts, ends, side="right") - 1]
    return _pad(examples, first, ends - first + 1)


def iterate_prefixes(examples: Examples, limit: int) -> Iterator[tuple[Longs, PaddedBatch]]:
    """Yield every prefix of every session in batches of one length, so without padding.

    Args:
        examples: Sessions.
        limit: Prefixes of a batch, at most.

    Yields:
        The last event of each prefix (B,), and the prefixes.
    """
    lengths = np.arange(len(examples.items)) - np.repeat(examples.starts[:-1], examples.lengths) + 1  # (events,)
    order = np.argsort(lengths, kind="stable")
    for same_length in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        for start in range(0, len(same_length), limit):
            ends = same_length[start : start + limit]
            yield ends, pad_prefixes(examples, ends)


def shuffle_batches(lengths: Longs, size: int, seed: Sequence[int]) -> Iterator[Longs]:
    """Yield session indices in batches, each session once, in random order but with similar lengths together.

    Args:
        lengths: Events of each session: (sessions,).
        size: Sessions of a batch, at most.
        seed: Seed of the order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool = size * POOLED_BATCHES
    batches = [
        batch for start in range(0, len(order), pool) for batch in _split(order[start : start + pool], lengths, size)
    ]
    for index in rng.permutation(len(batches)):
        yield batches[index]


def shuffle_fold_batches(
    fold_index: Ints, lengths: Longs, size: int, seed: Sequence[int]
) -> Iterator[tuple[int, Longs]]:
    """Yield batches as `shuffle_batches` does, each of a single fold, the folds mixed at random.

    Args:
        fold_index: Fold of each session: (sessions,).
        lengths: Events of each session: (sessions,).
        size: Sessions of a batch, at most.
        seed: Seed of the order.

    Yields:
        The fold, and the session indices.
    """
    batches: list[tuple[int, Longs]] = []
    for fold in np.unique(fold_index).tolist():
        sessions = np.flatnonzero(fold_index == fold)
        batches += [(fold, sessions[batch]) for batch in shuffle_batches(lengths[sessions], size, (*seed, fold))]
    for index in np.random.default_rng(seed).permutation(len(batches)).tolist():
        yield batches[index]


def _split(sessions: Longs, lengths: Longs, size: int) -> Iterator[Longs]:
    by_length = sessions[np.argsort(lengths[sessions], kind="stable")]
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


def _pad(examples: Examples, first: Longs, lengths: Longs) -> PaddedBatch:
    return PaddedBatch(pad_spans(examples.items, first, lengths), pad_spans(examples.actions, first, lengths), lengths)
