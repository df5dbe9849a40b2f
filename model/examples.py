"""Examples: the events that the model reads, and the labels of each event: next item, next action, purchase.

The model reads a session's events on known items, as a worker does. The labels come from the whole session, with its
unknown items and searches.
"""

import dataclasses

import numpy as np

from clickscore.model.array_types import Ints, Longs
from clickscore.model.session_arrays import (
    NO_ITEM,
    Sessions,
    concatenate_spans,
    find_next,
    make_starts,
)
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

NO_NEXT_ITEM = 0
"""Label `next_item` if no event on an item follows."""
UNKNOWN_NEXT_ITEM = -1
"""Label `next_item` if the next item is unknown to the model: a rank for the item cannot exist."""
LEAVE = NEXT_ACTIONS.index("leave")
"""Label `next_action` if no action follows."""
NO_CLASS = -1
"""Class of actions that are no label: a search and a removal from the cart."""
_CLASSES = {name: number for number, name in enumerate(NEXT_ACTIONS)} | {"click": NEXT_ACTIONS.index("view")}
NEXT_ACTION_CLASS: Ints = np.array([_CLASSES.get(action, NO_CLASS) for action in ACTIONS])
"""Class of `NEXT_ACTIONS` by action code. A click counts as a view, because it opens an item's page: (actions,)."""
VIEW = ACTIONS.index("view")
REMOVAL = ACTIONS.index("remove_from_cart")
PURCHASE = ACTIONS.index("purchase")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Input events and labels of sessions, concatenated; each session has at least one event.

    The field names are those of the arrays in `held_out.npz`.
    """

    items: Ints
    """Item rows, at least 1: (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    next_item: Ints
    """Label: row of the next item, or `NO_NEXT_ITEM`, or `UNKNOWN_NEXT_ITEM`: (events,)."""
    next_action: Ints
    """Label: class of `NEXT_ACTIONS`: (events,)."""
    purchase: Ints
    """Label: 1 if a purchase follows in the session, else 0: (events,)."""
    starts: Longs
    """First event of each session, then the number of events: (sessions + 1,)."""

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Longs:
        """Number of events of each session: (sessions,)."""
        return np.diff(self.starts)

    def select(self, sessions: Longs) -> "Examples":
        """Return the sessions with these indices, in this order: (k,)."""
        events = locate_events(self, sessions)
        return Examples(
            self.items[events],
            self.actions[events],
            self.next_item[events],
            self.next_action[events],
            self.purchase[events],
            make_starts(self.lengths[sessions]),
        )


def make_examples(sessions: Sessions, rows: Ints, max_length: int) -> Examples:
    """Return input events and labels of sessions; sessions without a known item are left out.

    Args:
        sessions: Whole sessions.
        rows: Row of each entry of `sessions.item_ids`, 0 if unknown: (len(item_ids),).
        max_length: Events on known items that the model reads of a session, the newest.
    """
    row = np.where(sessions.items == NO_ITEM, 0, rows[sessions.items])  # (events,)
    session_index = np.repeat(np.arange(len(sessions)), np.diff(sessions.starts))  # (events,)
    ends = sessions.starts[1:][session_index]  # (events,)

    # Labels, from all events
    next_on_item = find_next((sessions.items != NO_ITEM) & (sessions.actions != REMOVAL), ends)
    known_label = np.where(row[next_on_item] > 0, row[next_on_item], UNKNOWN_NEXT_ITEM)
    next_item = np.where(next_on_item < 0, NO_NEXT_ITEM, known_label)
    classes = NEXT_ACTION_CLASS[sessions.actions]
    next_with_class = find_next(classes != NO_CLASS, ends)
    next_action = np.where(next_with_class < 0, LEAVE, classes[next_with_class])
    purchase = find_next(sessions.actions == PURCHASE, ends) >= 0

    # Inputs: the newest events on known items
    events = select_model_events(sessions, rows, max_length)
    lengths = np.bincount(session_index[events], minlength=len(sessions))
    return Examples(
        row[events].astype(np.int32),
        sessions.actions[events].astype(np.int8),
        next_item[events].astype(np.int32),
        next_action[events].astype(np.int8),
        purchase[events].astype(np.int8),
        make_starts(lengths[lengths > 0]),
    )


def select_model_events(sessions: Sessions, rows: Ints, max_length: int) -> Longs:
    """Return the indices of the events that the model reads: each session's newest `max_length` on known items.

    Args:
        sessions: Whole sessions.
        rows: Row of each entry of `sessions.item_ids`, 0 if unknown: (len(item_ids),).
        max_length: Events of a session, at most.
    """
    is_known = (sessions.items != NO_ITEM) & (rows[sessions.items] > 0)
    known_so_far = np.cumsum(is_known)  # (events,)
    ends = np.repeat(sessions.starts[1:], np.diff(sessions.starts))  # (events,)
    later = known_so_far[ends - 1] - known_so_far  # (events,): known events later in the session
    return np.flatnonzero(is_known & (later < max_length))


def locate_events(examples: Examples, sessions: Longs) -> Longs:
    """Return the indices of all events of these sessions in the flat arrays, session by session."""
    return concatenate_spans(examples.starts[sessions], examples.lengths[sessions])
