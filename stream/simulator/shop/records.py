"""The synthetic shop's events, and the truth that stands beside each."""

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
"""The Kafka header that a simulated event carries its truth in, as JSON."""

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
    """What only a simulation knows of an event: the shopper's hidden state after it, and what follows from that."""

    event_id: str
    intent: str
    style: str
    """The shopper's taste."""
    need: str
    """The category that is looked for."""
    stage: str
    fit: str
    """Of the item on the screen."""
    purchase: float
    """Probability of a purchase in what is left of the visit, if everything is in stock and no recommendation is
    clicked."""
    actions: dict[str, float]
    """Probability of each of the next actions, searches and removals passed over; on the same condition."""
    click: float | None = None
    """Of an impression: the probability that this item is clicked, now that it is looked at."""
    repeat: bool = False
    """Sent a second time on purpose: the same event, the same bytes."""
    out_of_order: bool = False
    """A newer event of the same shopper was sent before it."""
    delay_ms: int = 0
    """How long after it happened it was sent."""


decode_truth = msgspec.json.Decoder(Truth).decode
encode_truth = msgspec.json.Encoder().encode


class Recorder:
    """Makes the events of one shop, and the truths."""

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
        decision_id: str | None = None,
        position: int | None = None,
    ) -> AnyEvent:
        """Return an event about an item, of the class that `action` names."""
        item = self._items[row]
        return _CLASSES[action](
            event_id=event_id,
            user_id=user_id,
            ts=ts,
            session_id=session_id,
            decision_id=decision_id,
            position=position,
            item_id=item.item_id,
            price=item.price,
            category=item.category,
        )

    def search(self, need: int, *, event_id: str, user_id: str, session_id: str, ts: int) -> Search:
        """Return a search for what is needed."""
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
        """Return the truth of an event after which a visit's state is (style, need, intent, stage, fit)."""
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
