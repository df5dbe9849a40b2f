"""Prefix features: what the beginning of a session tells of its end, as numbers. Pure numpy.

Trees and regressions read them: of every event, those on unknown items and on none included.
`export.prefix_features_graph` computes them again as part of the graph, bit for bit: times are told in
buckets and items in whole 256ths, so that no sum is rounded, and no threshold of a tree is missed by a rounding. B
beginnings, L their padded length, V rows of the item table with row 0 for what is unknown.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clickscore.model.features import (
    LEAVE,
    NEXT_ACTION_OF,
    NO_CLASS,
    NO_ITEM,
    PURCHASE,
    Float32Array,
    Ints,
    Longs,
    Sessions,
    find_next,
    pad_spans,
)
from clickscore.schemas.events import ACTIONS

ITEM_FEATURES: tuple[str, ...] = ("popularity", "price", "item_purchases", "category_purchases")
"""Columns of `ItemFeatures.values`: log(1 + events), log(1 + price), log-odds of a purchase after an event on it."""
POPULARITY, PRICE, PURCHASE_ODDS, CATEGORY_PURCHASE_ODDS = range(len(ITEM_FEATURES))
ITEM_PRIOR, CATEGORY_PRIOR = 20.0, 50.0
"""Events of the average rate that an item's or a category's own are counted with."""
QUANTISATION_STEP = 1 / 256
"""What numbers of items are rounded to: sums of them are exact."""
TIME_BUCKETS: Longs = (250 * 2 ** np.arange(0, 24, 0.5)).astype(np.int64)
"""Where the buckets of times begin, ms: from a quarter of a second to a month, two for each doubling."""
RECENT_EVENTS = 3
"""Events whose action and item are told one by one."""

FEATURE_NAMES: tuple[str, ...] = (
    "events",
    *(f"{action}_events" for action in ACTIONS[1:]),
    *(f"action_{back}_back" for back in range(RECENT_EVENTS)),
    "time",
    "gap",
    "gap_before",
    "mean_gap",
    "events_on_known_items",
    "distinct_items",
    "most_of_one_item",
    "times_of_last_item",
    "same_item_as_before",
    "same_category",
    *(f"last_{name}" for name in ITEM_FEATURES),
    *(f"mean_{name}" for name in ITEM_FEATURES),
    "most_item_purchases",
    "most_category_purchases",
    *(f"item_purchases_{back}_back" for back in range(1, RECENT_EVENTS)),
    "dearer_than_mean",
)
"""Columns; times are numbers of buckets."""


@dataclasses.dataclass(frozen=True)
class FullSessions:
    """Whole sessions, end to end, every event of them, with what followed each."""

    items: Ints
    """Row; 0 for no item; below 0 for an unknown one, the same number for the same: (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    ages: Longs
    """ms since the session began: (events,)."""
    next_action: Ints
    """Class of `NEXT_ACTIONS`: (events,)."""
    purchase: Ints
    """Whether something is bought in what is left of the session: (events,)."""
    starts: Longs
    """(sessions + 1,)."""


class EventBatch(NamedTuple):
    """Beginnings of sessions, every event of them, left-aligned, 0 after the end: int64 (B, L), lengths (B,)."""

    items: Longs
    actions: Longs
    ages: Longs
    lengths: Longs


@dataclasses.dataclass(frozen=True)
class ItemFeatures:
    """What is known of items beside their sequence."""

    values: Float32Array
    """Multiples of `STEP`; row 0 is what is assumed of an unknown item: (V, len(SIDE))."""
    categories: Ints
    """Code of each row's category, 0 where it is unknown: (V,)."""


@dataclasses.dataclass(frozen=True)
class ItemAttributes:
    """What a catalogue says of the rows of a vocabulary."""

    prices: Float32Array
    """NaN where it is unknown: (V,)."""
    categories: Ints
    """(V,)."""


class CatalogueAttributes(NamedTuple):
    """What is known of items, by id."""

    prices: dict[str, float]
    categories: dict[str, str]


NO_ATTRIBUTES = CatalogueAttributes({}, {})


def make_full_sessions(sessions: Sessions, rows: Ints) -> FullSessions:
    """Return sessions as the heads read them.

    Args:
        sessions: Any.
        rows: Row of each of `sessions.item_ids`, 0 where it is unknown: (len(item_ids),).
    """
    own = np.where(rows > 0, rows, -1 - np.arange(len(rows)))  # (item_ids,)
    items = np.where(sessions.items == NO_ITEM, 0, np.append(own, 0)[sessions.items])
    ends = np.repeat(sessions.starts[1:], np.diff(sessions.starts))  # (events,)
    classes = NEXT_ACTION_OF[sessions.actions]
    acts = find_next(classes != NO_CLASS, ends)
    return FullSessions(
        items.astype(np.int64),
        sessions.actions,
        sessions.ages,
        np.where(acts < 0, LEAVE, classes[acts]),
        (find_next(sessions.actions == PURCHASE, ends) >= 0).astype(np.int8),
        sessions.starts,
    )


def make_item_features(of: FullSessions, facts: ItemAttributes) -> ItemFeatures:
    """Return what sessions and a catalogue tell of items.

    Args:
        of: Sessions for training.
        facts: Prices and categories of the rows.
    """
    rows = len(facts.prices)
    known = of.items > 0
    items, bought = of.items[known], of.purchase[known].astype(np.float64)
    rate = (bought.sum() + 1) / (len(bought) + 2)
    seen, ended = np.bincount(items, minlength=rows), np.bincount(items, bought, minlength=rows)  # (V,)
    category_seen = np.bincount(facts.categories, seen)[facts.categories]
    category_ended = np.bincount(facts.categories, ended)[facts.categories]
    unknown = facts.categories == 0
    prices = np.log1p(facts.prices)
    some = ~np.isnan(prices)
    columns = (
        np.log1p(seen),
        np.where(some, prices, prices[some].mean() if some.any() else 0.0),
        _log_odds(seen, ended, rate, ITEM_PRIOR),
        _log_odds(np.where(unknown, 0, category_seen), np.where(unknown, 0, category_ended), rate, CATEGORY_PRIOR),
    )
    rounded = np.round(np.stack(columns, axis=1) / QUANTISATION_STEP) * QUANTISATION_STEP
    return ItemFeatures(rounded.astype(np.float32), facts.categories)


def make_event_batch(of: FullSessions, at: Longs, max_length: int) -> EventBatch:
    """Return the beginnings that end with these events, at most the newest `max_length` events of each."""
    first = of.starts[np.searchsorted(of.starts, at, side="right") - 1]
    first = np.maximum(first, at - max_length + 1)
    lengths = at - first + 1
    items, actions, ages = (pad_spans(part, first, lengths) for part in (of.items, of.actions, of.ages))
    return EventBatch(items, actions, ages, lengths)


def compute_features(of: EventBatch, by: ItemFeatures) -> Float32Array:
    """Return the features of beginnings: (B, len(NAMES))."""
    columns = np.arange(of.items.shape[1])  # (L,)
    behind = of.lengths[:, None] - 1 - columns  # (B, L), negative after the end
    real, newest = behind >= 0, behind == 0
    length = of.lengths.astype(np.float32)

    def back(values: Longs, places: int) -> Longs:
        """Return the value so many places before the last, 0 where the session began later: (B,)."""
        return np.where(behind == places, values, 0).sum(axis=1)

    ages = [back(of.ages, places) for places in range(3)]
    gaps = [np.where(of.lengths > places + 1, ages[places] - ages[places + 1], 0) for places in range(2)]

    item, rows = of.items, np.maximum(of.items, 0)
    same = (item[:, :, None] == item[:, None]) & (item != 0)[:, :, None] & (item != 0)[:, None]  # (B, L, L)
    times = same.sum(axis=2)  # (B, L): events on the same item
    later = columns[:, None] < columns  # (L, L)
    is_last = (item != 0) & ~(same & later).any(axis=2)
    category = by.categories[rows]  # (B, L)
    of_last = back(category, 0)[:, None]
    numbers = by.values[rows]  # (B, L, S)
    lasts = [
        np.where((behind == places)[:, :, None], numbers, 0).sum(axis=1) for places in range(RECENT_EVENTS)
    ]  # (B, S)
    means = np.where(real[:, :, None], numbers, 0).sum(axis=1) / length[:, None]  # (B, S)
    most = np.where(real[:, :, None], numbers, -np.inf).max(axis=1)  # (B, S)
    found = [
        length,
        *(((of.actions == code) & real).sum(axis=1) for code in range(1, len(ACTIONS))),
        *(back(of.actions, places) for places in range(RECENT_EVENTS)),
        *((value[:, None] >= TIME_BUCKETS).sum(axis=1) for value in (ages[0], *gaps, ages[0] // of.lengths)),
        (numbers[:, :, POPULARITY] > 0).sum(axis=1),
        is_last.sum(axis=1),
        times.max(axis=1),
        back(times, 0),
        (same & newest[:, :, None] & (behind == 1)[:, None]).any(axis=(1, 2)),
        ((category == of_last) & (category > 0)).sum(axis=1),
        *lasts[0].T,
        *means.T,
        most[:, PURCHASE_ODDS],
        most[:, CATEGORY_PURCHASE_ODDS],
        *(value[:, PURCHASE_ODDS] for value in lasts[1:]),
        lasts[0][:, PRICE] - means[:, PRICE],
    ]
    return np.stack(found, axis=1).astype(np.float32)


def compute_features_after(
    of: FullSessions, at: Longs, by: ItemFeatures, max_length: int, most: int = 4_096
) -> Float32Array:
    """Return the features of the beginnings that end with these events, `most` at once: (len(at), len(NAMES))."""
    found = np.zeros((len(at), len(FEATURE_NAMES)), dtype=np.float32)
    first = of.starts[np.searchsorted(of.starts, at, side="right") - 1]
    order = np.argsort(at - first, kind="stable")  # those of like length together: little padding
    for start in range(0, len(at), most):
        some = order[start : start + most]
        found[some] = compute_features(make_event_batch(of, at[some], max_length), by)
    return found


def make_item_attributes(items: Sequence[str], catalogue: CatalogueAttributes) -> ItemAttributes:
    """Return what is known of the items of a vocabulary, row 0 included."""
    prices, categories = catalogue
    codes = {name: code for code, name in enumerate(sorted({categories.get(item, "") for item in items} | {""}))}
    return ItemAttributes(
        np.array([np.nan, *(prices.get(item, np.nan) for item in items)], dtype=np.float32),
        np.array([0, *(codes[categories.get(item, "")] for item in items)], dtype=np.int64),
    )


def _log_odds(seen: npt.NDArray[Any], ended: npt.NDArray[Any], rate: float, prior: float) -> Float32Array:
    share = (ended + prior * rate) / (seen + prior)
    return np.log(share / (1 - share))
