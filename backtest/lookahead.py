"""Leaks: whether an arm sees what comes later. A sample is decided again, one record at a time, by new arms.

When a record is all that has been handed over, nothing later exists yet. So a decision that differs from the one made
in the course of the backtest, where records come in batches, has used something later. This is the strongest form of
"the log, cut off here, gives the same decisions up to here": it cuts the log after every record of the sample.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from clickscore.backtest.shared_pipelines import ArmDecisions, SharedPipelines
from clickscore.schemas.decisions import Recommendation, encode_decision
from clickscore.stream.replay.source import Batches

SHOWN = 3
"""Ids of differing decisions that are told of an arm."""


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions of an arm that came out otherwise when nothing later was there."""

    arm: str
    different: int
    decision_ids: tuple[str, ...]
    """The first of them."""


class LeakCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the check came to."""

    events: int
    """Events that every arm decided twice; 0 where the check was not wanted."""
    leaks: tuple[Leak, ...]


class OneByOneRerun:
    """The arms of a backtest once more, shown one record at a time, until the sample is full."""

    def __init__(self, groups: SharedPipelines, names: Sequence[str], sample: int) -> None:
        """Begin where the backtest begins.

        Args:
            groups: New ones, that share no memory with those of the backtest.
            names: Of the arms.
            sample: Events to decide again.
        """
        self._groups = groups
        self._names = names
        self._left = sample
        self._events = 0
        self._different: Counter[int] = Counter()
        self._first: dict[int, list[str]] = {}

    @property
    def done(self) -> bool:
        """Whether the sample is full."""
        return self._left <= 0

    def compare(self, batches: Batches, due_from: int | None, decided: Sequence[ArmDecisions]) -> None:
        """Decide on the records of batches one by one, and compare with what was decided on them all at once."""
        expected = {one.request.decision_id: one.recommendations for one in decided}
        for partition, records in batches:
            for record in records:
                if self.done:
                    return
                _, again = self._groups.take([(partition, [record])], due_from)
                for one in again:
                    self._compare_one(one, expected[one.request.decision_id])

    def _compare_one(self, again: ArmDecisions, expected: Sequence[Recommendation]) -> None:
        if not again.recommendations:
            return
        self._left -= 1
        self._events += 1
        for arm, (one, other) in enumerate(zip(again.recommendations, expected, strict=True)):
            if encode_decision(one) != encode_decision(other):
                self._different[arm] += 1
                self._first.setdefault(arm, []).append(one.decision_id)

    def findings(self) -> LeakCheck:
        """Return what the check came to."""
        leaks = (
            Leak(arm=self._names[arm], different=count, decision_ids=tuple(self._first[arm][:SHOWN]))
            for arm, count in sorted(self._different.items())
        )
        return LeakCheck(events=self._events, leaks=tuple(leaks))
