"""Item tally: how often an item was recommended, shown, clicked and bought, and from where."""

from collections import OrderedDict
from typing import Any

import msgspec

from clickscore.schemas.decisions import Recommendation, page_items
from clickscore.schemas.events import Click, Event, Impression, ItemEvent, Purchase
from clickscore.stream.console.bounded import bounded_count, bounded_entry
from clickscore.stream.console.decision_traces import DecisionTrace
from clickscore.stream.console.outcome_tally import revenue_of

MAX_ITEMS = 10_000
"""Number of items; the item without a record for the longest time goes first."""
MAX_SOURCES = 12
"""Number of items on screen that are remembered as sources of an item."""


class ItemCounts(msgspec.Struct):
    """Counts of an item."""

    recommended: int = 0
    impressions: int = 0
    clicks: int = 0
    revenue: float = 0.0
    actions: dict[str, int] = {}
    """Number of events on the item, by type."""
    reasons: dict[str, int] = {}
    """Number of recommendations, by reason."""
    positions: dict[str, int] = {}
    """Number of recommendations, by position on the page from 0."""
    shown_beside: dict[str, int] = {}
    """Number of impressions, by the item on screen."""
    clicked_beside: dict[str, int] = {}
    """Number of clicks, by the item on screen."""


class ItemTally:
    """Counts by item."""

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        """Start empty.

        Args:
            max_items: Number of items.
        """
        self._max_items = max_items
        self._items: OrderedDict[str, ItemCounts] = OrderedDict()

    def add_decision(self, decision: Recommendation) -> None:
        """Count the items of a recommendation."""
        for position, choice in enumerate(page_items(decision)):
            counts = self._counts(choice.item_id)
            counts.recommended += 1
            bounded_count(counts.reasons, choice.reason, MAX_SOURCES)
            bounded_count(counts.positions, str(position), MAX_SOURCES)

    def add_event(self, event: Event, trace: DecisionTrace | None) -> None:
        """Count an event.

        Args:
            event: The event.
            trace: The decision that the event names, if known.
        """
        if not isinstance(event, ItemEvent):
            return
        counts = self._counts(event.item_id)
        action = str(event.__struct_config__.tag)
        counts.actions[action] = counts.actions.get(action, 0) + 1
        if isinstance(event, Purchase):
            counts.revenue += revenue_of(event)
        screen = trace.screen if trace else ""
        if isinstance(event, Impression):
            counts.impressions += 1
            if screen:
                bounded_count(counts.shown_beside, screen, MAX_SOURCES)
        elif isinstance(event, Click):
            counts.clicks += 1
            if screen:
                bounded_count(counts.clicked_beside, screen, MAX_SOURCES)

    def report(self, item_id: str) -> dict[str, Any] | None:
        """Return the counts of an item; None for an item without records."""
        counts = self._items.get(item_id)
        return None if counts is None else msgspec.to_builtins(counts)

    def clicks(self, item_id: str) -> int:
        """Return the number of clicks on an item."""
        counts = self._items.get(item_id)
        return counts.clicks if counts else 0

    def most_clicked(self, number: int) -> list[tuple[str, int, int, int]]:
        """Return the items with the most clicks: id, recommendations, impressions and clicks.

        Args:
            number: Number of items.
        """
        ranked = sorted(self._items.items(), key=lambda pair: (-pair[1].clicks, -pair[1].impressions, pair[0]))
        return [(item_id, counts.recommended, counts.impressions, counts.clicks) for item_id, counts in ranked[:number]]

    def _counts(self, item_id: str) -> ItemCounts:
        return bounded_entry(self._items, item_id, ItemCounts, self._max_items)
