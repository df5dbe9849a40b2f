"""The synthetic shop's past: whole visits over some days, as events in the order in which they were sent."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clickscore.schemas.events import AnyEvent
from clickscore.schemas.sessions import ClosedSession, SessionEvent
from clickscore.stream.simulator.shop.assortment import Ints
from clickscore.stream.simulator.shop.delivery import DELAYED, REPEATED
from clickscore.stream.simulator.shop.records import Recorder, Truth
from clickscore.stream.simulator.shop.rhythm import draw_starts, draw_thinking
from clickscore.stream.simulator.shop.shoppers import LEAVE, MOVES, PURCHASE, SEARCH, VIEW, Shop, Visits, user_id

START = 1_767_571_200_000
"""Monday, 5 January 2026, 00:00 UTC, in ms."""
DAYS = 28

_LATE_GIVEN_DELAYED = 0.1  # beyond the worker's allowed lateness of 5 min
_BETWEEN_VISITS = 45 * 60_000  # above gap and lateness, so that two visits of a shopper are two sessions


@dataclasses.dataclass(frozen=True)
class Sendings:
    """Everything sent, in order: arrays over what was sent, of which a repeat is one more."""

    event: Ints
    """Which event was sent."""
    at: Ints
    """When (ms)."""
    repeat: NDArray[np.bool_]
    out_of_order: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class History:
    """A shop's past: arrays over events, visit by visit and by time within each."""

    shop: Shop
    visit: Ints
    number: Ints
    """Place of the event in its visit, from 0."""
    shopper: Ints
    ts: Ints
    move: Ints
    item: Ints
    """Row of the item, `shoppers.NOTHING` for a search."""
    states: Ints
    """After the event: style, need, intent, stage, fit.  # (events, 5)."""
    sendings: Sendings

    def __len__(self) -> int:
        return len(self.ts)

    def records(self) -> Iterator[tuple[AnyEvent, Truth]]:
        """Yield what was sent, in order, each with its truth."""
        recorder = Recorder(self.shop.assortment, self.shop.chain)
        sent = self.sendings
        columns = (sent.event, sent.at, sent.repeat, sent.out_of_order)
        visits, numbers, shoppers, times, moves, items = (
            column.tolist() for column in (self.visit, self.number, self.shopper, self.ts, self.move, self.item)
        )
        states = [tuple(state) for state in self.states.tolist()]
        for at, when, repeat, out_of_order in zip(*(column.tolist() for column in columns), strict=True):
            session_id = self._session_id(visits[at])
            event_id = f"{session_id}-{numbers[at]:02d}"
            who = user_id(shoppers[at])
            if moves[at] == SEARCH:
                event = recorder.search(
                    states[at][1], event_id=event_id, user_id=who, session_id=session_id, ts=times[at]
                )
            else:
                event = recorder.item_event(
                    MOVES[moves[at]], items[at], event_id=event_id, user_id=who, session_id=session_id, ts=times[at]
                )
            truth = recorder.truth(
                states[at], event_id, repeat=repeat, out_of_order=out_of_order, delay_ms=when - times[at]
            )
            yield event, truth

    def sessions(self) -> Iterator[ClosedSession]:
        """Yield the visits as they really were, by the time of their last event.

        A worker that meets the same records cannot place the few that arrive later than it allows; here nothing is
        missing.
        """
        first = np.flatnonzero(self.number == 0)
        last = np.append(first[1:], len(self)) - 1
        items = self.shop.assortment.items
        times, moves, rows = self.ts.tolist(), self.move.tolist(), self.item.tolist()
        for visit in np.argsort(self.ts[last], kind="stable").tolist():
            opened, closed = int(first[visit]), int(last[visit])
            events = tuple(
                SessionEvent(
                    ts=times[at], action=MOVES[moves[at]], item_id=items[rows[at]].item_id if rows[at] >= 0 else ""
                )
                for at in range(opened, closed + 1)
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
    """Return the past of a shop: the first whole visits that together have at least this many events.

    The same shop and arguments give the same past. Nobody answers a recommendation in it.

    Args:
        shop: Who comes and what there is.
        events: How many, at least 1, repeats not counted.
        start: When the first day begins, ms since the epoch.
        days: Over how many days the visits spread.
    """
    rng = np.random.default_rng([shop.seed, 3])
    shoppers, visit, number, move, item, states = _walk(shop, events, rng)
    first = np.flatnonzero(number == 0)
    length = np.diff(np.append(first, len(visit)))
    # Time of each event after its visit's start: thinking times added up, begun anew with each visit.
    thought = draw_thinking(len(visit), rng)
    thought[first] = 0
    since = np.cumsum(thought)
    since -= np.repeat(since[first], length)
    begins = _begin_apart(draw_starts(start, days, len(first), rng), shoppers, since[first + length - 1])
    ts = np.repeat(begins, length) + since
    return History(shop, visit, number, shoppers[visit], ts, move, item, states, _send(visit, ts, rng))


def _walk(shop: Shop, events: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Return each visit's shopper, and of each event the visit, its number in it, the move, the item and the state."""
    parts: list[Ints] = []
    shoppers: list[Ints] = []
    found, visits = 0, 0
    while found < events:
        count = max(100, math.ceil((events - found) / 8))  # a visit has about 8 events; what is missing comes next turn
        who = rng.choice(len(shop.population.activity), count, p=shop.population.activity)
        part = _walk_to_the_end(shop, who, rng)
        part[:, 0] += visits
        parts.append(part)
        shoppers.append(who)
        found += len(part)
        visits += count
    table = np.concatenate(parts)
    enough = table[events - 1, 0]
    table = table[table[:, 0] <= enough]
    return np.concatenate(shoppers)[: enough + 1], *table.T[:4], table[:, 4:]


def _walk_to_the_end(shop: Shop, who: Ints, rng: np.random.Generator) -> Ints:
    """Return all visits' events: visit, number, move, item, then the state's five.  # (events, 9)."""
    visits = shop.chain.arrive(shop.population, who, rng)
    here = np.arange(len(who))
    number = 0
    rounds = [_rows(here, number, np.full(len(who), VIEW), visits.item, visits)]
    while len(here):
        number += 1
        moves, about = shop.chain.step(visits, rng)
        stay = np.flatnonzero(moves != LEAVE)
        here, visits = here[stay], visits.take(stay)
        rounds.append(_rows(here, number, moves[stay], about[stay], visits))
    table = np.concatenate(rounds)
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def _rows(here: Ints, number: int, moves: Ints, about: Ints, visits: Visits) -> Ints:
    state = (visits.style, visits.need, visits.intent, visits.stage, visits.fit)
    return np.column_stack((here, np.full(len(here), number), moves, about, *state))


def _begin_apart(starts: Ints, shoppers: Ints, durations: Ints) -> Ints:
    """Return the starts, put off where a shopper's visit before has not ended for long enough."""
    begins = starts.copy()
    free: dict[int, int] = {}
    order = np.argsort(starts, kind="stable")
    for visit, shopper in zip(order.tolist(), shoppers[order].tolist(), strict=True):
        begins[visit] = max(int(starts[visit]), free.get(shopper, 0))
        free[shopper] = int(begins[visit] + durations[visit]) + _BETWEEN_VISITS
    return begins


def _send(visit: Ints, ts: Ints, rng: np.random.Generator) -> Sendings:
    """Return the events in the order in which they reach Kafka: most at once, some late, some twice."""
    count = len(ts)
    delay = np.zeros(count, np.int64)
    slow = rng.random(count)
    delay[slow < DELAYED] = rng.integers(5_000, 120_000, int((slow < DELAYED).sum()))
    late = slow < DELAYED * _LATE_GIVEN_DELAYED
    delay[late] = rng.integers(360_000, 1_200_000, int(late.sum()))
    twice = np.flatnonzero(rng.random(count) < REPEATED)
    event = np.concatenate((np.arange(count), twice))
    at = np.concatenate((ts + delay, ts[twice] + delay[twice] + rng.integers(500, 30_000, len(twice))))
    repeat = np.arange(len(event)) >= count
    order = np.argsort(at, kind="stable")
    event, at, repeat = event[order], at[order], repeat[order]
    return Sendings(event, at, repeat, _overtaken(visit[event], ts[event]))


def _overtaken(visit: Ints, ts: Ints) -> NDArray[np.bool_]:
    """Return of each sending whether a newer event of its visit was sent before it."""
    order = np.argsort(visit, kind="stable")
    # One running maximum over all visits: each lies higher than all before it.
    lifted = ts[order] - ts.min(initial=0) + visit[order] * (np.ptp(ts) + 1 if len(ts) else 1)
    result = np.empty(len(ts), bool)
    result[order] = np.maximum.accumulate(lifted) > lifted
    return result
