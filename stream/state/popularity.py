"""Popularity: a partition's items ranked by the number of users with an event on them in open sessions."""

import heapq
from collections.abc import Collection, Iterable
from itertools import islice

from clickscore.schemas.clients import FIRST_MACHINE
from clickscore.schemas.snapshots import UserState
from clickscore.stream.state.clients import only_views_new_items

MAX_POPULAR = 64
"""Items in the ranking: enough for a recommendation after sold-out and bought items are removed."""


MAX_COUNTED = 8
"""Items for which a user counts at most: the mean length of a session. So a bot that is not recognised yet counts for
no more items than a shopper."""


def newest_items(items: list[str]) -> Collection[str]:
    """Return the newest distinct items of a session, at most `MAX_COUNTED`; the empty item of a search is left out."""
    newest = dict.fromkeys(reversed(items))
    newest.pop("", None)
    return newest if len(newest) <= MAX_COUNTED else dict.fromkeys(islice(newest, MAX_COUNTED))


class Popularity:
    """User counts of items, and the ranking made from these counts at every refresh.

    The counts follow from the users' open sessions, so a restart needs no record of the counts. The ranking is of
    an earlier moment and cannot be derived, so the ranking is part of the partition's snapshot.
    """

    def __init__(self, *, counts_machines: bool = False) -> None:
        """Start without counts.

        Args:
            counts_machines: Whether bots and agents count as shoppers do.
        """
        self._counts_machines = counts_machines
        self.ranking: list[str] = []
        """Items, best first. Each change makes a new list, so readers may keep a reference."""
        self._counts: dict[str, int] = {}

    def counts(self, user: UserState) -> bool:
        """Return whether a user counts: a shopper does, and a machine where machines count."""
        return self._counts_machines or user.client < FIRST_MACHINE

    def counted_items(self, user: UserState) -> Collection[str]:
        """Return the items for which a user counts: the newest of the open session, each once."""
        if not (user.length and self.counts(user)):
            return ()
        if not (self._counts_machines or user.client) and only_views_new_items(user):
            return ()
        return newest_items(user.items)

    def recount(self, former_items: Collection[str], user: UserState) -> None:
        """Bring the counts of a user's items up to date after a change.

        Args:
            former_items: Items for which the user counted before the change.
            user: State of the user.
        """
        items = self.counted_items(user)
        for item in former_items:
            if item not in items:
                self.remove(item)
        for item in items:
            if item not in former_items:
                self.add(item)

    def add(self, item_id: str) -> None:
        """Count a user of an item; ignore the empty id of a search. A new item joins a ranking with room at once."""
        if not item_id:
            return
        self._counts[item_id] = self._counts.get(item_id, 0) + 1
        if len(self.ranking) < MAX_POPULAR and item_id not in self.ranking:
            self.ranking = [*self.ranking, item_id]

    def remove(self, item_id: str) -> None:
        """Uncount a user of an item; the empty id of a search is ignored."""
        if not item_id:
            return
        remaining = self._counts.get(item_id, 0) - 1
        if remaining > 0:
            self._counts[item_id] = remaining
        else:
            self._counts.pop(item_id, None)

    def drop_uncounted(self, item_ids: Iterable[str]) -> None:
        """Take those of the items out of the ranking that no longer have a count: only an erased user had them."""
        dropped = {item for item in item_ids if item not in self._counts}
        self.ranking = [item for item in self.ranking if item not in dropped]

    def load_counts(self, item_ids: Iterable[str]) -> None:
        """Count the user of a restored session for its items, and leave the ranking of the snapshot unchanged."""
        for item_id in item_ids:
            if item_id:
                self._counts[item_id] = self._counts.get(item_id, 0) + 1

    def refresh(self) -> None:
        """Rank the items anew: most users first, items of equal counts in alphabetical order."""
        # Only items that reach the lowest count of the best are sorted by name: a small part of all items.
        lowest = min(heapq.nlargest(MAX_POPULAR, self._counts.values()), default=0)
        best = sorted((-count, item) for item, count in self._counts.items() if count >= lowest)
        ranked = [item for _, item in best[:MAX_POPULAR]]
        # Items without users keep their order behind the others, as long as there is room.
        ranked_set = set(ranked)
        self.ranking = (ranked + [item for item in self.ranking if item not in ranked_set])[:MAX_POPULAR]
