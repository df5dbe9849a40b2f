"""History: past visits of the synthetic shop as events, in the order of sending."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clickscore.schemas.events import AnyEvent
from clickscore.schemas.sessions import ClosedSession, SessionEvent
from clickscore.stream.simulator.shop.assortment import Ints
from clickscore.stream.simulator.shop.delivery import DELAYED, REPEATED
from clickscore.stream.simulator.shop.rhythm import draw_starts, draw_thinking
from clickscore.stream.simulator.shop.shop_events import Recorder, Truth
from clickscore.stream.simulator.shop.shoppers import LEAVE, MOVES, PURCHASE, SEARCH, VIEW, Shop, Visits, user_id

START = 1_767_571_200_000
"""Monday, 5 January 2026, 00:00 UTC, in ms."""
DAYS = 28

_LATE_GIVEN_DELAYED = 0.1  # share of delayed events beyond the worker's lateness of 5 min
_BETWEEN_VISITS = 45 * 60_000  # above gap and lateness, so that two visits of a shopper are two sessions


@dataclasses.dataclass(frozen=True)
class Sendings:
    """All records in the order of sending, as arrays with one entry a record. A repeat is a record of its own."""

    event: Ints
    """Row of the sent event in the history."""
    sent_at: Ints
    """Send time of each record, ms."""
    repeat: NDArray[np.bool_]
    out_of_order: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class History:
    """Events of a shop's past as arrays, ordered by visit and then by time."""

    shop: Shop
    visit: Ints
    number: Ints
    """Position of the event in its visit, from 0."""
    shopper: Ints
    ts: Ints
    move: Ints
    item: Ints
    """Row of the item; `shoppers.NO_ITEM` for a search."""
    states: Ints
    """Hidden state after the event: style, need, intent, stage, fit.  # (events, 5)."""
    sendings: Sendings

    def __len__(self) -> int:
        return len(self.ts)

    def records(self) -> Iterator[tuple[AnyEvent, Truth]]:
        """Yield all records in the order of sending, each with its truth."""
        recorder = Recorder(self.shop.assortment, self.shop.chain)
        sent = self.sendings
        columns = (sent.event, sent.sent_at, sent.repeat, sent.out_of_order)
        visits, numbers, shoppers, times, moves, items = (
            column.tolist() for column in (self.visit, self.number, self.shopper, self.ts, self.move, self.item)
        )
        states = [tuple(state) for state in self.states.tolist()]
        for row, sent_at, repeat, out_of_order in zip(*(column.tolist() for column in columns), strict=True):
            session_id = self._session_id(visits[row])
            event_id = f"{session_id}-{numbers[row]:02d}"
            shopper_id = user_id(shoppers[row])
            if moves[row] == SEARCH:
                event = recorder.search(
                    states[row][1], event_id=event_id, user_id=shopper_id, session_id=session_id, ts=times[row]
                )
            else:
                event = recorder.item_event(
                    MOVES[moves[row]],
                    items[row],
                    event_id=event_id,
                    user_id=shopper_id,
                    session_id=session_id,
                    ts=times[row],
                )
            truth = recorder.truth(
                states[row], event_id, repeat=repeat, out_of_order=out_of_order, delay_ms=sent_at - times[row]
            )
            yield event, truth

    def sessions(self) -> Iterator[ClosedSession]:
        """Yield the true sessions, ordered by the time of the last event.

        A worker drops the few events that arrive too late. The true sessions have all events.
        """
        first = np.flatnonzero(self.number == 0)
        last = np.append(first[1:], len(self)) - 1
        items = self.shop.assortment.items
        times, moves, rows = self.ts.tolist(), self.move.tolist(), self.item.tolist()
        for visit in np.argsort(self.ts[last], kind="stable").tolist():
            opened, closed = int(first[visit]), int(last[visit])
            events = tuple(
                SessionEvent(
                    ts=times[row], action=MOVES[moves[row]], item_id=items[rows[row]].item_id if rows[row] >= 0 else ""
                )
                for row in range(opened, closed + 1)
            )
            session_id = self._session_id(visit)
            yield ClosedSession(
                id=f"simulated-{session_id}",
                session_id=session_id,
                user_id=user_id(int(self.shopper[opened])),
                opened_at=times[opened],
                closed_at=times[closed],
                length=len(events),
                purchased=PURCHASE in moves[opened : closed + 1],
                events=events,
            )

    def _session_id(self, visit: int) -> str:
        return f"s{self.shop.seed}-{visit:06d}"


def generate(shop: Shop, events: int, *, start: int = START, days: int = DAYS) -> History:
    """Return the past of a shop: the first complete visits that together have at least `events` events.

    The same shop and arguments give the same past. Shoppers in the past see no recommendations.

    Args:
        shop: Shoppers and items.
        events: Minimum number of events, at least 1, without repeats.
        start: Start of the first day, ms since the epoch.
        days: Number of days with visits.
    """
    rng = np.random.default_rng([shop.seed, 3])
    shoppers, visit, number, move, item, states = _walk(shop, events, rng)
    first = np.flatnonzero(number == 0)
    length = np.diff(np.append(first, len(visit)))
    # Time from the start of the visit to each event: the cumulative sum of thinking times within the visit.
    thought = draw_thinking(len(visit), rng)
    thought[first] = 0
    elapsed = np.cumsum(thought)
    elapsed -= np.repeat(elapsed[first], length)
    begins = _begin_apart(draw_starts(start, days, len(first), rng), shoppers, elapsed[first + length - 1])
    ts = np.repeat(begins, length) + elapsed
    return History(shop, visit, number, shoppers[visit], ts, move, item, states, _send(visit, ts, rng))


def _walk(shop: Shop, events: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Draw visits until there are enough events.

    Args:
        shop: Shoppers and items.
        events: Minimum number of events.
        rng: Source of randomness.

    Returns:
        The shopper of each visit, then arrays over events: visit, position in the visit, move, item, and hidden state.
    """
    parts: list[Ints] = []
    shoppers: list[Ints] = []
    events_drawn, visits = 0, 0
    while events_drawn < events:
        count = max(
            100, math.ceil((events - events_drawn) / 8)
        )  # a visit has about 8 events; the next round draws the missing events
        chosen = rng.choice(len(shop.population.activity), count, p=shop.population.activity)
        part = _walk_to_the_end(shop, chosen, rng)
        part[:, 0] += visits
        parts.append(part)
        shoppers.append(chosen)
        events_drawn += len(part)
        visits += count
    table = np.concatenate(parts)
    enough = table[events - 1, 0]
    table = table[table[:, 0] <= enough]
    return np.concatenate(shoppers)[: enough + 1], *table.T[:4], table[:, 4:]


def _walk_to_the_end(shop: Shop, shoppers: Ints, rng: np.random.Generator) -> Ints:
    """Return the events of complete visits: visit, position, move, item, and five numbers of state.  # (events, 9).

    Args:
        shop: Shoppers and items.
        shoppers: Shopper of each visit.
        rng: Source of randomness.
    """
    visits = shop.chain.arrive(shop.population, shoppers, rng)
    open_visits = np.arange(len(shoppers))
    number = 0
    rounds = [_rows(open_visits, number, np.full(len(shoppers), VIEW), visits.item, visits)]
    while len(open_visits):
        number += 1
        moves, about = shop.chain.step(visits, rng)
        stay = np.flatnonzero(moves != LEAVE)
        open_visits, visits = open_visits[stay], visits.take(stay)
        rounds.append(_rows(open_visits, number, moves[stay], about[stay], visits))
    table = np.concatenate(rounds)
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def _rows(visit_ids: Ints, number: int, moves: Ints, about: Ints, visits: Visits) -> Ints:
    state = (visits.style, visits.need, visits.intent, visits.stage, visits.fit)
    return np.column_stack((visit_ids, np.full(len(visit_ids), number), moves, about, *state))


def _begin_apart(starts: Ints, shoppers: Ints, durations: Ints) -> Ints:
    """Return the start of each visit, delayed where the shopper's previous visit is not over for long enough.

    Args:
        starts: Drawn start of each visit, ms.
        shoppers: Shopper of each visit.
        durations: Duration of each visit, ms.
    """
    begins = starts.copy()
    free: dict[int, int] = {}
    order = np.argsort(starts, kind="stable")
    for visit, shopper in zip(order.tolist(), shoppers[order].tolist(), strict=True):
        begins[visit] = max(int(starts[visit]), free.get(shopper, 0))
        free[shopper] = int(begins[visit] + durations[visit]) + _BETWEEN_VISITS
    return begins


def _send(visit: Ints, ts: Ints, rng: np.random.Generator) -> Sendings:
    """Return the events in the order of arrival at Kafka: most at once, some late, some twice.

    Args:
        visit: Visit of each event.
        ts: Time of each event, ms.
        rng: Source of randomness.
    """
    count = len(ts)
    delay = np.zeros(count, np.int64)
    slow = rng.random(count)
    delay[slow < DELAYED] = rng.integers(5_000, 120_000, int((slow < DELAYED).sum()))
    late = slow < DELAYED * _LATE_GIVEN_DELAYED
    delay[late] = rng.integers(360_000, 1_200_000, int(late.sum()))
    twice = np.flatnonzero(rng.random(count) < REPEATED)
    event = np.concatenate((np.arange(count), twice))
    sent_at = np.concatenate((ts + delay, ts[twice] + delay[twice] + rng.integers(500, 30_000, len(twice))))
    repeat = np.arange(len(event)) >= count
    order = np.argsort(sent_at, kind="stable")
    event, sent_at, repeat = event[order], sent_at[order], repeat[order]
    return Sendings(event, sent_at, repeat, _overtaken(visit[event], ts[event]))


def _overtaken(visit: Ints, ts: Ints) -> NDArray[np.bool_]:
    """Return for each record whether a newer event of the same visit was sent earlier."""
    order = np.argsort(visit, kind="stable")
    # One running maximum serves all visits, because each visit is lifted above all earlier visits.
    lifted = ts[order] - ts.min(initial=0) + visit[order] * (np.ptp(ts) + 1 if len(ts) else 1)
    result = np.empty(len(ts), bool)
    result[order] = np.maximum.accumulate(lifted) > lifted
    return result
