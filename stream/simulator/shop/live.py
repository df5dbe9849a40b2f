"""The synthetic shop as it happens: shoppers who act, see what was decided for them, and answer it.

No clock and no Kafka: `advance` is told the time, and `receive` a decision. Nothing here knows what a variant is
beyond its name: a shopper clicks what fits, whoever recommended it.
"""

import dataclasses
import heapq
from itertools import count, takewhile

import numpy as np

from clickscore.schemas.catalogue import Item
from clickscore.schemas.decisions import Ad, AnyDecision, Recommendation
from clickscore.schemas.events import AnyEvent
from clickscore.stream.simulator.shop.delivery import Delivery
from clickscore.stream.simulator.shop.records import Recorder, Truth
from clickscore.stream.simulator.shop.rhythm import draw_thinking, rhythm
from clickscore.stream.simulator.shop.shoppers import (
    AD_FACTOR,
    FURTHER,
    LEAVE,
    LOOK,
    MOVES,
    NOTHING,
    PURCHASE,
    Shop,
    Visits,
    click_probabilities,
    user_id,
)
from clickscore.stream.simulator.shop.stock import Stock

PACE = 10
"""How much faster than real shoppers these think, so that a demo of a minute sees whole visits."""
DAY_MS = 600_000
"""A day of the live shop: its rhythm passes in ten minutes."""
OPENS_AT_HOUR = 9

_CLICK_AFTER_MS = 600  # from an impression to its click
_OPEN_AFTER_MS = 100  # from a click to the page that it opens
_FIRST_ROWS = 1_024  # of hidden states; doubled when more shoppers come


@dataclasses.dataclass
class Answers:
    """What shoppers did about what they were shown."""

    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    """Of items that were clicked in a recommendation, within the same visit."""


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """What is to be sent now."""

    events: list[tuple[AnyEvent, Truth]]
    spoiled: list[tuple[str, bytes]]
    """Records that are wrong on purpose, each with its user."""
    items: list[Item]
    """Items whose stock has changed."""


@dataclasses.dataclass(frozen=True)
class _Source:
    """The decision through which a shopper found an item."""

    decision_id: str
    position: int
    answers: Answers


@dataclasses.dataclass
class _Visit:
    """One open visit, beside its hidden state."""

    row: int
    """Where its hidden state stands."""
    user_id: str
    session_id: str
    events: int = 0
    last_event_id: str = ""
    unanswered: set[type[AnyDecision]] = dataclasses.field(default_factory=set[type[AnyDecision]])
    """Kinds of decision about the last event that have not been seen yet."""
    turn: int = 0
    """Number of the next act; an older one in the agenda has been put aside."""
    clicking: tuple[int, _Source] | None = None
    """The item that is about to be clicked, or has been and its page is about to open."""
    clicked: bool = False
    found: dict[int, _Source] = dataclasses.field(default_factory=dict[int, _Source])
    """Items that were found through a decision."""


class LiveShop:
    """The shop while it is open. Same shop, same times and same decisions: same records."""

    def __init__(self, shop: Shop, run: str, *, rate: float) -> None:
        """Open the shop.

        Args:
            shop: Who comes and what there is.
            run: Put before the ids of sessions and events, so that two runs on one topic have none in common.
            rate: Records a second on the day's average, impressions included.
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
        self.variants: dict[str, Answers] = {}
        """Answers to recommendations, by variant."""
        self.ads = Answers()

    def advance(self, at: int) -> Outgoing:
        """Return what is to be sent by a time, ms, which never goes back."""
        if self._began_at is None:
            self._began_at = self._now = at
        busy = rhythm(at - self._began_at + OPENS_AT_HOUR * DAY_MS // 24, DAY_MS)
        self._budget += self._rate * busy * (at - self._now) / 1_000
        self._now = at
        self._act_all()
        # Who is in the shop goes on whatever the rate; newcomers fill what is left of it.
        newcomers = int(self._budget) - len(self._delivery)
        if newcomers > 0:
            self._let_in(newcomers)
        events, spoiled = self._delivery.collect(at)
        # At most a second's worth is made up for: what a slow machine missed must not come as a flood.
        self._budget = max(min(self._budget - len(events) - len(spoiled), self._rate), -self._rate)
        return Outgoing(events, spoiled, self._stock.collect(at))

    def receive(self, decision: AnyDecision) -> None:
        """Let a shopper see a decision, if it is about the newest thing that the shopper did."""
        visit, kind = self._open.get(decision.user_id), type(decision)
        if not visit or visit.clicking or decision.event_id != visit.last_event_id or kind not in visit.unanswered:
            return
        visit.unanswered.remove(kind)
        if isinstance(decision, Ad):
            shown = [decision.item_id] if decision.item_id else []
            self._look(visit, decision.decision_id, shown, self.ads, AD_FACTOR)
        else:
            answers = self.variants.setdefault(decision.variant, Answers())
            self._look(visit, decision.decision_id, [choice.item_id for choice in decision.items], answers)

    def _look(
        self, visit: _Visit, decision_id: str, item_ids: list[str], answers: Answers, factor: float = 1.0
    ) -> None:
        """Look down the items until one is clicked or interest ends; each one looked at is an impression."""
        # What this shop does not sell cannot be shown: a bundle of another shop's is at work.
        rows = [self._rows[item_id] for item_id in takewhile(self._rows.__contains__, item_ids)]
        if not rows or self._rng.random() >= LOOK:
            return
        style, need, intent, _, _ = self._state(visit)
        on_screen = int(self._states.item[visit.row])
        clicks = factor * click_probabilities(np.array(rows), need, style, intent, on_screen)
        for position, (row, click) in enumerate(zip(rows, clicks.tolist(), strict=True)):
            source = _Source(decision_id, position, answers)
            self._record(visit, "impression", row, source, click=round(click, 6))
            answers.impressions += 1
            if self._rng.random() < click:
                visit.clicking, visit.clicked = (row, source), False
                self._plan(visit, _CLICK_AFTER_MS)
                return
            if self._rng.random() >= FURTHER:
                return

    def _act_all(self) -> None:
        """Let everybody act whose time has come."""
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
        at = np.array([visit.row for visit in walking])
        states = self._states.take(at)
        moves, about = self._shop.chain.step(states, self._rng)
        self._states.put(at, states)
        pauses = draw_thinking(len(walking), self._rng, PACE).tolist()
        for visit, move, row, pause in zip(walking, moves.tolist(), about.tolist(), pauses, strict=True):
            # Who comes to the checkout and finds the item sold out leaves too.
            if move == LEAVE or (move == PURCHASE and not self._stock.take(row, self._now)):
                self._leave(visit)
                continue
            source = visit.found.get(row)
            self._record(visit, MOVES[move], row, source)
            if source and move == PURCHASE:
                source.answers.purchases += 1
            self._plan(visit, pause)

    def _follow_click(self, visit: _Visit, row: int, source: _Source) -> None:
        """Click, and then open the page: two events, as a browser sends them."""
        if not visit.clicked:
            self._record(visit, "click", row, source)
            visit.clicked = True
            source.answers.clicks += 1
            self._plan(visit, _OPEN_AFTER_MS)
            return
        at = np.array([visit.row])
        states = self._states.take(at)
        self._shop.chain.open_clicked(states, np.array([row]))
        self._states.put(at, states)
        visit.clicking = None
        visit.found[row] = source
        self._record(visit, "view", row, source)
        self._plan(visit, int(draw_thinking(1, self._rng, PACE)[0]))

    def _let_in(self, newcomers: int) -> None:
        draws = self._rng.random(newcomers) * self._activity[-1]
        drawn = dict.fromkeys(np.searchsorted(self._activity, draws, side="right").tolist())
        shoppers = [shopper for shopper in drawn if user_id(shopper) not in self._open]
        if not shoppers:
            return
        states = self._shop.chain.arrive(self._shop.population, np.array(shoppers), self._rng)
        at = [self._take_row() for _ in shoppers]
        self._states.put(np.array(at), states)
        pauses = draw_thinking(len(shoppers), self._rng, PACE).tolist()
        for row, shopper, item, pause in zip(at, shoppers, states.item.tolist(), pauses, strict=True):
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
        states, at = self._states, visit.row
        return (
            int(states.style[at]),
            int(states.need[at]),
            int(states.intent[at]),
            int(states.stage[at]),
            int(states.fit[at]),
        )

    def _record(
        self, visit: _Visit, action: str, row: int, source: _Source | None, *, click: float | None = None
    ) -> None:
        """Hand over the event of an act that happens now."""
        state = self._state(visit)
        event_id = f"{visit.session_id}-{visit.events:03d}"
        visit.events += 1
        if action != "impression":
            visit.last_event_id = event_id
            visit.unanswered = {Recommendation, Ad}
        who = {"event_id": event_id, "user_id": visit.user_id, "session_id": visit.session_id}
        event: AnyEvent
        if row == NOTHING:
            event = self._recorder.search(state[1], **who, ts=self._now)
        else:
            decision_id, position = (source.decision_id, source.position) if source else (None, None)
            event = self._recorder.item_event(
                action, row, **who, ts=self._now, decision_id=decision_id, position=position
            )
        self._delivery.hand_over(event, self._recorder.truth(state, event_id, click=click))
