"""Session neighbours: a bounded index of training sessions, and bonuses for the items of similar sessions (VMIS-kNN).

The method is the session kNN of Kersbergen, Sprangers and Schelter (SIGMOD 2022), with shorter lists. Its weights are
whole numbers, so sums are exact in any order. For a session of n events, an event with a events after it has the weight
n - a.

    candidates: the newest sessions with the session's newest items
    similarity(s) = sum of the weights of the common items
    weight(s) = similarity(s) * (10 - events after the newest common item)
    share(v) = sum of weight(s) over the neighbours with item v / sum of weight(s) over the neighbours
    bonus(v) = factor * log(1 + 100 share(v))

The logarithm adds much to an item of few neighbours, and little more to an item of all neighbours, because the model
ranks such an item well already.

Shapes: n prefixes, L padded length, W slots, Q lists, C candidate sessions, T items of a session, k neighbours, E = k T
entries, N explained items, V rows of the item table.
"""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Bools, Floats, Ints, Longs
from clickscore.model.examples import Examples

SLOTS = 10
"""Newest events whose items are compared: the weight of a session whose newest common item is older is 0."""
LISTS = 3
"""Newest distinct items whose sessions are candidates."""
LIST_SESSIONS = 64
"""Newest sessions of an item among the candidates."""
NEIGHBOURS = 32
"""Most similar candidates: the neighbours."""
SESSION_ITEMS = 8
"""Newest distinct items of an indexed session."""
MAX_SESSIONS = 2**17
"""Indexed sessions, at most, the newest: 4 MB of items, and at most 4 MB of lists."""
SHARE_SCALE = 100.0
"""Factor of a share in the logarithm."""


class Prefixes(Protocol):
    """Prefixes of sessions, left-aligned."""

    @property
    def items(self) -> Longs:
        """Item rows, 0 for padding at the end: (n, L)."""
        ...

    @property
    def lengths(self) -> Longs:
        """Events of each prefix, at least 1: (n,)."""
        ...


class SessionIndex(NamedTuple):
    """An index of sessions, ready to search."""

    items: npt.NDArray[np.int32]
    """Newest distinct items of a session, the newest first, 0 for padding; the last session is empty: (S + 1, T)."""
    sessions: npt.NDArray[np.int32]
    """Newest sessions of the items, item by item, the oldest first; the last entry is the empty session: (N + 1,)."""
    ends: Longs
    """End of an item's list in `sessions`: (V,)."""
    counts: Longs
    """Number of sessions in an item's list: (V,)."""
    factor: float
    """Factor of the bonuses."""


class IndexedSessions(NamedTuple):
    """The part of an index that a checkpoint stores. The field names are stored, too."""

    items: npt.NDArray[np.int32]
    """Items of the sessions, of `index_sessions`: (S, T)."""
    factor: float
    """Factor of the bonuses."""


class NeighbourItems(NamedTuple):
    """Items of the neighbours of prefixes, with an entry for an item of a neighbour."""

    rows: Longs
    """Row of the entry's item, 0 for padding: (n, E)."""
    parts: Longs
    """Part of the neighbour's weight by the event with 0, 1, 2 ... later events: (n, W, E)."""
    totals: Longs
    """Sum of the weights of the neighbours, at least 1: (n,)."""


def index_sessions(examples: Examples, indexed: Ints | None = None) -> npt.NDArray[np.int32]:
    """Return the items of the newest sessions, the oldest session first: (S, T).

    Sessions in no list of `open_index` are left out.

    Args:
        examples: Sessions, the oldest first.
        indexed: Items of older sessions: (sessions, T).
    """
    session = np.repeat(np.arange(len(examples)), examples.lengths)  # (events,)
    order = np.lexsort((-np.arange(len(session)), session))  # sessions in order, the newest event of each first
    keys = (session[order] << 32) | examples.items[order]
    first = np.sort(np.unique(keys, return_index=True)[1])  # the newest event on each item of a session
    rows, session = examples.items[order][first], session[order][first]
    column = np.arange(len(session)) - np.searchsorted(session, session)
    is_kept = column < SESSION_ITEMS
    items = np.zeros((len(examples), SESSION_ITEMS), dtype=np.int32)
    items[session[is_kept], column[is_kept]] = rows[is_kept]
    items = (items if indexed is None else np.concatenate((indexed.astype(np.int32), items)))[-MAX_SESSIONS:]
    rows, session = _list_sessions(items)
    return items[np.unique(session)]


def open_index(sessions: IndexedSessions, rows: int) -> SessionIndex:
    """Return an index ready to search.

    Args:
        sessions: Sessions of the index.
        rows: Rows V of the item table, the padding row included.
    """
    items, factor = sessions
    listed_rows, listed = _list_sessions(items)
    ends = np.searchsorted(listed_rows, np.arange(rows), side="right")
    return SessionIndex(
        np.pad(items.astype(np.int32), ((0, 1), (0, 0))),
        np.append(listed, len(items)).astype(np.int32),
        ends,
        np.diff(ends, prepend=0),
        factor,
    )


def _list_sessions(items: Ints) -> tuple[Longs, Longs]:
    """Return the newest sessions of the items: rows and sessions, both ascending: (N,) and (N,).

    Args:
        items: Items of the sessions: (S, T).
    """
    session, column = np.nonzero(items)
    rows = items[session, column].astype(np.int64)
    order = np.argsort(rows, kind="stable")
    rows, session = rows[order], session[order]
    newer = np.searchsorted(rows, rows, side="right") - 1 - np.arange(len(rows))  # newer sessions with the same item
    is_listed = newer < LIST_SESSIONS
    return rows[is_listed], session[is_listed]


def find_neighbours(neighbours: SessionIndex, prefixes: Prefixes) -> NeighbourItems:
    """Return the items of the most similar sessions.

    Args:
        neighbours: Index of sessions.
        prefixes: Prefixes of sessions.
    """
    lengths = prefixes.lengths[:, None]  # (n, 1)
    slots = _newest_items(prefixes)  # (n, W)
    ages = np.arange(slots.shape[1])  # (W,): events after each slot
    weights = lengths - ages  # (n, W)

    # Candidates: the newest sessions of the newest items
    newest = np.argsort(slots == 0, axis=1, kind="stable")[:, :LISTS]  # (n, Q): ages
    rows = np.take_along_axis(slots, newest, axis=1)[:, :, None]  # (n, Q, 1)
    steps = np.arange(1, LIST_SESSIONS + 1)
    index = np.where(steps <= neighbours.counts[rows], neighbours.ends[rows] - steps, -1)  # -1: the empty session
    sessions = neighbours.sessions[index]  # (n, Q, sessions of a list)

    # Similarity; a candidate counts in the list of its newest common item alone
    common = _find_common(neighbours.items[sessions], slots)  # (n, W, Q, sessions of a list)
    weighted = common * weights[:, :, None, None]
    is_first = weighted.max(axis=1) == (lengths - newest)[:, :, None]  # (n, Q, sessions of a list)
    similarity = (weighted.sum(axis=1) * is_first).reshape(len(slots), -1)  # (n, C)

    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]  # (n, k)
    is_neighbour = np.take_along_axis(similarity, nearest, axis=1) > 0  # (n, k)
    items = neighbours.items[np.take_along_axis(sessions.reshape(len(slots), -1), nearest, axis=1)]  # (n, k, T)
    weighted = _find_common(items, slots) * weights[:, :, None]  # (n, W, k)
    decay = (SLOTS - lengths + weighted.max(axis=1)) * is_neighbour  # (n, k)
    parts = weighted * decay[:, None]  # (n, W, k)
    entries = parts[..., None] * (items > 0)[:, None]  # (n, W, k, T)
    return NeighbourItems(
        items.reshape(len(slots), -1).astype(np.int64),
        entries.reshape(*slots.shape, -1),
        parts.sum(axis=(1, 2)).clip(min=1),
    )


def compute_bonuses(weights: Floats | Longs, totals: Longs, factor: float) -> Floats:
    """Return the bonuses of items: (n, m).

    Args:
        weights: Weight of the neighbours with an item: (n, m).
        totals: Sum of the weights of the neighbours: (n,).
        factor: Factor of the bonuses.
    """
    return factor * np.log1p(SHARE_SCALE * weights / totals[:, None])


def explain_bonuses(matches: NeighbourItems, prefixes: Prefixes, rows: Longs, factor: float) -> Floats:
    """Return the parts of the events in the bonuses of items, 0 for older events and padding: (n, N, L).

    A bonus is divided among the events by their parts in the weight of the neighbours with the item.

    Args:
        matches: Items of the neighbours of the prefixes.
        prefixes: Prefixes of sessions.
        rows: Rows of the items: (n, N).
        factor: Factor of the bonuses.
    """
    is_row = matches.rows[:, :, None] == rows[:, None]  # (n, E, N)
    parts = matches.parts @ is_row  # (n, W, N)
    weights = parts.sum(axis=1)  # (n, N)
    bonuses = compute_bonuses(weights, matches.totals, factor)
    parts = parts * (bonuses / weights.clip(min=1))[:, None]
    age = prefixes.lengths[:, None] - 1 - np.arange(prefixes.items.shape[1])  # (n, L)
    is_slot = (age >= 0) & (age < parts.shape[1])
    by_event = np.take_along_axis(parts, np.where(is_slot, age, 0)[:, :, None], axis=1)  # (n, L, N)
    return (by_event * is_slot[:, :, None]).transpose(0, 2, 1)


def _newest_items(prefixes: Prefixes) -> Longs:
    """Return the items of the newest events, the newest first, 0 if a newer event has the item: (n, W)."""
    ages = np.arange(min(SLOTS, prefixes.items.shape[1]))  # (W,)
    position = prefixes.lengths[:, None] - 1 - ages  # (n, W)
    rows = np.where(position >= 0, np.take_along_axis(prefixes.items, position.clip(min=0), axis=1), 0)
    is_repeat = (np.tril(rows[:, :, None] == rows[:, None], -1)).any(axis=2)  # (n, W): a newer slot has the same item
    return np.where(is_repeat, 0, rows)


def _find_common(items: Ints, slots: Longs) -> Bools:
    """Return whether a session has the item of a slot: (n, W, ...).

    Args:
        items: Items of sessions: (n, ..., T).
        slots: Items of the prefix, 0 for padding: (n, W).
    """
    shape = (*slots.shape, *(1 for _ in items.shape[1:]))
    return ((items[:, None] == slots.reshape(shape)) & (items[:, None] > 0)).any(axis=-1)
