"""Labels: the next item, the next action and the purchase after each event of an ended session.

A decision is made when its event arrives. Its label is the first event, in event time, after every event that had
arrived by then. So a label never depends on the events that were known at the decision: an event out of order gets the
label of the newest event that was known.

The labels are those of training (`model.examples`). The next item is the item of the next event that is on an item and
is no removal from the cart; it may be the same item again. A click counts as a view. Searches and removals are no next
action.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from clickscore.model.examples import LEAVE, NEXT_ACTION_CLASS, NO_CLASS, PURCHASE, REMOVAL

_ACTION_CLASSES: list[int] = NEXT_ACTION_CLASS.tolist()


class SessionAction(NamedTuple):
    """An event of a session, reduced to the inputs of the labels."""

    ts: int
    """Event time, ms."""
    action: int
    """Code of the action in `schemas.events.ACTIONS`."""
    item: str
    """Item id; empty for a search."""


class Label(NamedTuple):
    """Outcomes in a session after an event."""

    item: str
    """Next item; empty where no item follows."""
    action: int
    """Class of the next action in `schemas.manifest.NEXT_ACTIONS`; `leave` where no action follows."""
    purchased: bool
    """Whether a purchase follows in the rest of the session."""


NO_LABEL = Label("", LEAVE, purchased=False)
"""Label of the last event of a session."""


def label_session(actions: Sequence[SessionAction]) -> list[Label]:
    """Return the label of each event of an ended session.

    Args:
        actions: All events of the session, in order of arrival.
    """
    # sorted() is stable: of events with the same time, the first to arrive comes first.
    order = sorted(range(len(actions)), key=lambda arrival: actions[arrival].ts)
    positions = [0] * len(actions)  # position in event time, of each arrival
    following = [NO_LABEL] * len(actions)  # label by position in event time
    label = NO_LABEL
    for position in range(len(order) - 1, -1, -1):
        arrival = order[position]
        positions[arrival], following[position] = position, label
        event = actions[arrival]
        is_next_item = event.item and event.action != REMOVAL
        action_class = _ACTION_CLASSES[event.action]
        label = Label(
            event.item if is_next_item else label.item,
            action_class if action_class != NO_CLASS else label.action,
            label.purchased or event.action == PURCHASE,
        )
    newest_known = accumulate(positions, max)  # position of the newest event that had arrived
    return [following[position] for position in newest_known]
