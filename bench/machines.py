"""Machines: how much bots in the simulated shop move popular items, click rates and a model, and how many are found.

Machine sessions of four kinds are mixed into the simulated shop's past: crawlers with their user agent, quick scrapers,
crawlers with even gaps, and slow crawlers that see ever new items. The truth is known. Run: `python -m bench.machines`.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clickscore.schemas.durations import HOUR_MS
from clickscore.schemas.events import AnyEvent, Search, Tick, View, encode_event
from clickscore.schemas.sessions import ClosedSession, decode_session
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.shop.history import generate
from clickscore.stream.simulator.shop.shoppers import make_shop

SHARES = (0.05, 0.2, 0.5)
"""Shares of machine sessions among all sessions."""
KINDS: tuple[str, ...] = ("user agent", "rate", "regularity", "breadth")
KIND_SHARES = (0.4, 0.25, 0.25, 0.1)
TOP = 20
FOLLOWERS = 20
"""Followers of an item that the model of co-occurrence recommends."""
PARTITION_BATCH = 1024


class Effect(NamedTuple):
    """Measures of a run."""

    share: float
    """Share of machine sessions."""
    popular: list[list[str]]
    """The most popular items as shown to each shopper's event, in order."""
    click_rate: float
    """Share of shoppers' events on an item that the decision before had recommended."""
    recall: float
    """Share of the held-out shoppers' next items that the model trained on the closed sessions has among its best."""
    called: int
    """Number of users that were called machines."""
    precision: float
    """Share of the users called machines that are machines."""
    detections: dict[str, tuple[int, int]]
    """Number of found machine sessions and of all, by kind."""


def machine_sessions(
    items: list[str], targets: list[str], count: int, span: tuple[int, int], seed: int
) -> Iterator[tuple[str, list[AnyEvent]]]:
    """Yield the kind and the events of machine sessions, each of a user of its own.

    Args:
        items: Items of the shop.
        targets: Items of the quick scrapers.
        count: Number of sessions.
        span: Times of the first and the last possible start, ms.
        seed: Seed of the generator.
    """
    rng = np.random.default_rng([seed, 17])
    for number in range(count):
        kind = KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]
        length = int(rng.integers(100, 200)) if kind == "breadth" else int(rng.integers(30, 90))
        gaps = _draw_gaps(kind, length, rng)
        pool = targets if kind == "rate" else items
        chosen = rng.permutation(len(pool))[:length]
        times = int(rng.integers(*span)) + np.cumsum(gaps).astype(np.int64)
        user = f"machine-{number}"
        made: list[AnyEvent] = []
        for index, (row, ts) in enumerate(zip(chosen.tolist(), times.tolist(), strict=False)):
            event = View(event_id=f"{user}-{index}", user_id=user, ts=ts, item_id=pool[row])
            if kind == "user agent":
                event = msgspec.structs.replace(event, user_agent="Mozilla/5.0 (compatible; ShopBot/2.0)")
            made.append(event)
        yield kind, made


def _draw_gaps(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the times between the events of a machine, ms.

    Args:
        kind: Kind of the machine.
        size: Number of gaps.
        rng: Source of randomness.
    """
    if kind == "user agent":
        return rng.exponential(4_000, size)
    if kind == "rate":
        return rng.uniform(150, 900, size)
    return rng.normal(8_000, 250, size) if kind == "regularity" else rng.lognormal(8.6, 0.8, size) + 1_000


class _Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def measure(share: float, *, events: int = 60_000, days: int = 1, seed: int = 7) -> Effect:
    """Run the shop's past with a share of machine sessions through the pipeline, and return the measures.

    Args:
        share: Share of machine sessions among all sessions.
        events: Number of shoppers' events.
        days: Number of days of the past.
        seed: Seed of shop and machines.
    """
    history = generate(make_shop(seed), events, days=days)
    items = [item.item_id for item in history.shop.assortment.items]
    shoppers = [event for event, truth in history.records() if not truth.repeat and not truth.out_of_order]
    visits = int(history.visit[-1]) + 1
    span = int(history.ts.min()), int(history.ts.max())
    sold = Counter(event.item_id for event in shoppers if not isinstance(event, Search))
    targets = [item for item, _ in sold.most_common()[::-1]][:200]
    count = round(visits * share / (1 - share))
    kinds = dict[str, str]()
    machines: list[AnyEvent] = []
    for kind, made in machine_sessions(items, targets, count, span, seed):
        kinds[made[0].user_id] = kind
        machines += made
    # With a tick a second, the lists of popular items are made at the same times, with machines and without.
    ticks = (Tick(ts=ts) for ts in range(span[0], span[1] + HOUR_MS, 1000))
    log = sorted(itertools.chain(ticks, shoppers, machines), key=lambda record: record.ts)
    return _run(share, log, kinds)


def _run(share: float, log: list[AnyEvent | Tick], kinds: dict[str, str]) -> Effect:
    values = Settings.of(k=TOP)
    pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue())
    popular: list[list[str]] = []
    called = set[str]()
    shown = dict[str, set[str]]()
    clicks = chances = 0
    closed: list[ClosedSession] = []
    for start in range(0, len(log), PARTITION_BATCH):
        batch = log[start : start + PARTITION_BATCH]
        records = [_Record(start + index, -1, None, encode_event(event)) for index, event in enumerate(batch)]
        outputs, requests, _ = pipeline.collect_requests([(0, records)])
        closed += [decode_session(message.value or b"") for message in outputs[0].closed_sessions]
        for request in requests:
            user, event = request.event.user_id, request.event
            if request.client:
                called.add(user)
            if user not in kinds:
                popular.append(request.popular[:TOP])
                if user in shown and not isinstance(event, Search):
                    chances += 1
                    clicks += event.item_id in shown[user]
                shown[user] = set(request.popular[:TOP])
    detections: dict[str, tuple[int, int]] = dict.fromkeys(KINDS, (0, 0))
    for user, kind in kinds.items():
        hits, total = detections[kind]
        detections[kind] = hits + (user in called), total + 1
    true = len(called & kinds.keys())
    return Effect(
        share,
        popular,
        clicks / max(1, chances),
        _recall(closed, kinds),
        len(called),
        true / max(1, len(called)),
        detections,
    )


def _recall(sessions: list[ClosedSession], kinds: dict[str, str]) -> float:
    """Return the recall of followers that are counted in the first part of the sessions, on the rest's shoppers."""
    honest = [session for session in sessions if session.user_id not in kinds]
    cutoff = honest[len(honest) * 7 // 10].closed_at
    followers: dict[str, Counter[str]] = {}
    hits = total = 0
    for session in sessions:
        steps = [event.item_id for event in session.events if event.item_id]
        for earlier, later in itertools.pairwise(steps):
            if earlier == later:
                continue
            if session.closed_at <= cutoff:
                followers.setdefault(earlier, Counter())[later] += 1
            elif session.user_id not in kinds:
                best = followers.get(earlier, Counter[str]()).most_common(FOLLOWERS)
                hits += later in {item for item, _ in best}
                total += 1
    return hits / max(1, total)


def moved_places(base: Effect, effect: Effect) -> float:
    """Return the share of the places shown to shoppers that hold another item than without machines.

    Args:
        base: The run without machines.
        effect: The run with machines.
    """
    lost = sum(
        len(set(base_items) - set(items)) for base_items, items in zip(base.popular, effect.popular, strict=True)
    )
    return lost / (TOP * len(base.popular))


def main() -> None:
    """Print the measures of each share beside those without machines."""
    base = measure(0.0)
    print(
        f"without machines: click rate {base.click_rate:.4f}, recall {base.recall:.4f}, called {base.called} machines"
    )
    for share in SHARES:
        effect = measure(share)
        print(
            f"{share:.0%} machine sessions: {moved_places(base, effect):.2%} of the top {TOP} moved, click rate "
            f"{effect.click_rate / base.click_rate - 1:+.2%}, recall {effect.recall / base.recall - 1:+.2%}, "
            f"precision {effect.precision:.4f}, found {effect.detections}"
        )


if __name__ == "__main__":
    main()
