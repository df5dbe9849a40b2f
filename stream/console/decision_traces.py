"""Decision traces: the parts of a decision that a later impression, click or purchase needs."""

from collections import OrderedDict

from clickscore.schemas.decisions import PLAIN_LIST, Ad, Recommendation, compared_variant
from clickscore.schemas.events import Event, Impression, ItemEvent
from clickscore.stream.decision_ids import AD_SUFFIX

MAX_TRACES = 60_000
"""Number of decisions that are remembered: about 30 MB. The oldest decision goes first."""


class DecisionTrace:
    """A decision, as far as later events need it."""

    __slots__ = ("ad_placements", "is_impression", "screen", "shelves", "variant")

    def __init__(self) -> None:
        self.variant = ""
        """Variant for which the decision counts; empty until the recommendation is read."""
        self.is_impression = False
        """Whether the event is an impression: a shop shows no items for an impression."""
        self.screen = ""
        """Item of the event; empty for a search, or until the event is read."""
        self.ad_placements: dict[str, str] | None = None
        """Placement of the ad of each campaign; absent without an ad."""
        self.shelves: dict[str, str] | None = None
        """Name of the shelf by item; absent for a page with a plain list."""

    def placement(self, item_id: str, campaign_id: str | None) -> str:
        """Return the placement of an item of the page: a shelf, the plain list, or the placement of an ad.

        Args:
            item_id: The item.
            campaign_id: Campaign of an ad; None for any other item.
        """
        ad_placement = (self.ad_placements or {}).get(campaign_id or "")
        return ad_placement or (self.shelves or {}).get(item_id, PLAIN_LIST)


class DecisionTraces:
    """Remembers the newest decisions."""

    def __init__(self, max_traces: int = MAX_TRACES) -> None:
        """Start empty.

        Args:
            max_traces: Number of decisions that are remembered.
        """
        self._max_traces = max_traces
        self._traces: OrderedDict[str, DecisionTrace] = OrderedDict()

    def find(self, decision_id: str) -> DecisionTrace | None:
        """Return the trace of a recommendation, or of the ad decision on the same event; absent for an unknown id."""
        return self._traces.get(decision_id.removesuffix(AD_SUFFIX))

    def add_event(self, log_id: str, event: Event) -> None:
        """Remember the item of an event.

        Args:
            log_id: Id of the decision on the event.
            event: The event.
        """
        trace = self._trace(log_id)
        trace.is_impression = isinstance(event, Impression)
        if isinstance(event, ItemEvent):
            trace.screen = event.item_id

    def add_decision(self, decision: Recommendation) -> DecisionTrace:
        """Remember a recommendation."""
        trace = self._trace(decision.decision_id)
        trace.variant = compared_variant(decision)
        if decision.shelves:
            shelves = [
                (decision.shelf or PLAIN_LIST, decision.items),
                *((shelf.name, shelf.items) for shelf in decision.shelves),
            ]
            trace.shelves = {choice.item_id: name for name, items in shelves for choice in items}
        return trace

    def add_ad(self, ad: Ad) -> DecisionTrace:
        """Remember the sold slots of an ad decision."""
        trace = self._trace(ad.decision_id.removesuffix(AD_SUFFIX))
        if ad.slots:
            trace.ad_placements = {slot.campaign_id: slot.placement for slot in ad.slots}
        return trace

    def _trace(self, log_id: str) -> DecisionTrace:
        trace = self._traces.get(log_id)
        if trace is None:
            trace = self._traces[log_id] = DecisionTrace()
            if len(self._traces) > self._max_traces:
                self._traces.popitem(last=False)
        return trace
