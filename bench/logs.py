"""Logs: the events that are measured, the same in every run.

Warm: 20,000 users, each with a session of 20 events behind them, so that the model reads 20 events for each decision.
Any of them acts next, so hardly two events of a batch share a user. Natural: sessions of 5 events on average
(geometric), of shoppers who act every two minutes and come and go. Items are skewed; nine events of ten are views, and
none is a purchase.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clickscore.schemas.events import ACTION_OF, Cart, Favourite, View, encode_event
from clickscore.schemas.snapshots import UserState, encode
from clickscore.stream.kafka.partitioner import partition_of
from clickscore.stream.state.sessions import FINGERPRINT_BYTES

ITEMS = 50_000
PARTITIONS = 4
WARM = 20
USERS = 20_000
MEAN_LENGTH = 5.0
BETWEEN_MS = 120_000
"""Between two events of a natural session, on average."""

START_MS = 1_760_000_000_000  # a moment in the past: a backfill, in which no worker writes ticks
WARM_SESSION = "warm"

_CHUNK = 10_000


class Keyed(NamedTuple):
    """A record to produce."""

    partition: int
    key: bytes
    value: bytes


class Act(NamedTuple):
    """An event to be: of whom, what, about which item."""

    user: str
    kind: type[View | Cart | Favourite]
    item: str

    def at(self, number: int, ts: int) -> Keyed:
        """Return the event as a record."""
        event = self.kind(event_id=f"e-{number:08d}", user_id=self.user, ts=ts, item_id=self.item)
        key = self.user.encode()
        return Keyed(partition_of(key, PARTITIONS), key, encode_event(event))


def warm_sessions(users: int = USERS) -> dict[str, list[str]]:
    """Return the items of each user's 20 views before the log begins, a second apart."""
    drawn = draw_items(np.random.default_rng(1), users * WARM).reshape(users, WARM)
    return {f"u{user}": [f"item-{item}" for item in items] for user, items in enumerate(drawn.tolist())}


def warm_snapshots(users: int = USERS) -> list[Keyed]:
    """Return those sessions as `session-snapshots` holds them."""
    rng = np.random.default_rng(2)
    return [
        Keyed(partition_of(user.encode(), PARTITIONS), user.encode(), encode(open_session(items, rng)))
        for user, items in warm_sessions(users).items()
    ]


def open_session(items: list[str], rng: np.random.Generator) -> UserState:
    """Return a user with a session of views of these items, a second apart, the last one before the log begins."""
    length = len(items)
    return UserState(
        session_id=WARM_SESSION,
        opened_at=START_MS - length * 1000,
        last_ts=START_MS - 1000,
        length=length,
        ages=[1000 * at for at in range(length)],
        actions=bytes((ACTION_OF[View],)) * length,
        items=items,
        fingerprints=rng.bytes(length * FINGERPRINT_BYTES),
    )


def warm_events(count: int, users: int = USERS) -> list[Keyed]:
    """Return what comes after: events of any of the users, within 20 minutes."""
    rng = np.random.default_rng(3)
    acts = _acts(rng, (f"u{user}" for user in rng.integers(users, size=count).tolist()))
    return [act.at(number, START_MS + number * 1_200_000 // count) for number, act in enumerate(acts)]


def natural_events(count: int, rate: float, mean_length: float = MEAN_LENGTH) -> list[Keyed]:
    """Return a log of natural sessions at `rate` events a second of event time."""
    acts = natural_acts(rate, mean_length)
    return [next(acts).at(number, START_MS + int(number * 1000 / rate)) for number in range(count)]


def natural_acts(rate: float, mean_length: float = MEAN_LENGTH, between_ms: int = BETWEEN_MS) -> Iterator[Act]:
    """Yield without end what shoppers do, as many at a time as make `rate` events a second."""
    rng = np.random.default_rng(4)
    return _acts(rng, _shoppers(rng, max(1, int(rate * between_ms / 1000)), mean_length))


def _shoppers(rng: np.random.Generator, at_once: int, mean_length: float) -> Iterator[str]:
    """Yield who acts next, without end."""
    there = list(range(at_once))
    newest = at_once
    while True:
        slots = rng.integers(at_once, size=_CHUNK).tolist()
        leaves = (rng.random(_CHUNK) < 1 / mean_length).tolist()
        for slot, last in zip(slots, leaves, strict=True):
            yield f"u{there[slot]}"
            if last:
                there[slot] = newest
                newest += 1


def _acts(rng: np.random.Generator, users: Iterator[str]) -> Iterator[Act]:
    kinds = (View,) * 90 + (Cart,) * 6 + (Favourite,) * 4
    while True:
        items, drawn = draw_items(rng, _CHUNK).tolist(), rng.integers(len(kinds), size=_CHUNK).tolist()
        for item, kind in zip(items, drawn, strict=True):
            user = next(users, None)
            if user is None:
                return
            yield Act(user, kinds[kind], f"item-{item}")


def draw_items(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return item numbers from 1, small ones more often: int64 (count,)."""
    return (rng.random(count) ** 3 * ITEMS).astype(np.int64) + 1
