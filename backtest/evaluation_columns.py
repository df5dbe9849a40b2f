"""Rows: judged events as columns of numbers, some bytes an event and arm, so that millions fit in memory."""

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
"""Users are dealt into so many bins by a hash; intervals are made by drawing bins, see `backtest.intervals`."""

RELATIONS: tuple[Relation, ...] = get_args(Relation)
NO_ANSWER = RELATIONS.index("nothing follows")
NEW = RELATIONS.index("new to the session")

MOST_CATEGORIES = 10_000
OTHER = "(other)"

Column = npt.NDArray[Any]


class ArmColumns:
    """What came of one arm's decisions, an entry a judged event."""

    def __init__(self, cutoff: int) -> None:
        """Begin empty; of what the arm shows, the first `cutoff` are counted as recommended."""
        self._cutoff = cutoff
        self._ranks = array("H")
        self._purchase = array("f")
        self._action_loss = array("f")
        self.recommended: Counter[str] = Counter()
        """How often it showed each item among the first."""

    def add(self, judged: LabelledEvent, arm: int) -> None:
        """Book a judged event."""
        items, purchase, actions = judged.shown[arm]
        answer = judged.answer
        self._ranks.append(items.index(answer.item) + 1 if answer.item in items else 0)
        self._purchase.append(np.nan if purchase is None else purchase)
        self._action_loss.append(np.nan if actions is None else _loss(actions, answer.action))
        self.recommended.update(items[: self._cutoff])

    @property
    def ranks(self) -> Ints:
        """Place of the next item among those shown, from 1; 0 where it was not shown, or where none followed."""
        return np.frombuffer(self._ranks, dtype=np.uint16).astype(np.int64)

    @property
    def purchase(self) -> Floats:
        """Probability of a purchase in what was left of the session; not a number where none was stated."""
        return np.frombuffer(self._purchase, dtype=np.float32).astype(np.float64)

    @property
    def action_loss(self) -> Floats:
        """-log of the probability of the next action, likewise."""
        return np.frombuffer(self._action_loss, dtype=np.float32).astype(np.float64)


class EvaluationColumns:
    """All judged events: what is known of each, and what each arm made of it."""

    def __init__(self, arms: int, cutoff: int) -> None:
        """Begin empty; of what an arm shows, the first `cutoff` are counted as recommended."""
        self.arms = [ArmColumns(cutoff) for _ in range(arms)]
        self.categories: list[str] = []
        """Name of each number of `category`."""
        self.bought_answers = 0
        """Events whose next item the user had bought before, so that the policy's rules kept it back."""
        self.answers: Counter[str] = Counter()
        """How often each item was the next."""
        self.users: set[int] = set()
        """A hash of each user."""
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
        """Return how many events were judged."""
        return len(self._columns["ts"])

    def add(self, found: Sequence[LabelledEvent]) -> None:
        """Book judged events."""
        of = self._columns
        for judged in found:
            context, _, answer, relation = judged
            of["user_bin"].append(context.user % USER_BINS)
            of["length"].append(min(context.length, 65_535))
            of["ts"].append(context.ts)
            of["known_user"].append(context.known_user)
            of["category"].append(self._category(context.category))
            of["relation"].append(RELATIONS.index(relation))
            of["purchased"].append(answer.purchased)
            self.users.add(context.user)
            if answer.item:
                self.answers[answer.item] += 1
            self.bought_answers += answer.item in context.bought
            for number, arm in enumerate(self.arms):
                arm.add(judged, number)

    def column(self, name: str) -> Column:
        """Return a column by its name: whole numbers, an entry a judged event."""
        return np.frombuffer(self._columns[name], dtype=self._columns[name].typecode)

    def _category(self, name: str) -> int:
        if name not in self._category_numbers and len(self.categories) >= MOST_CATEGORIES:
            name = OTHER
        number = self._category_numbers.setdefault(name, len(self.categories))
        if number == len(self.categories):
            self.categories.append(name)
        return number


def _loss(actions: dict[str, float], happened: int) -> float:
    return -math.log(max(actions[NEXT_ACTIONS[happened]], MIN_PROBABILITY))
