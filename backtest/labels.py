"""Answers: what users did after each event of a session, known once the session has ended.

A decision is made when its event arrives, from what has arrived. Its answer is the first thing in event time that came
after all of that: later in the session than the newest event that was known, and so later in the log as well. An event
that arrived out of order is judged by what followed the session as it stood, not by what was known already.

What counts is what training learns (`model.examples`): the next item is that of the next event on an item that does
not remove it from the cart, the same item again included; a click is a view; searches and removals are no next action.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from clickscore.model.examples import LEAVE, NEXT_ACTION_CLASS, NO_CLASS, PURCHASE, REMOVAL

_CLASS_OF: list[int] = NEXT_ACTION_CLASS.tolist()


class SessionAction(NamedTuple):
    """An event of a session."""

    ts: int
    action: int
    """Its code in `schemas.events.ACTIONS`."""
    item: str
    """Empty for a search."""


class Label(NamedTuple):
    """What came after an event."""

    item: str
    """The next item; empty where none followed."""
    action: int
    """The next action's class in `schemas.manifest.NEXT_ACTIONS`; leaving, where none followed."""
    purchased: bool
    """Whether anything was bought in what was left of the session."""


NO_LABEL = Label("", LEAVE, purchased=False)


def label_session(acts: Sequence[SessionAction]) -> list[Label]:
    """Return what came after each event of a session that has ended.

    Args:
        acts: All its events, in the order in which they arrived.
    """
    order = sorted(range(len(acts)), key=lambda arrival: acts[arrival].ts)  # of the same time, the first to arrive
    place = [0] * len(acts)  # in event time, of each arrival
    following = [NO_LABEL] * len(acts)  # by place
    after = NO_LABEL
    for at in range(len(order) - 1, -1, -1):
        arrival = order[at]
        place[arrival], following[at] = at, after
        act = acts[arrival]
        turns_to_it = act.item and act.action != REMOVAL
        kind = _CLASS_OF[act.action]
        after = Label(
            act.item if turns_to_it else after.item,
            kind if kind != NO_CLASS else after.action,
            after.purchased or act.action == PURCHASE,
        )
    newest_known = accumulate(place, max)
    return [following[at] for at in newest_known]
