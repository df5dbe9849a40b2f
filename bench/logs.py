"""Logs: generate the events of the measurements, the same in every run.

Warm log: 20,000 users, each with 20 earlier events, so that the model reads 20 events for each decision. The next user
is random, so two events of a batch rarely share a user. Natural log: sessions of 5 events on average (geometric), of
shoppers who act every two minutes. Item popularity is skewed; 90 % of the events are views, and none is a purchase.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clickscore.schemas.events import ACTION_OF, Cart, Favourite, View, encode_event
from clickscore.schemas.field_types import FINGERPRINT_BYTES
from clickscore.schemas.snapshots import UserState, encode
from clickscore.stream.kafka.partitioner import partition_of

ITEMS = 50_000
PARTITIONS = 4
WARM = 20
USERS = 20_000
MEAN_LENGTH = 5.0
BETWEEN_MS = 120_000
"""Mean time between two events of a natural session."""

START_MS = 1_760_000_000_000  # a moment in the past: a backfill, in which no worker writes ticks
WARM_SESSION = "warm"

_CHUNK = 10_000


class Keyed(NamedTuple):
    """A record to produce."""

    partition: int
    key: bytes
    value: bytes


class Act(NamedTuple):
    """A future event: user, action and item."""

    user: str
    kind: type[View | Cart | Favourite]
    item: str

    def at(self, number: int, ts: int) -> Keyed:
        """Return the event as a record.

        Args:
            number: Number of the event, for its id.
            ts: Time of the event, ms.
        """
        event = self.kind(event_id=f"e-{number:08d}", user_id=self.user, ts=ts, item_id=self.item)
        key = self.user.encode()
        return Keyed(partition_of(key, PARTITIONS), key, encode_event(event))


def warm_sessions(users: int = USERS) -> dict[str, list[str]]:
    """Return the 20 views of each user before the log begins, one second apart."""
    drawn = draw_items(np.random.default_rng(1), users * WARM).reshape(users, WARM)
    return {f"u{user}": [f"item-{item}" for item in items] for user, items in enumerate(drawn.tolist())}


def warm_snapshots(users: int = USERS) -> list[Keyed]:
    """Return the warm sessions as records of `session-snapshots`."""
    rng = np.random.default_rng(2)
    return [
        Keyed(partition_of(user.encode(), PARTITIONS), user.encode(), encode(open_session(items, rng)))
        for user, items in warm_sessions(users).items()
    ]


def open_session(items: list[str], rng: np.random.Generator) -> UserState:
    """Return a user with an open session of views of these items, one second apart."""
    length = len(items)
    return UserState(
        session_id=WARM_SESSION,
        opened_at=START_MS - length * 1000,
        last_ts=START_MS - 1000,
        length=length,
        ages=[1000 * ts for ts in range(length)],
        actions=bytes((ACTION_OF[View],)) * length,
        items=items,
        fingerprints=rng.bytes(length * FINGERPRINT_BYTES),
    )


def warm_events(count: int, users: int = USERS) -> list[Keyed]:
    """Return the events after the warm sessions: random users, within 20 minutes."""
    rng = np.random.default_rng(3)
    acts = _acts(rng, (f"u{user}" for user in rng.integers(users, size=count).tolist()))
    return [act.at(number, START_MS + number * 1_200_000 // count) for number, act in enumerate(acts)]


def natural_events(count: int, rate: float, mean_length: float = MEAN_LENGTH) -> list[Keyed]:
    """Return a log of natural sessions.

    Args:
        count: Number of events.
        rate: Events per second of event time.
        mean_length: Mean number of events of a session.
    """
    acts = natural_acts(rate, mean_length)
    return [next(acts).at(number, START_MS + int(number * 1000 / rate)) for number in range(count)]


def natural_acts(rate: float, mean_length: float = MEAN_LENGTH, between_ms: int = BETWEEN_MS) -> Iterator[Act]:
    """Yield an endless series of actions of concurrent shoppers.

    Args:
        rate: Actions per second of event time.
        mean_length: Mean number of events of a session.
        between_ms: Mean time between two actions of a shopper, ms.
    """
    rng = np.random.default_rng(4)
    return _acts(rng, _shoppers(rng, max(1, int(rate * between_ms / 1000)), mean_length))


def _shoppers(rng: np.random.Generator, at_once: int, mean_length: float) -> Iterator[str]:
    """Yield the user of each next action, without end."""
    present = list(range(at_once))
    newest = at_once
    while True:
        slots = rng.integers(at_once, size=_CHUNK).tolist()
        leaves = (rng.random(_CHUNK) < 1 / mean_length).tolist()
        for slot, last in zip(slots, leaves, strict=True):
            yield f"u{present[slot]}"
            if last:
                present[slot] = newest
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
    """Return item numbers from 1, small numbers more often: int64 (count,)."""
    return (rng.random(count) ** 3 * ITEMS).astype(np.int64) + 1
