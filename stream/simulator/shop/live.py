"""Live shop: shoppers act, see their recommendations, and react.

The shop has no clock and no Kafka: `advance` gets the time, and `receive` gets a decision. A shopper does not know the
variant of a recommendation: clicks depend only on how well an item fits.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from itertools import count, takewhile

import msgspec
import numpy as np

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Ad, AnyDecision, Choice, Recommendation, compared_variant
from clickscore.schemas.events import AnyEvent
from clickscore.stream.simulator.shop.delivery import Delivery
from clickscore.stream.simulator.shop.rhythm import draw_thinking, rhythm
from clickscore.stream.simulator.shop.shop_events import Recorder, Truth
from clickscore.stream.simulator.shop.shoppers import (
    AD_FACTOR,
    FURTHER,
    LEAVE,
    LOOK,
    MOVES,
    NO_ITEM,
    PURCHASE,
    Shop,
    Visits,
    click_probabilities,
    user_id,
)
from clickscore.stream.simulator.shop.stock import Stock

PACE = 10
"""Speed of simulated shoppers relative to real shoppers, so that a demo of one minute shows complete visits."""
LIVE_DAY_MS = 600_000
"""Length of a day in the live shop, ms: the daily rhythm passes in ten minutes."""
OPENS_AT_HOUR = 9

_CLICK_AFTER_MS = 600  # time from an impression to its click
_OPEN_AFTER_MS = 100  # time from a click to the opened page
_FIRST_ROWS = 1_024  # initial size of the state arrays, doubled on demand


@dataclasses.dataclass
class Reactions:
    """Reactions of shoppers to recommendations or ads."""

    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    """Number of purchases of clicked items within the same visit."""


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """Records to send now."""

    events: list[tuple[AnyEvent, Truth]]
    malformed: list[tuple[str, bytes]]
    """Malformed records, each with its user."""
    items: list[Item]
    """Items with changed stock."""


@dataclasses.dataclass(frozen=True)
class _Source:
    """Decision through which a shopper found an item."""

    decision_id: str
    position: int
    reactions: Sequence[Reactions]
    """Counts that the reactions of the shopper enter."""
    campaign_id: str | None = None


@dataclasses.dataclass
class _Visit:
    """One open visit."""

    row: int
    """Row of the hidden state in the shop's state arrays."""
    user_id: str
    session_id: str
    events: int = 0
    last_event_id: str = ""
    unanswered: set[type[AnyDecision]] = dataclasses.field(default_factory=set[type[AnyDecision]])
    """Kinds of decision about the last event that the shopper has not seen yet."""
    turn: int = 0
    """Number of the next scheduled action. Older scheduled actions are void."""
    clicking: tuple[int, _Source] | None = None
    """Item that the shopper is about to click, or whose page is about to open."""
    clicked: bool = False
    sources: dict[int, _Source] = dataclasses.field(default_factory=dict[int, _Source])
    """Items that the shopper found through a decision, by row."""


class LiveShop:
    """The open shop. The same shop, times and decisions give the same records."""

    def __init__(self, shop: Shop, run: str, *, rate: float) -> None:
        """Open the shop.

        Args:
            shop: Shoppers and items.
            run: Prefix of session ids and event ids, so that two runs on one topic share no ids.
            rate: Records per second on the average of a day, including impressions.
        """
        self._shop, self._run, self._rate = shop, run, rate
        self._rng = np.random.default_rng([shop.seed, 4])
        self._recorder = Recorder(shop.assortment, shop.chain)
        self._delivery = Delivery(self._rng)
        self._stock = Stock(shop.assortment.items, self._rng)
        self._rows = {item.item_id: row for row, item in enumerate(shop.assortment.items)}
        self._activity = np.cumsum(shop.population.activity)
        self._states = Visits(*(np.zeros(_FIRST_ROWS, np.int64) for _ in dataclasses.fields(Visits)))
        self._free = list(range(_FIRST_ROWS))
        self._open: dict[str, _Visit] = {}
        self._sessions, self._serial = count(), count()
        self._agenda: list[tuple[int, int, _Visit, int]] = []
        self._budget = 0.0
        self._began_at: int | None = None
        self._now = 0
        self.variants: dict[str, Reactions] = {}
        """Reactions to recommendations, by `compared_variant`; of a page with shelves those to the main shelf."""
        self.shelves: dict[str, Reactions] = {}
        """Reactions to the shelves of pages by name, apart from ads."""
        self.ads = Reactions()

    def advance(self, now: int) -> Outgoing:
        """Return the records to send by the time `now` in ms. The time never goes back."""
        if self._began_at is None:
            self._began_at = self._now = now
        busy = rhythm(now - self._began_at + OPENS_AT_HOUR * LIVE_DAY_MS // 24, LIVE_DAY_MS)
        self._budget += self._rate * busy * (now - self._now) / 1_000
        self._now = now
        self._act_all()
        # Open visits continue at any rate; newcomers use the rest of the rate.
        newcomers = int(self._budget) - len(self._delivery)
        if newcomers > 0:
            self._let_in(newcomers)
        events, malformed = self._delivery.collect(now)
        # Catch up at most one second of records, so that a slow machine does not send a flood.
        self._budget = max(min(self._budget - len(events) - len(malformed), self._rate), -self._rate)
        return Outgoing(events, malformed, self._stock.collect(now))

    def receive(self, decision: AnyDecision) -> None:
        """Show a decision to its shopper, if the decision belongs to the shopper's newest event."""
        visit, kind = self._open.get(decision.user_id), type(decision)
        if not visit or visit.clicking or decision.event_id != visit.last_event_id or kind not in visit.unanswered:
            return
        visit.unanswered.remove(kind)
        if isinstance(decision, Ad):
            ads = [(slot.item_id, slot.campaign_id) for slot in decision.slots if slot.position is None]
            self._look(visit, decision.decision_id, ads, [self.ads], AD_FACTOR)
        else:
            reactions = [self.variants.setdefault(compared_variant(decision), Reactions())]
            if decision.shelf:
                reactions.append(self.shelves.setdefault(decision.shelf, Reactions()))
            self._look(visit, decision.decision_id, _shown(decision.items), reactions)
            for shelf in decision.shelves or ():
                if shelf.job != "sponsored" and not visit.clicking:  # the shopper sees the ads with their own decision
                    reactions = [self.shelves.setdefault(shelf.name, Reactions())]
                    self._look(visit, decision.decision_id, _shown(shelf.items), reactions)

    def _look(
        self,
        visit: _Visit,
        decision_id: str,
        shown: Sequence[tuple[str, str | None]],
        reactions: Sequence[Reactions],
        factor: float = 1.0,
    ) -> None:
        """Let the shopper read items from the top until a click or a loss of interest. Each read item is an impression.

        A shopper who clicks nothing looks at the next shelf as likely as at the first.

        Args:
            visit: Visit of the shopper.
            decision_id: Id of the decision.
            shown: Items in the order of display, each with the campaign of an ad.
            reactions: Counts to update.
            factor: Factor on the probability of a click.
        """
        # An item of another shop cannot be shown: the worker may run a bundle of that shop.
        shown = list(takewhile(lambda item: item[0] in self._rows, shown))
        rows = [self._rows[item_id] for item_id, _ in shown]
        if not rows or self._rng.random() >= LOOK:
            return
        style, need, intent, _, _ = self._state(visit)
        on_screen = int(self._states.item[visit.row])
        clicks = factor * click_probabilities(np.array(rows), need, style, intent, on_screen)
        for position, (row, click) in enumerate(zip(rows, clicks.tolist(), strict=True)):
            source = _Source(decision_id, position, reactions, shown[position][1])
            self._record(visit, "impression", row, source, click=round(click, 6))
            for counts in reactions:
                counts.impressions += 1
            if self._rng.random() < click:
                visit.clicking, visit.clicked = (row, source), False
                self._plan(visit, _CLICK_AFTER_MS)
                return
            if self._rng.random() >= FURTHER:
                return

    def _act_all(self) -> None:
        """Run all scheduled actions that are due."""
        walking: list[_Visit] = []
        while self._agenda and self._agenda[0][0] <= self._now:
            _, _, visit, turn = heapq.heappop(self._agenda)
            if turn != visit.turn:
                continue
            if visit.clicking:
                self._follow_click(visit, *visit.clicking)
            else:
                walking.append(visit)
        if walking:
            self._walk(walking)

    def _walk(self, walking: list[_Visit]) -> None:
        state_rows = np.array([visit.row for visit in walking])
        states = self._states.take(state_rows)
        moves, about = self._shop.chain.step(states, self._rng)
        self._states.put(state_rows, states)
        pauses = draw_thinking(len(walking), self._rng, PACE).tolist()
        for visit, move, row, pause in zip(walking, moves.tolist(), about.tolist(), pauses, strict=True):
            # A shopper who finds the item sold out at the checkout leaves, too.
            if move == LEAVE or (move == PURCHASE and not self._stock.take(row, self._now)):
                self._leave(visit)
                continue
            source = visit.sources.get(row)
            self._record(visit, MOVES[move], row, source)
            if source and move == PURCHASE:
                for counts in source.reactions:
                    counts.purchases += 1
            self._plan(visit, pause)

    def _follow_click(self, visit: _Visit, row: int, source: _Source) -> None:
        """Record the click and schedule the page view: two events, as a browser sends them.

        Args:
            visit: Visit of the shopper.
            row: Row of the clicked item.
            source: Decision that showed the item.
        """
        if not visit.clicked:
            self._record(visit, "click", row, source)
            visit.clicked = True
            for counts in source.reactions:
                counts.clicks += 1
            self._plan(visit, _OPEN_AFTER_MS)
            return
        state_row = np.array([visit.row])
        states = self._states.take(state_row)
        self._shop.chain.open_clicked(states, np.array([row]))
        self._states.put(state_row, states)
        visit.clicking = None
        visit.sources[row] = source
        self._record(visit, "view", row, source)
        self._plan(visit, int(draw_thinking(1, self._rng, PACE)[0]))

    def _let_in(self, newcomers: int) -> None:
        draws = self._rng.random(newcomers) * self._activity[-1]
        drawn = dict.fromkeys(np.searchsorted(self._activity, draws, side="right").tolist())
        shoppers = [shopper for shopper in drawn if user_id(shopper) not in self._open]
        if not shoppers:
            return
        states = self._shop.chain.arrive(self._shop.population, np.array(shoppers), self._rng)
        rows = [self._take_row() for _ in shoppers]
        self._states.put(np.array(rows), states)
        pauses = draw_thinking(len(shoppers), self._rng, PACE).tolist()
        for row, shopper, item, pause in zip(rows, shoppers, states.item.tolist(), pauses, strict=True):
            visit = _Visit(row, user_id(shopper), f"{self._run}-{next(self._sessions):06d}")
            self._open[visit.user_id] = visit
            self._record(visit, "view", item, None)
            self._plan(visit, pause)

    def _take_row(self) -> int:
        if not self._free:
            size = len(self._states)
            self._states = self._states.take(np.arange(2 * size) % size)
            self._free = list(range(size, 2 * size))
        return self._free.pop()

    def _leave(self, visit: _Visit) -> None:
        del self._open[visit.user_id]
        self._free.append(visit.row)

    def _plan(self, visit: _Visit, pause: int) -> None:
        visit.turn += 1
        heapq.heappush(self._agenda, (self._now + pause, next(self._serial), visit, visit.turn))

    def _state(self, visit: _Visit) -> tuple[int, int, int, int, int]:
        states, row = self._states, visit.row
        return (
            int(states.style[row]),
            int(states.need[row]),
            int(states.intent[row]),
            int(states.stage[row]),
            int(states.fit[row]),
        )

    def _record(
        self, visit: _Visit, action: str, row: int, source: _Source | None, *, click: float | None = None
    ) -> None:
        """Deliver the event of an action that happens now.

        Args:
            visit: Visit of the shopper.
            action: Name of the action.
            row: Row of the item.
            source: Decision that showed the item, if any.
            position: Position of the item in the decision.
            click: True probability of a click, for an impression.
        """
        state = self._state(visit)
        event_id = f"{visit.session_id}-{visit.events:03d}"
        visit.events += 1
        if action != "impression":
            visit.last_event_id = event_id
            visit.unanswered = {Recommendation, Ad}
        identity = {"event_id": event_id, "user_id": visit.user_id, "session_id": visit.session_id}
        event: AnyEvent
        if row == NO_ITEM:
            event = self._recorder.search(state[1], **identity, ts=self._now)
        else:
            event = self._recorder.item_event(action, row, **identity, ts=self._now)
            if source:
                event = msgspec.structs.replace(
                    event, decision_id=source.decision_id, position=source.position, campaign_id=source.campaign_id
                )
        self._delivery.accept(event, self._recorder.truth(state, event_id, click=click))


def _shown(items: Sequence[Choice]) -> list[tuple[str, str | None]]:
    """Return the items of a list, each with the campaign of an ad."""
    return [(choice.item_id, choice.campaign_id) for choice in items]
