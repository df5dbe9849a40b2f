"""Prefix features graph: the columns of `model.prefix_features` as nodes, column by column and bit for bit.

The nodes use only operations that are exact, and so batch-invariant: comparisons, whole numbers, sums of multiples of
1/256, and one division.

Shapes: B sessions, L padded length, S columns of `ITEM_FEATURES`.
"""

import numpy as np
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.model.prefix_features import (
    ACTION_KINDS,
    CATEGORY_PURCHASE_ODDS,
    ITEM_FEATURES,
    KIND_PLACES,
    KINDS,
    POPULARITY,
    PRICE,
    PURCHASE_ODDS,
    RECENT_EVENTS,
    TIME_BUCKETS,
    ItemFeatures,
)
from clickscore.schemas.events import ACTIONS

AXIS_1, AXIS_2 = np.array([1]), np.array([2])


class PrefixFeaturesGraph:
    """Nodes of one graph that compute the prefix features."""

    def __init__(self, graph: GraphBuilder, item_features: ItemFeatures) -> None:
        self._graph = graph
        length = graph("Gather", graph("Shape", "items"), np.array(1))
        self._positions = graph("Range", np.array(0), length, np.array(1))  # (L,)
        last = graph("Unsqueeze", graph("Sub", "lengths", np.array(1)), AXIS_1)  # (B, 1)
        self._steps_back = graph("Sub", last, self._positions)  # (B, L): 0 for the last event, negative for padding
        self._is_event = graph("GreaterOrEqual", self._steps_back, np.array(0))
        rows = graph("Max", "items", np.array(0))  # row 0 holds the defaults of unknown items
        self._item_features = graph("Gather", item_features.values, rows)  # (B, L, S)
        self._category = graph("Gather", item_features.categories.astype(np.int64), rows)  # (B, L)
        self._view_kind = graph("Gather", item_features.kinds.astype(np.int64), rows)  # (B, L)
        self._events = graph("Cast", "lengths", to=TensorProto.FLOAT)  # (B,)

    def columns(self) -> str:
        """Return all features in the order of `FEATURE_NAMES`: (B, len(FEATURE_NAMES))."""
        graph = self._graph
        ages = [self._value_back("ages", steps) for steps in range(3)]  # (B,) each
        gaps: list[str] = []
        for steps in range(2):  # gap = age - age of the event before, 0 at the session's first event
            longer = graph("Greater", "lengths", np.array(steps + 1))
            gaps.append(graph("Where", longer, graph("Sub", ages[steps], ages[steps + 1]), np.array(0)))
        same, times = self._same_items()
        recent = [self._item_features_back(steps) for steps in range(RECENT_EVENTS)]  # (B, S) each
        means, maxima = self._aggregate_session()
        columns = [
            graph("Unsqueeze", self._events, AXIS_1),
            *(self._count(graph("Equal", "actions", np.array(code))) for code in range(1, len(ACTIONS))),
            *(self._to_column(self._value_back("actions", steps)) for steps in range(RECENT_EVENTS)),
            *(self._bucket(value) for value in (ages[0], *gaps, graph("Div", ages[0], "lengths"))),
            self._count(graph("Greater", self._item_feature(POPULARITY), np.float32(0))),
            self._count(graph("Less", "items", np.array(0))),
            self._count_distinct(same),
            graph("ReduceMax", self._to_float(times), AXIS_1),
            self._to_column(self._value_back(times, 0)),
            self._repeats_last_item(same),
            self._count_same_category(),
            recent[0],
            means,
            self._pick(maxima, PURCHASE_ODDS),
            self._pick(maxima, CATEGORY_PURCHASE_ODDS),
            *(self._pick(values, PURCHASE_ODDS) for values in recent[1:]),
            graph("Sub", self._pick(recent[0], PRICE), self._pick(means, PRICE)),
            *self._kind_columns(),
        ]
        return graph("Concat", *columns, axis=1)

    def recent_actions(self) -> list[str]:
        """Return the codes of the newest actions, the last one first: (B,) each."""
        return [self._value_back("actions", steps) for steps in range(RECENT_EVENTS)]

    def _value_back(self, values: str, steps: int) -> str:
        """Return the integer some steps before the last event, 0 where the session is shorter: (B, L) -> (B,)."""
        masked = self._graph("Where", self._is_steps_back(steps), values, np.array(0))
        return self._graph("ReduceSum", masked, AXIS_1, keepdims=0)

    def _is_steps_back(self, steps: int) -> str:
        return self._graph("Equal", self._steps_back, np.array(steps))  # (B, L)

    def _item_features_back(self, steps: int) -> str:
        """Return the item features some steps before the last event, 0 where the session is shorter: (B, S)."""
        mask = self._graph("Unsqueeze", self._is_steps_back(steps), AXIS_2)  # (B, L, 1)
        masked = self._graph("Where", mask, self._item_features, np.float32(0))
        return self._graph("ReduceSum", masked, AXIS_1, keepdims=0)

    def _aggregate_session(self) -> tuple[str, str]:
        """Return the mean and the maximum of each item feature over the session: (B, S) each."""
        graph, is_event = self._graph, self._graph("Unsqueeze", self._is_event, AXIS_2)
        total = graph("ReduceSum", graph("Where", is_event, self._item_features, np.float32(0)), AXIS_1, keepdims=0)
        maxima = graph(
            "ReduceMax", graph("Where", is_event, self._item_features, np.float32(-np.inf)), AXIS_1, keepdims=0
        )
        return graph("Div", total, graph("Unsqueeze", self._events, AXIS_1)), maxima

    def _same_items(self) -> tuple[str, str]:
        """Return which pairs of events share an item, (B, L, L), and the events on each event's item, (B, L)."""
        graph = self._graph
        has_item = graph("Not", graph("Equal", "items", np.array(0)))
        equal = graph("Equal", graph("Unsqueeze", "items", AXIS_2), graph("Unsqueeze", "items", AXIS_1))
        pairs = graph("And", graph("Unsqueeze", has_item, AXIS_2), graph("Unsqueeze", has_item, AXIS_1))
        same = graph("And", equal, pairs)
        return same, graph("ReduceSum", graph("Cast", same, to=TensorProto.INT64), AXIS_2, keepdims=0)

    def _count_distinct(self, same: str) -> str:
        """Return the number of distinct items, counted at the last event on each item: (B, 1)."""
        graph = self._graph
        later = graph("Less", graph("Unsqueeze", self._positions, AXIS_1), self._positions)  # (L, L)
        has_later = graph("ReduceMax", self._to_float(graph("And", same, later)), AXIS_2, keepdims=0)  # (B, L)
        has_item = graph("Not", graph("Equal", "items", np.array(0)))
        return self._count(graph("And", has_item, graph("Less", has_later, np.float32(0.5))))  # has_later is 0 or 1

    def _repeats_last_item(self, same: str) -> str:
        """Return 1 where the last two events are on the same item, else 0: (B, 1)."""
        graph = self._graph
        last = graph("Unsqueeze", self._is_steps_back(0), AXIS_2)
        previous = graph("Unsqueeze", self._is_steps_back(1), AXIS_1)
        pair = self._to_float(graph("And", graph("And", same, last), previous))  # (B, L, L)
        return graph("ReduceMax", graph("ReduceMax", pair, AXIS_2, keepdims=0), AXIS_1)

    def _kind_columns(self) -> list[str]:
        """Return time, transitions and newest places of each kind: (B, K), (B, K * K) and (B, places * K)."""
        graph = self._graph
        of_action = graph("Gather", ACTION_KINDS, "actions")  # (B, L)
        kind = graph("Where", graph("Less", of_action, np.array(0)), self._view_kind, of_action)
        equal = graph("Equal", graph("Unsqueeze", kind, AXIS_2), np.arange(KINDS))
        is_kind = graph("And", equal, graph("Unsqueeze", self._is_event, AXIS_2))  # (B, L, K)
        has_next = graph("Greater", self._steps_back, np.array(0))  # (B, L)
        duration = graph("Where", has_next, graph("Sub", self._next("ages"), "ages"), np.array(0))  # (B, L)
        durations = graph("Where", is_kind, graph("Unsqueeze", duration, AXIS_2), np.array(0))
        time = graph("ReduceSum", durations, AXIS_1, keepdims=0)  # (B, K)
        reached = graph("GreaterOrEqual", graph("Unsqueeze", time, AXIS_2), TIME_BUCKETS)  # (B, K, buckets)
        first = self._to_float(graph("And", is_kind, graph("Unsqueeze", has_next, AXIS_2)))
        number = self._to_float(is_kind)
        transitions = graph("MatMul", graph("Transpose", first, perm=[0, 2, 1]), self._next(number))  # (B, K, K)
        back = np.arange(KIND_PLACES)[:, None]  # (places, 1)
        is_place = self._to_float(graph("Equal", graph("Unsqueeze", self._steps_back, AXIS_1), back))  # (B, places, L)
        places = graph("MatMul", is_place, number)  # (B, places, K): one event a place, so a selection
        return [
            graph("ReduceSum", self._to_float(reached), AXIS_2, keepdims=0),
            graph("Reshape", transitions, np.array([-1, KINDS * KINDS])),
            graph("Reshape", places, np.array([-1, KIND_PLACES * KINDS])),
        ]

    def _next(self, values: str) -> str:
        """Return each event's values of the next event; the last event gets those of the first: (B, L, ...)."""
        first, rest = (
            self._graph("Slice", values, np.array([start]), np.array([end]), AXIS_1)
            for start, end in ((0, 1), (1, np.iinfo(np.int64).max))
        )
        return self._graph("Concat", rest, first, axis=1)

    def _count_same_category(self) -> str:
        """Return the number of events in the category of the last event's item: (B, 1)."""
        graph = self._graph
        last = self._to_integer_column(self._value_back(self._category, 0))
        is_known = graph("Greater", self._category, np.array(0))
        return self._count(graph("And", graph("Equal", self._category, last), is_known))

    def _item_feature(self, column: int) -> str:
        return self._graph("Gather", self._item_features, np.array(column), axis=2)  # (B, L)

    def _pick(self, values: str, column: int) -> str:
        """Return one column of item features: (B, S) -> (B, 1)."""
        assert column < len(ITEM_FEATURES)
        return self._graph("Gather", values, np.array([column]), axis=1)

    def _count(self, mask: str) -> str:
        """Return the number of events where the mask holds, padding left out: (B, L) -> (B, 1)."""
        return self._graph("ReduceSum", self._to_float(self._graph("And", mask, self._is_event)), AXIS_1)

    def _bucket(self, value: str) -> str:
        """Return the bucket of a time, the number of bounds that it has reached: (B,) -> (B, 1)."""
        reached = self._graph("GreaterOrEqual", self._to_integer_column(value), TIME_BUCKETS)  # (B, buckets)
        return self._graph("ReduceSum", self._to_float(reached), AXIS_1)

    def _to_column(self, value: str) -> str:
        return self._to_float(self._to_integer_column(value))

    def _to_integer_column(self, value: str) -> str:
        return self._graph("Unsqueeze", value, AXIS_1)

    def _to_float(self, value: str) -> str:
        return self._graph("Cast", value, to=TensorProto.FLOAT)
