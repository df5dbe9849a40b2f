"""Prefix features in the graph: the columns of `model.prefix_features`, line by line and bit for bit.

Only what is exact in any company is used: comparisons, whole numbers, sums of multiples of 1/256, and one division.
Shapes: B sessions, L padded length, S columns of `SIDE`.
"""

import numpy as np
from onnx import TensorProto

from clickscore.export.graph_builder import GraphBuilder
from clickscore.model.prefix_features import (
    CATEGORY_PURCHASE_ODDS,
    ITEM_FEATURES,
    POPULARITY,
    PRICE,
    PURCHASE_ODDS,
    RECENT_EVENTS,
    TIME_BUCKETS,
    ItemFeatures,
)
from clickscore.schemas.events import ACTIONS

ONE, TWO = np.array([1]), np.array([2])  # axes


class PrefixFeaturesGraph:
    """The nodes of one graph."""

    def __init__(self, graph: GraphBuilder, by: ItemFeatures) -> None:
        self._graph = graph
        length = graph("Gather", graph("Shape", "items"), np.array(1))
        self._at = graph("Range", np.array(0), length, np.array(1))  # (L,)
        self._behind = graph("Sub", graph("Unsqueeze", graph("Sub", "lengths", np.array(1)), ONE), self._at)  # (B, L)
        self._real = graph("GreaterOrEqual", self._behind, np.array(0))
        rows = graph("Max", "items", np.array(0))
        self._numbers = graph("Gather", by.values, rows)  # (B, L, S)
        self._category = graph("Gather", by.categories.astype(np.int64), rows)  # (B, L)
        self._events = graph("Cast", "lengths", to=TensorProto.FLOAT)  # (B,)

    def columns(self) -> str:
        """Return all of them: (B, len(NAMES))."""
        graph = self._graph
        ages = [self._back("ages", places) for places in range(3)]
        gaps: list[str] = []
        for places in range(2):
            longer = graph("Greater", "lengths", np.array(places + 1))
            gaps.append(graph("Where", longer, graph("Sub", ages[places], ages[places + 1]), np.array(0)))
        same, times = self._same()
        lasts = [self._numbers_back(places) for places in range(RECENT_EVENTS)]  # (B, S) each
        means, most = self._over_session()
        found = [
            graph("Unsqueeze", self._events, ONE),
            *(self._count(graph("Equal", "actions", np.array(code))) for code in range(1, len(ACTIONS))),
            *(self._column(self._back("actions", places)) for places in range(RECENT_EVENTS)),
            *(self._bucket(value) for value in (ages[0], *gaps, graph("Div", ages[0], "lengths"))),
            self._count(graph("Greater", self._of_side(POPULARITY), np.float32(0))),
            self._distinct(same),
            graph("ReduceMax", self._float(times), ONE),
            self._column(self._back(times, 0)),
            self._follows_itself(same),
            self._same_category(),
            lasts[0],
            means,
            self._pick(most, PURCHASE_ODDS),
            self._pick(most, CATEGORY_PURCHASE_ODDS),
            *(self._pick(value, PURCHASE_ODDS) for value in lasts[1:]),
            graph("Sub", self._pick(lasts[0], PRICE), self._pick(means, PRICE)),
        ]
        return graph("Concat", *found, axis=1)

    def newest_actions(self) -> list[str]:
        """Return the codes of the newest actions, the last first: (B,) each."""
        return [self._back("actions", places) for places in range(RECENT_EVENTS)]

    def _back(self, values: str, places: int) -> str:
        """Return the whole number so many places before the last, 0 where the session began later: (B,)."""
        there = self._graph("Where", self._place(places), values, np.array(0))
        return self._graph("ReduceSum", there, ONE, keepdims=0)

    def _place(self, places: int) -> str:
        return self._graph("Equal", self._behind, np.array(places))  # (B, L)

    def _numbers_back(self, places: int) -> str:
        there = self._graph("Unsqueeze", self._place(places), TWO)  # (B, L, 1)
        return self._graph("ReduceSum", self._graph("Where", there, self._numbers, np.float32(0)), ONE, keepdims=0)

    def _over_session(self) -> tuple[str, str]:
        """Return the mean and the largest of each number: (B, S) each."""
        graph, real = self._graph, self._graph("Unsqueeze", self._real, TWO)
        total = graph("ReduceSum", graph("Where", real, self._numbers, np.float32(0)), ONE, keepdims=0)
        largest = graph("ReduceMax", graph("Where", real, self._numbers, np.float32(-np.inf)), ONE, keepdims=0)
        return graph("Div", total, graph("Unsqueeze", self._events, ONE)), largest

    def _same(self) -> tuple[str, str]:
        """Return which events are on the same item (B, L, L), and how many are on the item of each (B, L)."""
        graph = self._graph
        some = graph("Not", graph("Equal", "items", np.array(0)))
        equal = graph("Equal", graph("Unsqueeze", "items", TWO), graph("Unsqueeze", "items", ONE))
        both = graph("And", graph("Unsqueeze", some, TWO), graph("Unsqueeze", some, ONE))
        same = graph("And", equal, both)
        return same, graph("ReduceSum", graph("Cast", same, to=TensorProto.INT64), TWO, keepdims=0)

    def _distinct(self, same: str) -> str:
        """Return how many items there are: the events with no later one on their item: (B, 1)."""
        graph = self._graph
        later = graph("Less", graph("Unsqueeze", self._at, ONE), self._at)  # (L, L)
        again = graph("ReduceMax", self._float(graph("And", same, later)), TWO, keepdims=0)  # (B, L)
        some = graph("Not", graph("Equal", "items", np.array(0)))
        return self._count(graph("And", some, graph("Less", again, np.float32(0.5))))

    def _follows_itself(self, same: str) -> str:
        """Return whether the last event is on the item of the one before: (B, 1)."""
        graph = self._graph
        last, before = graph("Unsqueeze", self._place(0), TWO), graph("Unsqueeze", self._place(1), ONE)
        both = self._float(graph("And", graph("And", same, last), before))  # (B, L, L)
        return graph("ReduceMax", graph("ReduceMax", both, TWO, keepdims=0), ONE)

    def _same_category(self) -> str:
        graph = self._graph
        own = self._column_of_int(self._back(self._category, 0))
        known = graph("Greater", self._category, np.array(0))
        return self._count(graph("And", graph("Equal", self._category, own), known))

    def _of_side(self, column: int) -> str:
        return self._graph("Gather", self._numbers, np.array(column), axis=2)  # (B, L)

    def _pick(self, numbers: str, column: int) -> str:
        """Return one column of (B, S): (B, 1)."""
        assert column < len(ITEM_FEATURES)
        return self._graph("Gather", numbers, np.array([column]), axis=1)

    def _count(self, which: str) -> str:
        """Return how many real events are so: (B, L) -> (B, 1)."""
        return self._graph("ReduceSum", self._float(self._graph("And", which, self._real)), ONE)

    def _bucket(self, value: str) -> str:
        """Return the number of the time's bucket: (B,) -> (B, 1)."""
        reached = self._graph("GreaterOrEqual", self._column_of_int(value), TIME_BUCKETS)  # (B, buckets)
        return self._graph("ReduceSum", self._float(reached), ONE)

    def _column(self, value: str) -> str:
        return self._float(self._column_of_int(value))

    def _column_of_int(self, value: str) -> str:
        return self._graph("Unsqueeze", value, ONE)

    def _float(self, value: str) -> str:
        return self._graph("Cast", value, to=TensorProto.FLOAT)
