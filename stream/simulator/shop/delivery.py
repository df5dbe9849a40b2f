"""Delivery: how the synthetic shop's events reach Kafka. Most arrive at once, some late, some twice, some malformed."""

import heapq
from itertools import count

import msgspec
import numpy as np

from clickscore.schemas.events import AnyEvent
from clickscore.stream.simulator.shop.shop_events import Truth

DELAYED, REPEATED = 0.01, 0.01
"""Share of events that are sent late, and share of events that are sent twice."""
MALFORMED = 1 / 400
"""Share of events with an extra malformed record, so that a demo shows dead letters."""

_DELAY_MS = (2_000, 20_000)
_REPEAT_MS = (500, 5_000)


class Delivery:
    """Queue of events on their way to Kafka. Times are ms and never go back."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ready: list[tuple[AnyEvent, Truth]] = []
        self._spoiled: list[tuple[str, bytes]] = []
        self._held_back: list[tuple[int, int, AnyEvent, Truth]] = []
        self._serial = count()
        self._newest: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._spoiled)

    def accept(self, event: AnyEvent, truth: Truth) -> None:
        """Accept an event that has just happened, and draw its delay, repeat and malformed companion."""
        slow, twice, malformed = self._rng.random(3)
        delay = int(self._rng.integers(*_DELAY_MS)) if slow < DELAYED else 0
        if delay:
            self._hold_back(event, msgspec.structs.replace(truth, delay_ms=delay))
        else:
            self._send(event, truth)
        if twice < REPEATED:
            delay += int(self._rng.integers(*_REPEAT_MS))
            self._hold_back(event, msgspec.structs.replace(truth, repeat=True, delay_ms=delay))
        if malformed < MALFORMED:
            self._spoiled.append((event.user_id, _malform(event, int(self._rng.integers(4)))))

    def collect(self, now: int) -> tuple[list[tuple[AnyEvent, Truth]], list[tuple[str, bytes]]]:
        """Return the events to send by now, and the malformed records, each with its user."""
        while self._held_back and self._held_back[0][0] <= now:
            _, _, event, truth = heapq.heappop(self._held_back)
            self._send(event, truth)
        ready, self._ready = self._ready, []
        malformed, self._spoiled = self._spoiled, []
        return ready, malformed

    def _hold_back(self, event: AnyEvent, truth: Truth) -> None:
        heapq.heappush(self._held_back, (event.ts + truth.delay_ms, next(self._serial), event, truth))

    def _send(self, event: AnyEvent, truth: Truth) -> None:
        newest = self._newest.get(event.user_id, 0)
        self._newest[event.user_id] = max(newest, event.ts)
        if event.ts < newest:
            truth = msgspec.structs.replace(truth, out_of_order=True)
        self._ready.append((event, truth))


def _malform(event: AnyEvent, fault: int) -> bytes:
    """Return a malformed record: an error page, an unknown type, a missing user, or a negative price."""
    ts = event.ts
    return (
        b"<html>502 Bad Gateway</html>",
        b'{"type":"teleport","event_id":"malformed","user_id":"nobody","ts":%d}' % ts,
        b'{"type":"view","event_id":"malformed","ts":%d,"item_id":"red-kettle"}' % ts,
        b'{"type":"cart","event_id":"malformed","user_id":"nobody","ts":%d,"item_id":"red-kettle","price":-1}' % ts,
    )[fault]
