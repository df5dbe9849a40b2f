"""Records: the synthetic shop's events, each with its truth."""

import msgspec

from clickscore.schemas.events import (
    AnyEvent,
    Cart,
    Click,
    Favourite,
    Impression,
    Purchase,
    RemoveFromCart,
    Search,
    View,
)
from clickscore.schemas.manifest import NEXT_ACTIONS
from clickscore.stream.simulator.shop.assortment import CATEGORIES, STYLES, Assortment
from clickscore.stream.simulator.shop.shoppers import FITS, INTENTS, STAGES, Chain

TRUTH_HEADER = "truth"
"""Kafka header of a simulated event with its truth as JSON."""

_CLASSES = {
    "view": View,
    "cart": Cart,
    "remove_from_cart": RemoveFromCart,
    "favourite": Favourite,
    "purchase": Purchase,
    "click": Click,
    "impression": Impression,
}


class Truth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Facts about an event that only a simulation knows: the hidden state after the event, and probabilities."""

    event_id: str
    intent: str
    style: str
    """Taste of the shopper."""
    need: str
    """Category that the shopper looks for."""
    stage: str
    fit: str
    """How well the item on screen fits the shopper."""
    purchase: float
    """Probability of a purchase in the rest of the visit, given full stock and no clicked recommendation."""
    actions: dict[str, float]
    """Probability of each next action on the same condition. Searches and removals are skipped."""
    click: float | None = None
    """Probability of a click on this item; only for an impression."""
    repeat: bool = False
    """Whether the event is an intentional repeat with the same bytes."""
    out_of_order: bool = False
    """Whether a newer event of the same shopper was sent earlier."""
    delay_ms: int = 0
    """Time between the event and its sending, ms."""


decode_truth = msgspec.json.Decoder(Truth).decode
encode_truth = msgspec.json.Encoder().encode


class Recorder:
    """Builder of the events and truths of one shop."""

    def __init__(self, assortment: Assortment, chain: Chain) -> None:
        self._items = assortment.items
        self._purchase = chain.purchase.round(6)
        self._actions = {
            (intent, stage, fit): dict(
                zip(NEXT_ACTIONS, chain.next_actions[intent, stage, fit].round(6).tolist(), strict=True)
            )
            for intent in range(len(INTENTS))
            for stage in range(len(STAGES))
            for fit in range(len(FITS))
        }

    def item_event(
        self,
        action: str,
        row: int,
        *,
        event_id: str,
        user_id: str,
        session_id: str,
        ts: int,
    ) -> AnyEvent:
        """Return an event about an item.

        Args:
            action: Name of the event type.
            row: Row of the item.
            event_id: Id of the event.
            user_id: Id of the shopper.
            session_id: Id of the visit.
            ts: Time of the event, ms since the epoch.
        """
        item = self._items[row]
        return _CLASSES[action](
            event_id=event_id,
            user_id=user_id,
            ts=ts,
            session_id=session_id,
            item_id=item.item_id,
            price=item.price,
            category=item.category,
        )

    def search(self, need: int, *, event_id: str, user_id: str, session_id: str, ts: int) -> Search:
        """Return a search for a needed category.

        Args:
            need: Index of the category.
            event_id: Id of the event.
            user_id: Id of the shopper.
            session_id: Id of the visit.
            ts: Time of the event, ms since the epoch.
        """
        query = CATEGORIES[need][0].lower()
        return Search(event_id=event_id, user_id=user_id, ts=ts, session_id=session_id, query=query)

    def truth(
        self,
        state: tuple[int, int, int, int, int],
        event_id: str,
        *,
        click: float | None = None,
        repeat: bool = False,
        out_of_order: bool = False,
        delay_ms: int = 0,
    ) -> Truth:
        """Return the truth of an event.

        Args:
            state: Hidden state after the event: (style, need, intent, stage, fit).
            event_id: Id of the event.
            click: Probability of a click, for an impression.
            repeat: Whether the event is an intentional repeat.
            out_of_order: Whether a newer event of the shopper was sent earlier.
            delay_ms: Time between the event and its sending, ms.
        """
        style, need, intent, stage, fit = state
        return Truth(
            event_id=event_id,
            intent=INTENTS[intent],
            style=STYLES[style][0],
            need=CATEGORIES[need][0],
            stage=STAGES[stage],
            fit=FITS[fit],
            purchase=float(self._purchase[intent, style, stage, need, fit]),
            actions=self._actions[intent, stage, fit],
            click=click,
            repeat=repeat,
            out_of_order=out_of_order,
            delay_ms=delay_ms,
        )
