"""Event log: a generated, uneven stream of everything that may come, the same for the same seed."""

import random
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign, Item
from clickscore.schemas.events import (
    AnyEvent,
    Cart,
    Click,
    Consent,
    Erase,
    Favourite,
    Impression,
    PrivacyRecord,
    Purchase,
    RemoveFromCart,
    Search,
    Tick,
    View,
    encode_event,
)
from clickscore.schemas.purposes import PURPOSES

MINUTE_MS = 60_000
BEGAN = 1_700_000_000_000  # long ago, so that a worker takes it for a backfill and adds no ticks of its own
MEAN_GAP_MS = 1_500
"""Mean event time between two records, ms."""
FAR_FUTURE = 4_000_000_000_000

ITEMS = [f"item-{number}" for number in range(1, 301)]
_KINDS = {View: 60, Cart: 10, RemoveFromCart: 3, Favourite: 4, Purchase: 3, Click: 6, Impression: 8, Search: 6}


class Sent(NamedTuple):
    """A record to put on `clickstream-events`; its partition follows from the key where none is named."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None


def catalogue() -> list[Item]:
    """Return items of ten categories, some out of stock and some hidden."""
    return [
        Item(
            item_id=item,
            category=f"category-{number % 10}",
            price=float(number),
            stock=0 if number % 10 == 3 else 5,
            hidden=number % 17 == 4,
        )
        for number, item in enumerate(ITEMS)
    ]


def campaigns() -> list[Campaign]:
    """Return campaigns by item, by category, for everybody, and one whose item is out of stock."""
    return [
        Campaign(campaign_id="by-item", item_id=ITEMS[50], bid=2.0, target_items=frozenset(ITEMS[:20])),
        Campaign(campaign_id="by-category", item_id=ITEMS[60], bid=3.0, target_categories=frozenset({"category-2"})),
        Campaign(campaign_id="everybody", item_id=ITEMS[70], bid=0.5),
        Campaign(campaign_id="sold-out", item_id=ITEMS[3], bid=9.0),
    ]


def event_log(count: int, seed: int = 0, *, partitions: int = 4, users: int = 300, privacy: float = 0.0) -> list[Sent]:
    """Return records of users of whom few do much: late, repeated, broken ones and ticks among them.

    Args:
        count: Number of records.
        seed: Seed of the generator.
        partitions: Number of partitions, for ticks.
        users: Number of users.
        privacy: Share of consent and erasure records.
    """
    rng = random.Random(seed)
    names = [f"user-{number}" for number in range(users)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(users)))
    now = BEGAN
    log: list[Sent] = []
    sound: list[Sent] = []
    for number in range(count):
        now += int(rng.expovariate(1 / MEAN_GAP_MS))
        if number % 4_000 == 3_999:
            now += 40 * MINUTE_MS  # a quiet spell, in which every session ends
        lot = rng.random()
        if lot < 0.02 and sound:
            record = rng.choice(sound[-300:])
        elif lot < 0.03:
            record = Sent(rng.choice(BROKEN)(number), rng.choice(names).encode())
        elif lot < 0.035:
            record = Sent(encode_event(Tick(ts=now)), None, rng.randrange(partitions))
        elif lot < 0.035 + privacy:
            statement = _privacy_record(rng, rng.choices(names, weights)[0], number, now)
            record = Sent(encode_event(statement), statement.user_id.encode())
            sound.append(record)
        else:
            event = _event(rng, rng.choices(names, cum_weights=weights)[0], number, now)
            record = Sent(encode_event(event), event.user_id.encode())
            sound.append(record)
        log.append(record)
    return log


def _event(rng: random.Random, user: str, number: int, now: int) -> AnyEvent:
    lateness = rng.random()
    if lateness < 0.01:
        now -= rng.randrange(6 * MINUTE_MS, 120 * MINUTE_MS)
    elif lateness < 0.08:
        now -= rng.randrange(4 * MINUTE_MS)
    fields = {"event_id": f"e{number}", "user_id": user, "ts": now}
    if int(user.rpartition("-")[2]) % 3 == 0:  # a client that names its sessions, an old name now and then
        fields["session_id"] = f"{user}-visit-{now // (20 * MINUTE_MS) - (rng.random() < 0.01)}"
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind is Search:
        return Search(**fields, query="red shoes")
    item = f"novel-{rng.randrange(50)}" if rng.random() < 0.1 else ITEMS[int(len(ITEMS) * rng.random() ** 3)]
    return kind(**fields, item_id=item)


def _privacy_record(rng: random.Random, user: str, number: int, now: int) -> PrivacyRecord:
    if rng.random() < 0.2:
        return Erase(event_id=f"p{number}", user_id=user, ts=now)
    purposes = tuple(purpose for purpose in PURPOSES if rng.random() < 0.6) or PURPOSES
    if rng.random() < 0.6:  # more grants than withdrawals, so that most users have a history
        return Consent(event_id=f"p{number}", user_id=user, ts=now, granted=purposes)
    return Consent(event_id=f"p{number}", user_id=user, ts=now, withdrawn=purposes)


def _changed(number: int, **fields: object) -> bytes:
    event = {"type": "view", "event_id": f"b{number}", "user_id": "u", "ts": BEGAN, "item_id": "item-1"}
    return msgspec.json.encode({**event, **fields})


BROKEN: tuple[Callable[[int], bytes | None], ...] = (
    lambda number: f"not JSON, number {number}".encode(),
    lambda number: _changed(number).removesuffix(b"}"),
    lambda number: b"\xff\xfe" + _changed(number),
    lambda number: _changed(number, type="teleport"),
    lambda number: _changed(number, ts="soon"),
    lambda number: _changed(number, ts=-1),
    lambda number: _changed(number, ts=FAR_FUTURE),
    lambda number: _changed(number, item_id=number),
    lambda _: b"{}",
    lambda _: b"[" * 5_000,
    lambda _: None,
)
