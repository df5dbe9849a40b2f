"""Evaluation columns: labelled events as columns of numbers, a few bytes per event and arm, so that millions fit."""

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from clickscore.backtest.label_join import LabelledEvent, Relation
from clickscore.model.array_types import Floats, Ints
from clickscore.model.metrics import MIN_PROBABILITY
from clickscore.schemas.manifest import NEXT_ACTIONS

USER_BINS = 10_000
"""Bins of users, by hash. The bootstrap draws bins, and the cost grows with the number of bins."""

RELATIONS: tuple[Relation, ...] = get_args(Relation)
NO_NEXT_ITEM = RELATIONS.index("nothing follows")
NEW_ITEM = RELATIONS.index("new to the session")

MAX_CATEGORIES = 10_000  # below the 65,536 numbers of the column's 16 bits; the report shows 12
OTHER_CATEGORIES = "(other)"
MAX_LENGTH = 65_535  # largest number of the 16 bits of the column `length`

Column = npt.NDArray[Any]


class ArmColumns:
    """Predictions of one arm, compared with the labels: an entry per labelled event."""

    def __init__(self, cutoff: int) -> None:
        """Start without events.

        Args:
            cutoff: Length of the ranking whose items count as recommended.
        """
        self._cutoff = cutoff
        self._ranks = array("H")
        self._discovery_ranks = array("H")
        self._purchase = array("f")
        self._action_loss = array("f")
        self.recommended: Counter[str] = Counter()
        """Count of each item among the first `cutoff` recommendations."""
        self.model_places: Counter[str] = Counter()
        """Number of places that the arm's model, or its baseline, filled, by variant of the arm's A/B test."""
        self.fallback_places: Counter[str] = Counter()
        """Number of places that popular items filled, by variant."""

    def add(self, event: LabelledEvent, arm: int) -> None:
        """Add a labelled event.

        Args:
            event: The event with the predictions of all arms.
            arm: Number of this arm.
        """
        items, discoveries, model_items, variant, purchase, actions = event.predictions[arm]
        label = event.label
        self._ranks.append(items.index(label.item) + 1 if label.item in items else 0)
        self._discovery_ranks.append(discoveries.index(label.item) + 1 if label.item in discoveries else 0)
        self._purchase.append(np.nan if purchase is None else purchase)
        self._action_loss.append(np.nan if actions is None else _log_loss(actions, label.action))
        self.recommended.update(items[: self._cutoff])
        self.model_places[variant] += model_items
        self.fallback_places[variant] += len(items) - model_items

    @property
    def ranks(self) -> Ints:
        """Rank of the next item from 1; 0 where the item was not recommended, or no item follows: (events,)."""
        return np.frombuffer(self._ranks, dtype=np.uint16).astype(np.int64)

    @property
    def discovery_ranks(self) -> Ints:
        """Rank of the next item in the list without items of the session, from 1; 0 for none: (events,)."""
        return np.frombuffer(self._discovery_ranks, dtype=np.uint16).astype(np.int64)

    @property
    def purchase(self) -> Floats:
        """Probability of a purchase in the rest of the session; NaN where the arm stated no probability: (events,)."""
        return np.frombuffer(self._purchase, dtype=np.float32).astype(np.float64)

    @property
    def action_loss(self) -> Floats:
        """Log loss -log p(next action); NaN where the arm stated no probability: (events,)."""
        return np.frombuffer(self._action_loss, dtype=np.float32).astype(np.float64)


class EvaluationColumns:
    """All labelled events: the context and label of each event, and the columns of each arm."""

    def __init__(self, arms: int, cutoff: int) -> None:
        """Start without events.

        Args:
            arms: Number of arms.
            cutoff: Length of the rankings whose items count as recommended.
        """
        self.arms = [ArmColumns(cutoff) for _ in range(arms)]
        self.categories: list[str] = []
        """Name of each number in the column `category`."""
        self.bought_labels = 0
        """Events whose next item the user had bought before, so that the policy filtered it for every arm."""
        self.next_items: Counter[str] = Counter()
        """Count of each item as the next item."""
        self.users: set[int] = set()
        """Hash of each user."""
        self._category_numbers: dict[str, int] = {}
        self._columns = {
            "user_bin": array("H"),
            "length": array("H"),
            "ts": array("q"),
            "known_user": array("B"),
            "category": array("H"),
            "relation": array("B"),
            "purchased": array("B"),
        }

    def __len__(self) -> int:
        """Return the number of labelled events."""
        return len(self._columns["ts"])

    def add(self, events: Sequence[LabelledEvent]) -> None:
        """Add labelled events."""
        columns = self._columns
        for event in events:
            context, _, label, relation = event
            columns["user_bin"].append(context.user % USER_BINS)
            columns["length"].append(min(context.length, MAX_LENGTH))
            columns["ts"].append(context.ts)
            columns["known_user"].append(context.known_user)
            columns["category"].append(self._number_category(context.category))
            columns["relation"].append(RELATIONS.index(relation))
            columns["purchased"].append(label.purchased)
            self.users.add(context.user)
            if label.item:
                self.next_items[label.item] += 1
            self.bought_labels += label.item in context.bought
            for number, arm in enumerate(self.arms):
                arm.add(event, number)

    def column(self, name: str) -> Column:
        """Return a column by name, as whole numbers: (events,)."""
        return np.frombuffer(self._columns[name], dtype=self._columns[name].typecode)

    def _number_category(self, name: str) -> int:
        if name not in self._category_numbers and len(self.categories) >= MAX_CATEGORIES:
            name = OTHER_CATEGORIES
        number = self._category_numbers.setdefault(name, len(self.categories))
        if number == len(self.categories):
            self.categories.append(name)
        return number


def _log_loss(actions: dict[str, float], label: int) -> float:
    return -math.log(max(actions[NEXT_ACTIONS[label]], MIN_PROBABILITY))
