"""Session arrays: whole sessions, concatenated in flat arrays, with the first event of each session in `starts`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from clickscore.model.array_types import Bools, Ints, Longs

NO_ITEM = -1
"""Entry of `Sessions.items` for an event without an item, such as a search."""


@dataclasses.dataclass(frozen=True)
class Sessions:
    """Whole sessions, concatenated, in order of closing time."""

    item_ids: tuple[str, ...]
    """Distinct item ids."""
    items: Ints
    """Index into `item_ids`, or `NO_ITEM`: (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    starts: Longs
    """First event of each session, then the number of events: (sessions + 1,)."""
    closed_at: Longs
    """Closing time of each session, ms since the epoch: (sessions,)."""
    ages: Longs
    """Time since the session's first event, ms; 0 if times are unknown: (events,)."""

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.closed_at)

    def select(self, sessions: Longs) -> "Sessions":
        """Return the sessions with these indices, in this order: (k,)."""
        lengths = np.diff(self.starts)[sessions]
        events = concatenate_spans(self.starts[sessions], lengths)
        items, actions, closed_at = self.items[events], self.actions[events], self.closed_at[sessions]
        return Sessions(self.item_ids, items, actions, make_starts(lengths), closed_at, self.ages[events])


def hide_items(sessions: Sessions, rows: Ints, shares: Sequence[float], seed: int) -> tuple[Sessions, Ints]:
    """Return the sessions with random items unknown, as in sessions on items that came after the training.

    Each session gets one of the shares at random, and hides each of its items with this probability, in all its events
    on the item.

    Args:
        sessions: Whole sessions.
        rows: Row of each entry of `sessions.item_ids`, 0 if unknown: (item_ids,).
        shares: Shares of items to hide, from 0 to 1.
        seed: Seed of the random choices.

    Returns:
        The sessions, and the rows of their item ids: each item has a hidden twin, without a row.
    """
    rng = np.random.default_rng(seed)
    share = np.repeat(rng.choice(shares, size=len(sessions)), np.diff(sessions.starts))  # (events,)
    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.starts))  # (events,)
    _, pair = np.unique(session * (len(rows) + 1) + sessions.items, return_inverse=True)  # (events,): session and item
    is_hidden = (rng.random(len(pair))[pair] < share) & (sessions.items != NO_ITEM)
    items = np.where(is_hidden, sessions.items + len(rows), sessions.items).astype(sessions.items.dtype)
    hidden = dataclasses.replace(sessions, item_ids=sessions.item_ids * 2, items=items)
    return hidden, np.concatenate((rows, np.zeros_like(rows)))


def sort_by_closing(sessions: Sessions) -> Sessions:
    """Return sessions in order of closing time; the sort is stable."""
    return sessions.select(np.argsort(sessions.closed_at, kind="stable"))


def make_starts(lengths: Longs) -> Longs:
    """Return the first index of each session and the total, from the sessions' lengths: (n,) -> (n + 1,)."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def concatenate_spans(first: Longs, lengths: Longs) -> Longs:
    """Return the indices first[0], first[0] + 1, ... of lengths[0] entries, then those of the next span.

    Args:
        first: First index of each span: (n,).
        lengths: Entries of each span: (n,).

    Returns:
        (sum(lengths),).
    """
    starts = make_starts(lengths)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], lengths)


def pad_spans(values: Ints, first: Longs, lengths: Longs) -> Longs:
    """Return spans of a flat array as left-aligned rows with padding 0: (n, longest).

    Args:
        values: Flat array: (events,).
        first: First index of each span: (n,).
        lengths: Entries of each span: (n,).
    """
    columns = np.arange(lengths.max(initial=0))  # (longest,)
    is_inside = columns < lengths[:, None]  # (n, longest)
    index = np.where(is_inside, first[:, None] + columns, 0)  # (n, longest)
    return np.where(is_inside, values[index], 0).astype(np.int64)


def find_next(mask: Bools, ends: Longs) -> Longs:
    """Return the index of the first selected event after each event in its session, -1 without one: (events,).

    Args:
        mask: Selected events: (events,).
        ends: End of each event's session, one past its last event: (events,).
    """
    selected = np.append(np.flatnonzero(mask), len(mask))  # sentinel: past every session's end
    index = np.searchsorted(selected, np.arange(len(mask)), side="right").clip(max=len(selected) - 1)  # (events,)
    return np.where(selected[index] < ends, selected[index], -1)
