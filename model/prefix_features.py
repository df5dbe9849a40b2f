"""Prefix features: the first events of a session as numbers for the trees and the regression. Pure numpy.

All events count, also events on unknown items and events without an item. `export.prefix_features_graph` computes the
same features inside the ONNX graph, bit for bit. Two choices make this possible: times are bucket numbers, and item
features are quantised to multiples of 1/256. So every sum is exact, and rounding never moves a value across a tree's
threshold.

Shapes: B prefixes, L padded length, V rows of the item table with row 0 for unknown items, S item features.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clickscore.model.array_types import Bools, Float32Array, Ints, Longs
from clickscore.model.examples import LEAVE, NEXT_ACTION_CLASS, NO_CLASS, PURCHASE
from clickscore.model.session_arrays import NO_ITEM, Sessions, find_next, pad_spans
from clickscore.schemas.events import ACTIONS

ITEM_FEATURES: tuple[str, ...] = ("popularity", "price", "item_purchases", "category_purchases")
"""Columns of `ItemFeatures.values`: log(1 + events), log(1 + price), log-odds of a purchase after an event on the
item, and the same for its category."""
POPULARITY, PRICE, PURCHASE_ODDS, CATEGORY_PURCHASE_ODDS = range(len(ITEM_FEATURES))
ITEM_PRIOR, CATEGORY_PRIOR = 20.0, 50.0
"""Weight of the overall purchase rate in the target encoding, in events: an item with 20 events, or a category with 50,
gets the mean of its own rate and the overall rate."""
QUANTISATION_STEP = 1 / 256
"""Item features are multiples of this power of two, so float32 sums over a session are exact."""
TIME_BUCKETS: Longs = (250 * 2 ** np.arange(0, 24, 0.5)).astype(np.int64)
"""Lower bounds of the time buckets in ms: two buckets for each doubling, from 0.25 s to 34 days."""
RECENT_EVENTS = 3
"""Newest events with columns of their own for action and item."""
CHUNK = 4_096
"""Prefixes in a numpy call: bounds the (B, L, L) comparison of items in memory."""
VIEW_KINDS = 8
"""Kinds of views: kind 0 for most items, and kinds from 1 on for the most frequent categories or pages."""
MAX_KIND_ITEMS = 50
"""Items without categories are kinds themselves up to this number, as the pages of a site; a shop has more."""
VIEW_ACTIONS = ("", "view", "click")
"""Actions whose item decides the kind; the empty action is padding."""
_ACTION_KINDS = {"cart": VIEW_KINDS, "favourite": VIEW_KINDS, "purchase": VIEW_KINDS + 1}
KINDS = VIEW_KINDS + 3
"""Kinds of events: views, then cart or favourite, purchase, and all other actions."""
ACTION_KINDS: Longs = np.array(
    [-1 if action in VIEW_ACTIONS else _ACTION_KINDS.get(action, KINDS - 1) for action in ACTIONS]
)
"""Kind by action code, -1 for a view, whose item decides: (actions,)."""
KIND_PLACES = 5
"""Newest events whose kinds have columns of their own."""

LINEAR_FEATURE_NAMES: tuple[str, ...] = (
    "events",
    *(f"{action}_events" for action in ACTIONS[1:]),
    *(f"action_{back}_back" for back in range(RECENT_EVENTS)),
    "time",
    "gap",
    "gap_before",
    "mean_gap",
    "events_on_known_items",
    "events_on_unknown_items",
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
"""Columns that trees and regression read. Times and gaps are bucket numbers."""
KIND_FEATURE_NAMES: tuple[str, ...] = (
    *(f"time_on_kind_{kind}" for kind in range(KINDS)),
    *(f"kind_{first}_then_{second}" for first in range(KINDS) for second in range(KINDS)),
    *(f"kind_{kind}_{back}_back" for back in range(KIND_PLACES) for kind in range(KINDS)),
)
"""Columns about the kinds of events: time until the next event (bucket numbers), transitions between neighbours, and
the kinds of the newest events (0 or 1)."""
FEATURE_NAMES = LINEAR_FEATURE_NAMES + KIND_FEATURE_NAMES
"""Columns of the feature matrix. The regression reads the first ones alone: counts of transitions need interactions."""


@dataclasses.dataclass(frozen=True)
class FullSessions:
    """Sessions with all their events, concatenated, and the labels of each event."""

    items: Ints
    """Item row; 0 for an event without an item; a negative number for an unknown item, equal for equal items:
    (events,)."""
    actions: Ints
    """Codes of `ACTIONS`: (events,)."""
    ages: Longs
    """Time since the session's first event, ms: (events,)."""
    next_action: Ints
    """Label: class of `NEXT_ACTIONS`: (events,)."""
    purchase: Ints
    """Label: 1 if a purchase follows in the session, else 0: (events,)."""
    starts: Longs
    """First event of each session, then the number of events: (sessions + 1,)."""


class EventBatch(NamedTuple):
    """Prefixes with all their events, left-aligned and padded with 0."""

    items: Longs
    """Item rows as in `FullSessions.items`: (B, L)."""
    actions: Longs
    """Codes of `ACTIONS`: (B, L)."""
    ages: Longs
    """Time since the session's first event, ms: (B, L)."""
    lengths: Longs
    """Events of each prefix: (B,)."""


@dataclasses.dataclass(frozen=True)
class ItemFeatures:
    """Features of each item, independent of the session."""

    values: Float32Array
    """Multiples of `QUANTISATION_STEP`; row 0 holds the defaults of an unknown item: (V, S)."""
    categories: Ints
    """Category code, 0 if unknown: (V,)."""
    kinds: Ints
    """Kind of a view of the item, below `VIEW_KINDS`: (V,)."""


@dataclasses.dataclass(frozen=True)
class ItemAttributes:
    """Catalogue attributes by row of the item table."""

    prices: Float32Array
    """Price, NaN if unknown: (V,)."""
    categories: Ints
    """Category code, 0 if unknown: (V,)."""


class CatalogueAttributes(NamedTuple):
    """Catalogue attributes by item id."""

    prices: dict[str, float]
    """Price of each item with a known price."""
    categories: dict[str, str]
    """Category path of each item."""


NO_ATTRIBUTES = CatalogueAttributes({}, {})


def make_full_sessions(sessions: Sessions, rows: Ints) -> FullSessions:
    """Return sessions with all events and labels, as trees and regression read them.

    Args:
        sessions: Sessions of any length.
        rows: Row of each entry of `sessions.item_ids`, 0 if unknown: (len(item_ids),).
    """
    row_or_id = np.where(rows > 0, rows, -1 - np.arange(len(rows)))  # (item_ids,), negative for unknown items
    items = np.where(sessions.items == NO_ITEM, 0, np.append(row_or_id, 0)[sessions.items])  # (events,)
    ends = np.repeat(sessions.starts[1:], np.diff(sessions.starts))  # (events,)
    classes = NEXT_ACTION_CLASS[sessions.actions]
    next_index = find_next(classes != NO_CLASS, ends)  # (events,), -1 if no action follows
    return FullSessions(
        items.astype(np.int64),
        sessions.actions,
        sessions.ages,
        np.where(next_index < 0, LEAVE, classes[next_index]),
        (find_next(sessions.actions == PURCHASE, ends) >= 0).astype(np.int8),
        sessions.starts,
    )


def mark_purchased(sessions: FullSessions) -> Bools:
    """Return whether the session has a purchase up to and including each event: (events,)."""
    purchases = np.concatenate(([0], np.cumsum(sessions.actions == PURCHASE)))  # (events + 1,)
    return purchases[1:] > np.repeat(purchases[sessions.starts[:-1]], np.diff(sessions.starts))


def assign_kinds(sessions: FullSessions, attributes: ItemAttributes) -> Ints:
    """Return the kind of a view of each item: its category, or the item itself if there are few items: (V,).

    The most frequent categories or items get the kinds from 1 to `VIEW_KINDS - 1`, and all others kind 0.

    Args:
        sessions: Training sessions.
        attributes: Categories of the rows.
    """
    rows = len(attributes.categories)
    is_view = (ACTION_KINDS[sessions.actions] < 0) & (sessions.items > 0)
    views = np.bincount(sessions.items[is_view], minlength=rows)  # (V,)
    groups = attributes.categories  # (V,), 0 for no group
    if not groups.any():
        groups = np.arange(rows) * (np.count_nonzero(views) <= MAX_KIND_ITEMS)
    group_views = np.bincount(groups, views)[1:]
    frequent = np.argsort(-group_views, kind="stable")[: VIEW_KINDS - 1] + 1
    kinds = np.zeros(len(group_views) + 1, dtype=np.int64)
    kinds[frequent] = np.arange(1, len(frequent) + 1)
    return kinds[groups]


def make_item_features(sessions: FullSessions, attributes: ItemAttributes, kinds: Ints | None = None) -> ItemFeatures:
    """Return popularity, price and target-encoded purchase odds of every item, quantised.

    Target encoding (Micci-Barreca, SIGKDD Explorations 2001) replaces an item by the smoothed rate of its label:
    rate = (purchases + prior * overall rate) / (events + prior), given as log-odds.

    Args:
        sessions: Training sessions.
        attributes: Prices and categories of the rows.
        kinds: Kind of each row, as of `assign_kinds` on all sessions; by default on the given ones: (V,).
    """
    rows = len(attributes.prices)
    is_known = sessions.items > 0
    items, bought = sessions.items[is_known], sessions.purchase[is_known].astype(np.float64)
    rate = (bought.sum() + 1) / (len(bought) + 2)  # Laplace's rule: never 0 or 1
    events, purchases = np.bincount(items, minlength=rows), np.bincount(items, bought, minlength=rows)  # (V,)
    category_events = np.bincount(attributes.categories, events)[attributes.categories]  # (V,)
    category_purchases = np.bincount(attributes.categories, purchases)[attributes.categories]  # (V,)
    no_category = attributes.categories == 0
    prices = np.log1p(attributes.prices)
    has_price = ~np.isnan(prices)
    columns = (
        np.log1p(events),
        np.where(has_price, prices, prices[has_price].mean() if has_price.any() else 0.0),
        _smoothed_log_odds(events, purchases, rate, ITEM_PRIOR),
        _smoothed_log_odds(
            np.where(no_category, 0, category_events),
            np.where(no_category, 0, category_purchases),
            rate,
            CATEGORY_PRIOR,
        ),
    )
    quantised = np.round(np.stack(columns, axis=1) / QUANTISATION_STEP) * QUANTISATION_STEP  # (V, S)
    kinds = assign_kinds(sessions, attributes) if kinds is None else kinds
    return ItemFeatures(quantised.astype(np.float32), attributes.categories, kinds)


def make_event_batch(sessions: FullSessions, ends: Longs, max_length: int) -> EventBatch:
    """Return the prefixes up to the given events.

    Args:
        sessions: Sessions with all events.
        ends: Index of the last event of each prefix: (B,).
        max_length: Maximum number of events of a prefix, the newest.
    """
    first = sessions.starts[np.searchsorted(sessions.starts, ends, side="right") - 1]
    first = np.maximum(first, ends - max_length + 1)
    lengths = ends - first + 1
    items, actions, ages = (
        pad_spans(column, first, lengths) for column in (sessions.items, sessions.actions, sessions.ages)
    )
    return EventBatch(items, actions, ages, lengths)


def compute_features(batch: EventBatch, item_features: ItemFeatures) -> Float32Array:
    """Return the features of prefixes: (B, len(FEATURE_NAMES))."""
    columns = np.arange(batch.items.shape[1])  # (L,)
    distance = batch.lengths[:, None] - 1 - columns  # (B, L): events after this one; negative in the padding
    real, newest = distance >= 0, distance == 0
    length = batch.lengths.astype(np.float32)

    def value_back(values: Longs, back: int) -> Longs:
        """Return the value `back` events before the last, 0 if the prefix is shorter: (B,)."""
        return np.where(distance == back, values, 0).sum(axis=1)

    ages = [value_back(batch.ages, back) for back in range(3)]  # three ages have two gaps between them
    gaps = [np.where(batch.lengths > back + 1, ages[back] - ages[back + 1], 0) for back in range(2)]

    item, rows = batch.items, np.maximum(batch.items, 0)
    has_item = item != 0
    same = (item[:, :, None] == item[:, None]) & has_item[:, :, None] & has_item[:, None]  # (B, L, L)
    times = same.sum(axis=2)  # (B, L): events on the same item
    later = columns[:, None] < columns  # (L, L)
    is_last = has_item & ~(same & later).any(axis=2)  # (B, L): the item's last event
    category = item_features.categories[rows]  # (B, L)
    last_category = value_back(category, 0)[:, None]  # (B, 1)
    values = item_features.values[rows]  # (B, L, S)
    recent_values = [  # (B, S) each, the last event first
        np.where((distance == back)[:, :, None], values, 0).sum(axis=1) for back in range(RECENT_EVENTS)
    ]
    means = np.where(real[:, :, None], values, 0).sum(axis=1) / length[:, None]  # (B, S)
    maxima = np.where(real[:, :, None], values, -np.inf).max(axis=1)  # (B, S)
    features = [
        length,
        *(((batch.actions == code) & real).sum(axis=1) for code in range(1, len(ACTIONS))),
        *(value_back(batch.actions, back) for back in range(RECENT_EVENTS)),
        *((time[:, None] >= TIME_BUCKETS).sum(axis=1) for time in (ages[0], *gaps, ages[0] // batch.lengths)),
        (values[:, :, POPULARITY] > 0).sum(axis=1),
        (item < 0).sum(axis=1),
        is_last.sum(axis=1),
        times.max(axis=1),
        value_back(times, 0),
        (same & newest[:, :, None] & (distance == 1)[:, None]).any(axis=(1, 2)),
        ((category == last_category) & (category > 0)).sum(axis=1),
        *recent_values[0].T,
        *means.T,
        maxima[:, PURCHASE_ODDS],
        maxima[:, CATEGORY_PURCHASE_ODDS],
        *(back_values[:, PURCHASE_ODDS] for back_values in recent_values[1:]),
        recent_values[0][:, PRICE] - means[:, PRICE],
    ]
    kind_features = _compute_kind_features(batch, distance, item_features.kinds)
    return np.concatenate((np.stack(features, axis=1), kind_features), axis=1).astype(np.float32)


def _compute_kind_features(batch: EventBatch, distance: Longs, kinds: Ints) -> Float32Array:
    """Return time, transitions and newest places of each kind: (B, len(KIND_FEATURE_NAMES)).

    Args:
        batch: Prefixes.
        distance: Events after each event, negative in the padding: (B, L).
        kinds: Kind of a view of each item: (V,).
    """
    of_action = ACTION_KINDS[batch.actions]  # (B, L)
    kind = np.where(of_action < 0, kinds[np.maximum(batch.items, 0)], of_action)  # (B, L)
    is_kind = (kind[:, :, None] == np.arange(KINDS)) & (distance >= 0)[:, :, None]  # (B, L, K)
    next_age, is_next = (np.roll(values, -1, axis=1) for values in (batch.ages, is_kind))
    has_next = distance > 0  # (B, L)
    duration = np.where(has_next, next_age - batch.ages, 0)  # (B, L): time until the next event
    times = np.where(is_kind, duration[:, :, None], 0).sum(axis=1)  # (B, K)
    first, second = (mask.astype(np.float32) for mask in (is_kind & has_next[:, :, None], is_next))
    transitions = first.transpose(0, 2, 1) @ second  # (B, K, K): whole numbers, so exact
    places = [((distance == back)[:, :, None] & is_kind).any(axis=1) for back in range(KIND_PLACES)]  # (B, K) each
    buckets = np.searchsorted(TIME_BUCKETS, times, side="right")  # (B, K)
    return np.concatenate((buckets, transitions.reshape(len(kind), -1), *places), axis=1).astype(np.float32)


def compute_features_after(
    sessions: FullSessions, ends: Longs, item_features: ItemFeatures, max_length: int
) -> Float32Array:
    """Return the features of the prefixes up to the given events: (len(ends), len(FEATURE_NAMES)).

    Args:
        sessions: Sessions with all events.
        ends: Index of the last event of each prefix: (prefixes,).
        item_features: Features of the items.
        max_length: Maximum number of events of a prefix, the newest.
    """
    features = np.zeros((len(ends), len(FEATURE_NAMES)), dtype=np.float32)
    first = sessions.starts[np.searchsorted(sessions.starts, ends, side="right") - 1]
    order = np.argsort(ends - first, kind="stable")  # prefixes of like length share a chunk: little padding
    for start in range(0, len(ends), CHUNK):
        chunk = order[start : start + CHUNK]
        features[chunk] = compute_features(make_event_batch(sessions, ends[chunk], max_length), item_features)
    return features


def make_item_attributes(items: Sequence[str], catalogue: CatalogueAttributes) -> ItemAttributes:
    """Return the catalogue attributes of a vocabulary's rows, with row 0 for unknown items."""
    prices, categories = catalogue
    codes = {name: code for code, name in enumerate(sorted({categories.get(item, "") for item in items} | {""}))}
    return ItemAttributes(
        np.array([np.nan, *(prices.get(item, np.nan) for item in items)], dtype=np.float32),
        np.array([0, *(codes[categories.get(item, "")] for item in items)], dtype=np.int64),
    )


def _smoothed_log_odds(
    events: npt.NDArray[Any], purchases: npt.NDArray[Any], rate: float, prior: float
) -> Float32Array:
    """Return log(p / (1 - p)) of p = (purchases + prior * rate) / (events + prior): (V,)."""
    share = (purchases + prior * rate) / (events + prior)
    return np.log(share / (1 - share))
