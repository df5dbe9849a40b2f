"""Catalogue history: the catalogue and the campaigns as of any recent epoch, over a single table.

Partitions of a worker may be in different epochs. The table has the newest values that any of the partitions uses.
Records after these wait, and for each recent change the value before the change is kept. So a view of an older epoch
costs nothing but the changes since: the views share the table, and no partition has a copy.
"""

import heapq
import operator
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

import msgspec

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.events import Epoch
from clickscore.schemas.topics import CATALOGUE
from clickscore.stream.reference.campaigns import NewestItem, PageContext, is_target
from clickscore.stream.reference.catalogue import (
    ANY,
    Catalogue,
    ItemDetails,
    ItemFacts,
    facts_of,
    newest_item,
    read_campaign,
    read_item,
)
from clickscore.stream.reference.price_order import PriceOrder, merge_nearest

RETAINED_CHANGES = 50_000
"""Number of newest changes of a topic that are kept although no partition of this worker needs the values before: some
20 MB. A partition that comes from another worker may be in an older epoch; without its values all is read again."""

Value = TypeVar("Value")


class Offsets(NamedTuple):
    """Offsets of the topics of reference data: the records before the offsets are in effect."""

    catalogue: int
    campaigns: int


NO_OFFSETS = Offsets(0, 0)
"""Offsets of an epoch before the first record."""


def offsets_of(epoch: Epoch) -> Offsets:
    """Return the offsets of reference data that an epoch names."""
    return Offsets(epoch.catalogue, epoch.campaigns)


class _KeyHistory(Generic[Value]):
    """Values by key: the table, the records that wait, and the values before recent changes."""

    def __init__(self, read: Callable[[str], Value], write: Callable[[str, Value], None], retained: int) -> None:
        """Start with an empty topic.

        Args:
            read: Returns the value of a key in the table.
            write: Sets the value of a key in the table.
            retained: Number of newest changes that are kept although no view needs them.
        """
        self.position = 0
        """Offset after the last record read from the topic."""
        self.applied = 0
        """Offset after the last record applied to the table."""
        self.known_from = 0
        """Smallest offset whose values are known."""
        self.earlier_values: dict[str, list[tuple[int, Value]]] = {}
        """For each key the recent changes: offset of the change and value before the change, in order."""
        self._read = read
        self._write = write
        self._retained = retained
        self._waiting: deque[tuple[int, str, Value]] = deque()
        self._changes: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self._changes) + len(self._waiting)

    def add(self, offset: int, key: str, value: Value) -> None:
        """Add the next record of the topic; the record waits until `advance`."""
        self._waiting.append((offset, key, value))
        self.position = offset + 1

    def forget_before(self, offset: int) -> None:
        """Apply the records before an offset without the values before them, as for a start in this epoch."""
        while self._waiting and self._waiting[0][0] < offset:
            _, key, value = self._waiting.popleft()
            self._write(key, value)
        self.applied = max(self.applied, min(offset, self.position))
        self.known_from = max(self.known_from, self.applied)

    def has_waiting(self, end: int) -> bool:
        """Return whether records before `end` wait."""
        return bool(self._waiting) and self._waiting[0][0] < end

    def advance(self, end: int) -> None:
        """Apply the records before `end`."""
        while self._waiting and self._waiting[0][0] < end:
            offset, key, value = self._waiting.popleft()
            former = self._read(key)
            if former != value:  # many records of a busy catalogue only change a stock above 0
                self.earlier_values.setdefault(key, []).append((offset, former))
                self._changes.append((offset, key))
            self._write(key, value)
        self.applied = max(self.applied, min(end, self.position))

    def has_changed(self, offset: int) -> bool:
        """Return whether any value has changed since an offset."""
        return bool(self._changes) and self._changes[-1][0] >= offset

    def value(self, key: str, offset: int) -> Value:
        """Return the value of a key as of an offset."""
        changes = self.earlier_values.get(key)
        if changes is not None:
            index = bisect_left(changes, offset, key=_offset_of)
            if index < len(changes):
                return changes[index][1]
        return self._read(key)

    def changed_keys(self, offset: int) -> set[str]:
        """Return the keys that have changed since an offset."""
        keys: set[str] = set()
        for changed_at, key in reversed(self._changes):
            if changed_at < offset:
                break
            keys.add(key)
        return keys

    def trim(self, needed_from: int) -> None:
        """Drop the values before changes that no view needs, except of the newest changes."""
        while len(self._changes) > self._retained and self._changes[0][0] < needed_from:
            offset, key = self._changes.popleft()
            changes = self.earlier_values[key]
            del changes[0]
            if not changes:
                del self.earlier_values[key]
            self.known_from = offset + 1


_offset_of = operator.itemgetter(0)


class _EarlierItems(Container[str]):
    """Items with a flag as of an offset: the table's set, with the earlier values of changed items."""

    def __init__(
        self,
        newest: set[str],
        earlier_values: Mapping[str, list[tuple[int, ItemFacts]]],
        offset: int,
        flag: Callable[[ItemFacts], bool],
    ) -> None:
        """Build the set.

        Args:
            newest: The table's set.
            earlier_values: Recent changes of each item.
            offset: Records before this offset are in effect.
            flag: Returns the flag of an item's facts.
        """
        self._newest = newest
        self._earlier_values = earlier_values
        self._offset = offset
        self._flag = flag

    def __contains__(self, item: object) -> bool:
        changes = self._earlier_values.get(item)  # pyright: ignore[reportArgumentType, reportCallIssue]  (an item id)
        if changes is not None:
            index = bisect_left(changes, self._offset, key=_offset_of)
            if index < len(changes):
                return self._flag(changes[index][1])
        return item in self._newest


class CatalogueView:
    """Catalogue and campaigns as of an epoch, for reading."""

    version = 0
    """A view never changes."""

    def __init__(self, history: "CatalogueHistory", offsets: Offsets) -> None:
        self.offsets = offsets
        """Records before these offsets are in effect."""
        self.out_of_stock: Container[str] = history.newest.out_of_stock
        """Items without stock."""
        self.hidden: Container[str] = history.newest.hidden
        """Items that the shop hides or has removed."""
        self._history = history
        self._is_newest_items = True
        self._is_newest_campaigns = True
        self._changed: dict[str, Campaign | None] = {}
        self._changed_until = -1  # offset of the table for which `_changed` was computed
        self._earlier_order = PriceOrder()  # the items that have changed since, as they were
        self._earlier_arrivals = PriceOrder()
        self._reordered: set[str] = set()  # the items in `_earlier_order`, and those that were in no kind
        self._reordered_until = offsets.catalogue
        if history.items.has_changed(offsets.catalogue):
            self.keep_items()
        if history.campaigns.has_changed(offsets.campaigns):
            self.keep_campaigns()

    def keep_items(self) -> None:
        """Keep the items as they are before the table changes."""
        if self._is_newest_items:
            newest, history, offset = self._history.newest, self._history.items, self.offsets.catalogue
            flags = operator.attrgetter("is_out_of_stock"), operator.attrgetter("is_hidden")
            self.out_of_stock = _EarlierItems(newest.out_of_stock, history.earlier_values, offset, flags[0])
            self.hidden = _EarlierItems(newest.hidden, history.earlier_values, offset, flags[1])
            self._is_newest_items = False

    def keep_campaigns(self) -> None:
        """Keep the campaigns as they are before the table changes."""
        self._is_newest_campaigns = False

    def category_of(self, item_id: str) -> str | None:
        """Return the category of an item; None for an unknown item or an item without a category."""
        if self._is_newest_items:
            return self._history.newest.category_of(item_id)
        return self._history.items.value(item_id, self.offsets.catalogue).category or None

    def details_of(self, item_id: str) -> ItemDetails:
        """Return what else the catalogue says of an item."""
        if self._is_newest_items:
            return self._history.newest.details_of(item_id)
        return self._history.items.value(item_id, self.offsets.catalogue).details

    def similar_to(self, item_id: str) -> Iterator[str]:
        """Yield the items of the same category and brand, the nearest price first; the item itself is among them."""
        history = self._history
        if self._is_newest_items:
            yield from history.newest.similar_to(item_id)
            return
        facts = history.items.value(item_id, self.offsets.catalogue)
        if facts.kind is None:
            return
        price, _ = facts.priced(item_id)
        changed = self._order_changes()
        earlier_order = self._earlier_order
        newest = (item for item in history.newest.order.nearest(facts.kind, price) if item[1] not in changed)
        yield from (similar for _, similar in merge_nearest(newest, earlier_order.nearest(facts.kind, price), price))

    def arrivals_before(self, ts: int) -> Iterator[tuple[str, int]]:
        """Yield the items that are in the shop since before a time (ms), each with its own time, the newest first."""
        if self._is_newest_items:
            yield from self._history.newest.arrivals_before(ts)
            return
        changed = self._order_changes()
        newest = (entry for entry in self._history.newest.arrivals.below(ANY, ts) if entry[1] not in changed)
        merged = heapq.merge(newest, self._earlier_arrivals.below(ANY, ts), reverse=True)
        yield from ((item, int(listed_at)) for listed_at, item in merged)

    def _order_changes(self) -> set[str]:
        """Return the items that have changed since this epoch, after ordering these items as they were."""
        history = self._history.items
        if self._reordered_until != history.applied:
            for key in history.changed_keys(self._reordered_until) - self._reordered:
                facts = history.value(key, self.offsets.catalogue)
                if facts.kind is not None:
                    self._earlier_order.add(facts.kind, facts.priced(key))
                if facts.listed_at is not None:
                    self._earlier_arrivals.add(ANY, (facts.listed_at, key))
                self._reordered.add(key)
            self._reordered_until = history.applied
        return self._reordered

    @property
    def has_limited(self) -> bool:
        """Whether any item may be sold in some regions or to some customer groups only."""
        return not self._is_newest_items or self._history.newest.has_limited

    @property
    def has_campaigns(self) -> bool:
        """Whether there is any campaign."""
        newest = self._history.newest.campaigns
        if self._is_newest_campaigns:
            return bool(newest)
        changed = self._changed_campaigns()
        return any(changed.values()) or any(campaign_id not in changed for campaign_id in newest)

    @property
    def has_budgets(self) -> bool:
        """Whether any campaign has a budget."""
        budgeted = self._history.newest.budgeted
        if self._is_newest_campaigns:
            return bool(budgeted)
        changed = self._changed_campaigns()
        return any(campaign and campaign.has_budget for campaign in changed.values()) or bool(
            budgeted.difference(changed)
        )

    def campaign(self, campaign_id: str) -> Campaign | None:
        """Return a campaign; None for an unknown id."""
        changed = {} if self._is_newest_campaigns else self._changed_campaigns()
        return changed[campaign_id] if campaign_id in changed else self._history.newest.campaigns.get(campaign_id)

    def matching(self, page: PageContext) -> list[Campaign]:
        """Return the campaigns that target a page, and those without a target."""
        item = newest_item(page.items)
        newest = NewestItem(self.category_of(item) or "", self.details_of(item).brand)
        matches = self._history.newest.campaign_index.matching(page, newest)
        if self._is_newest_campaigns:
            return matches
        changed = self._changed_campaigns()
        earlier = [campaign for campaign in changed.values() if campaign and is_target(campaign, page, newest)]
        return [campaign for campaign in matches if campaign.campaign_id not in changed] + earlier

    def _changed_campaigns(self) -> dict[str, Campaign | None]:
        """Return the campaigns that have changed since this epoch, as they were; None for a missing campaign."""
        history, offset = self._history.campaigns, self.offsets.campaigns
        if self._changed_until != history.applied:
            self._changed = {key: history.value(key, offset) for key in history.changed_keys(offset)}
            self._changed_until = history.applied
        return self._changed


AnyCatalogue = Catalogue | CatalogueView
"""A catalogue to decide with: the newest, or the catalogue as of an epoch."""


class CatalogueHistory:
    """The newest catalogue in use, the records that wait for an epoch, and the views of epochs."""

    def __init__(self, newest: Catalogue | None = None, retained: int = RETAINED_CHANGES) -> None:
        """Start without records.

        Args:
            newest: Table to work on; by default an empty catalogue.
            retained: Number of newest changes of each topic that are kept although no view needs them.
        """
        self.newest = newest if newest is not None else Catalogue()
        """The newest catalogue that any partition uses."""
        self.items: _KeyHistory[ItemFacts] = _KeyHistory(self.newest.facts, self.newest.replace_facts, retained)
        """History of the items."""
        self.campaigns: _KeyHistory[Campaign | None] = _KeyHistory(
            self.newest.campaigns.get, self.newest.replace_campaign, retained
        )
        """History of the campaigns."""
        self._views: weakref.WeakSet[CatalogueView] = weakref.WeakSet()

    @property
    def position(self) -> Offsets:
        """Offsets after the last records read."""
        return Offsets(self.items.position, self.campaigns.position)

    def position_of(self, topic: str) -> int:
        """Return the offset after the last record read from a topic, by the name without the prefix."""
        return (self.items if topic == CATALOGUE.name else self.campaigns).position

    @property
    def retained(self) -> int:
        """Number of changes that wait or that are kept for views."""
        return len(self.items) + len(self.campaigns)

    def add(self, topic: str, offset: int, key: bytes | None, value: bytes | None) -> str | None:
        """Add the next record of a topic; the record takes effect in views of later epochs only.

        Args:
            topic: Name of the topic without the prefix.
            offset: Offset of the record.
            key: Id of the item or the campaign.
            value: The item or the campaign as JSON; null and empty are tombstones.

        Returns:
            The reason why the record is ignored; None if the record was added.
        """
        try:
            if topic == CATALOGUE.name:
                item_id, item = read_item(key, value)
                self.items.add(offset, item_id, facts_of(item))
            else:
                self.campaigns.add(offset, *read_campaign(key, value))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self.move_to(topic, offset + 1)
            return str(exc)
        return None

    def move_to(self, topic: str, position: int) -> None:
        """Note that the records of a topic before a position are read; compaction leaves offsets without a record."""
        history = self.items if topic == CATALOGUE.name else self.campaigns
        history.position = max(history.position, position)

    def forget_before(self, offsets: Offsets) -> None:
        """Apply the records before these offsets for good: no partition is in an earlier epoch."""
        self.items.forget_before(offsets.catalogue)
        self.campaigns.forget_before(offsets.campaigns)

    def knows(self, offsets: Offsets) -> bool:
        """Return whether the values as of these offsets are still known."""
        return offsets.catalogue >= self.items.known_from and offsets.campaigns >= self.campaigns.known_from

    def has_reached(self, offsets: Offsets) -> bool:
        """Return whether all records before these offsets are read."""
        return self.items.position >= offsets.catalogue and self.campaigns.position >= offsets.campaigns

    def view(self, offsets: Offsets) -> CatalogueView:
        """Return the catalogue as of these offsets; the table moves on if the offsets are newer."""
        for view in self._views:
            if view.offsets == offsets:
                return view
        if self.items.has_waiting(offsets.catalogue):
            for view in self._views:
                view.keep_items()
        if self.campaigns.has_waiting(offsets.campaigns):
            for view in self._views:
                view.keep_campaigns()
        self.items.advance(offsets.catalogue)
        self.campaigns.advance(offsets.campaigns)
        view = CatalogueView(self, offsets)
        self._views.add(view)
        self.trim()
        return view

    def trim(self) -> None:
        """Drop the values before changes that no view needs, except of the newest changes."""
        oldest = [view.offsets for view in self._views] or [Offsets(self.items.applied, self.campaigns.applied)]
        self.items.trim(min(offsets.catalogue for offsets in oldest))
        self.campaigns.trim(min(offsets.campaigns for offsets in oldest))
