"""Features: sessions as the arrays that the model reads, and the answers that it learns from. Pure numpy.

Sessions lie end to end in flat arrays; `starts` says where each begins, with the total as its last entry. What the
model reads of a session is its events on known items, the same as a worker feeds it. What it learns, after each of
them, comes from the whole session, unknown items and searches included.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

Ints = npt.NDArray[np.signedinteger[Any]]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

NO_ITEM = -1
"""Of `Sessions.items`: the event is about no item."""
NO_NEXT_ITEM = 0
"""Of `next_item`: no event on an item follows."""
UNKNOWN_NEXT_ITEM = -1
"""Of `next_item`: an item follows that the model does not know, so that no ranking of it can be right."""
LEAVE = NEXT_ACTIONS.index("leave")

NO_CLASS = -1
_CLASS_OF = {name: number for number, name in enumerate(NEXT_ACTIONS)} | {"click": NEXT_ACTIONS.index("view")}
NEXT_ACTION_OF: Ints = np.array([_CLASS_OF.get(action, NO_CLASS) for action in ACTIONS])
"""Class of `NEXT_ACTIONS` by action code: a click opens a page, as a view does; a search or a removal has no class."""

POOLED_BATCHES = 20
"""Training batches whose sessions are sorted by length together: little padding, and still a random order."""

REMOVAL = ACTIONS.index("remove_from_cart")
PURCHASE = ACTIONS.index("purchase")


@dataclasses.dataclass(frozen=True)
class Sessions:
    """Whole sessions, end to end, in order of closing."""

    item_ids: tuple[str, ...]
    """Distinct items."""
    items: Ints
    """Index of `item_ids`, or `NO_ITEM`: (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    starts: Longs
    """(sessions + 1,)."""
    closed_at: Longs
    """ms since the epoch: (sessions,)."""
    ages: Longs
    """Of each event, ms since its session began; 0 where times are unknown: (events,)."""

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self.closed_at)

    def between(self, first: int, end: int) -> "Sessions":
        """Return the sessions from number `first` up to `end`, not included."""
        events = slice(self.starts[first], self.starts[end])
        starts = self.starts[first : end + 1] - self.starts[first]
        closed_at, ages = self.closed_at[first:end], self.ages[events]
        return Sessions(self.item_ids, self.items[events], self.actions[events], starts, closed_at, ages)

    def select(self, sessions: Longs) -> "Sessions":
        """Return the sessions of these numbers, in this order."""
        lengths = np.diff(self.starts)[sessions]
        at = _spans(self.starts[sessions], lengths)
        items, actions, closed_at = self.items[at], self.actions[at], self.closed_at[sessions]
        return Sessions(self.item_ids, items, actions, _starts(lengths), closed_at, self.ages[at])


@dataclasses.dataclass(frozen=True)
class Examples:
    """What the model reads and what it should answer, sessions end to end; each has at least one event."""

    items: Ints
    """Rows, never 0: (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    next_item: Ints
    """Row of the next item that the shopper turns to, or `NO_NEXT_ITEM`, or `UNKNOWN_NEXT_ITEM`: (events,)."""
    next_action: Ints
    """Class of `NEXT_ACTIONS`: (events,)."""
    purchase: Ints
    """Whether something is bought in what is left of the session, 0 or 1: (events,)."""
    starts: Longs
    """(sessions + 1,)."""

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Longs:
        """Events of each session: (sessions,)."""
        return np.diff(self.starts)

    def select(self, sessions: Longs) -> "Examples":
        """Return the sessions of these numbers, in this order."""
        lengths = self.lengths[sessions]
        at = locate_events(self, sessions)
        starts = _starts(lengths)
        return Examples(
            self.items[at], self.actions[at], self.next_item[at], self.next_action[at], self.purchase[at], starts
        )


class PaddedBatch(NamedTuple):
    """Sessions, or beginnings of them, left-aligned and padded with 0: int64 (batch, width), lengths (batch,)."""

    items: Longs
    actions: Longs
    lengths: Longs

    @property
    def ages(self) -> Longs:
        """0 of each event: no times are told."""
        return np.zeros_like(self.items)


def sort_by_closing(sessions: Sessions) -> Sessions:
    """Return sessions in order of closing; those that closed together keep their order."""
    return sessions.select(np.argsort(sessions.closed_at, kind="stable"))


def make_examples(sessions: Sessions, rows: Ints, max_length: int) -> Examples:
    """Return what the model reads and should answer in sessions; those without a known item are left out.

    Args:
        sessions: Whole sessions.
        rows: Row of each of `sessions.item_ids`, 0 where it is unknown: (len(item_ids),).
        max_length: Events on known items that are read of a session: the newest.
    """
    row = np.where(sessions.items == NO_ITEM, 0, rows[sessions.items])  # (events,)
    of_session = np.repeat(np.arange(len(sessions)), np.diff(sessions.starts))  # (events,)
    ends = sessions.starts[1:][of_session]  # (events,)

    turns = find_next((sessions.items != NO_ITEM) & (sessions.actions != REMOVAL), ends)
    next_item = np.where(turns < 0, NO_NEXT_ITEM, np.where(row[turns] > 0, row[turns], UNKNOWN_NEXT_ITEM))
    classes = NEXT_ACTION_OF[sessions.actions]
    acts = find_next(classes != NO_CLASS, ends)
    next_action = np.where(acts < 0, LEAVE, classes[acts])
    purchase = find_next(sessions.actions == PURCHASE, ends) >= 0

    kept = select_model_events(sessions, rows, max_length)
    lengths = np.bincount(of_session[kept], minlength=len(sessions))
    return Examples(
        row[kept].astype(np.int32),
        sessions.actions[kept].astype(np.int8),
        next_item[kept].astype(np.int32),
        next_action[kept].astype(np.int8),
        purchase[kept].astype(np.int8),
        _starts(lengths[lengths > 0]),
    )


def select_model_events(sessions: Sessions, rows: Ints, max_length: int) -> Longs:
    """Return which events `make_examples` keeps: at most the newest `max_length` on known items of each session."""
    known = (sessions.items != NO_ITEM) & (rows[sessions.items] > 0)
    known_through = np.cumsum(known)  # (events,)
    ends = np.repeat(sessions.starts[1:], np.diff(sessions.starts))  # (events,)
    later = known_through[ends - 1] - known_through  # known events of the session after each
    return np.flatnonzero(known & (later < max_length))


def locate_events(of: Examples, sessions: Longs) -> Longs:
    """Return where the events of these sessions lie in the flat arrays, session by session."""
    return _spans(of.starts[sessions], of.lengths[sessions])


def pad_sessions(of: Examples, sessions: Longs) -> PaddedBatch:
    """Return whole sessions of these numbers, as wide as the longest."""
    return _batch(of, of.starts[sessions], of.lengths[sessions])


def pad_prefixes(of: Examples, at: Longs) -> PaddedBatch:
    """Return the beginnings of sessions that end with these events, as wide as the longest."""
    first = of.starts[np.searchsorted(of.starts, at, side="right") - 1]
    return _batch(of, first, at - first + 1)


def iterate_prefixes(of: Examples, most: int) -> Iterator[tuple[Longs, PaddedBatch]]:
    """Yield every beginning of every session, at most `most` of one length a batch, so that none is padded.

    Yields:
        Which events they end with (batch,), and the beginnings.
    """
    lengths = np.arange(len(of.items)) - np.repeat(of.starts[:-1], of.lengths) + 1  # (events,)
    order = np.argsort(lengths, kind="stable")
    for same_length in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        for start in range(0, len(same_length), most):
            at = same_length[start : start + most]
            yield at, pad_prefixes(of, at)


def shuffle_batches(lengths: Longs, size: int, seed: Sequence[int]) -> Iterator[Longs]:
    """Yield numbers of sessions, each once, in random order but with sessions of like length together.

    Args:
        lengths: Events of each session: (sessions,).
        size: Sessions a batch, at most.
        seed: Of the order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool = size * POOLED_BATCHES
    chunks = [
        chunk for start in range(0, len(order), pool) for chunk in _split(order[start : start + pool], lengths, size)
    ]
    for chunk in rng.permutation(len(chunks)):
        yield chunks[chunk]


def shuffle_fold_batches(fold_of: Ints, lengths: Longs, size: int, seed: Sequence[int]) -> Iterator[tuple[int, Longs]]:
    """Yield batches as `shuffle_batches` does, each of one fold only, in random order.

    Args:
        fold_of: Fold of each session: (sessions,).
        lengths: Events of each session: (sessions,).
        size: Sessions a batch, at most.
        seed: Of the order.

    Yields:
        The fold, and numbers of sessions.
    """
    every: list[tuple[int, Longs]] = []
    for fold in np.unique(fold_of).tolist():
        sessions = np.flatnonzero(fold_of == fold)
        every += [(fold, sessions[chunk]) for chunk in shuffle_batches(lengths[sessions], size, (*seed, fold))]
    for at in np.random.default_rng(seed).permutation(len(every)).tolist():
        yield every[at]


def _split(sessions: Longs, lengths: Longs, size: int) -> Iterator[Longs]:
    by_length = sessions[np.argsort(lengths[sessions], kind="stable")]
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


def find_next(wanted: Bools, ends: Longs) -> Longs:
    """Return, for each event, the first wanted event after it in its session, -1 where there is none."""
    at = np.append(np.flatnonzero(wanted), len(wanted))
    found = at[np.searchsorted(at, np.arange(len(wanted)), side="right").clip(max=len(at) - 1)]
    return np.where(found < ends, found, -1)


def _starts(lengths: Longs) -> Longs:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _spans(first: Longs, lengths: Longs) -> Longs:
    """Return `first[0], first[0] + 1, ...` for `lengths[0]` numbers, then those of the next: (sum(lengths),)."""
    starts = _starts(lengths)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], lengths)


def _batch(of: Examples, first: Longs, lengths: Longs) -> PaddedBatch:
    return PaddedBatch(pad_spans(of.items, first, lengths), pad_spans(of.actions, first, lengths), lengths)


def pad_spans(values: Ints, first: Longs, lengths: Longs) -> Longs:
    """Return `lengths[i]` values from `first[i]` on as row i, padded with 0: (len(first), longest)."""
    columns = np.arange(lengths.max(initial=0))  # (longest,)
    inside = columns < lengths[:, None]  # (len(first), longest)
    at = np.where(inside, first[:, None] + columns, 0)
    return np.where(inside, values[at], 0).astype(np.int64)
