"""Lookahead check: find arms that see the future, by deciding a sample again with one record at a time.

When a rerun gets one record at a time, no later record exists yet. So a decision that differs from the backtest's
decision, which was made in a batch, has used a later record. The check is as strong as cutting the log after every
record of the sample and comparing the decisions.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from clickscore.backtest.shared_pipelines import ArmDecisions, SharedPipelines
from clickscore.schemas.decisions import Recommendation, encode_decision
from clickscore.stream.replay.source import Batches, HandoverSlot

SHOWN_IDS = 3
"""Ids of differing decisions in the report, per arm: enough to look an example up."""


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """Differing decisions of an arm in the run without later records."""

    arm: str
    different: int
    """Number of differing decisions."""
    decision_ids: tuple[str, ...]
    """Ids of the first differing decisions."""


class LeakCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the lookahead check."""

    events: int
    """Number of events decided twice by every arm; 0 where the check is switched off."""
    leaks: tuple[Leak, ...]


class OneByOneRerun:
    """A second run of all arms, with one record at a time, until the sample is complete."""

    def __init__(self, pipelines: SharedPipelines, names: Sequence[str], sample: int) -> None:
        """Start where the backtest starts.

        Args:
            pipelines: New pipelines, without shared state with the backtest's pipelines.
            names: Names of the arms.
            sample: Number of events to decide again.
        """
        self._pipelines = pipelines
        self._names = names
        self._remaining = sample
        self._events = 0
        self._differences: Counter[int] = Counter()
        self._decision_ids: dict[int, list[str]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the sample is complete."""
        return self._remaining <= 0

    def compare(self, batches: Batches, judge_from: int | None, decisions: Sequence[ArmDecisions]) -> None:
        """Decide on each record of a batch alone, and compare with the backtest's decisions.

        Args:
            batches: Records of the batch.
            judge_from: Event time of the first judged events, ms; None where all records only warm up.
            decisions: The backtest's decisions on the whole batch.
        """
        expected = {decision.request.decision_id: decision.recommendations for decision in decisions}
        for partition, records in batches:
            for record in records:
                if self.is_complete:
                    return
                _, repeated = self._pipelines.decide([(partition, [record])], judge_from)
                for decision in repeated:
                    self._compare_decision(decision, expected[decision.request.decision_id])

    def deliver(self, slot: HandoverSlot | None) -> None:
        """Process the hand-over of the records compared since the last call, at its position in the log."""
        self._pipelines.deliver(slot)

    def _compare_decision(self, decision: ArmDecisions, expected: Sequence[Recommendation]) -> None:
        if not decision.recommendations:
            return
        self._remaining -= 1
        self._events += 1
        for arm, (rerun, original) in enumerate(zip(decision.recommendations, expected, strict=True)):
            if encode_decision(rerun) != encode_decision(original):
                self._differences[arm] += 1
                self._decision_ids.setdefault(arm, []).append(rerun.decision_id)

    def result(self) -> LeakCheck:
        """Return the leaks of the arms compared so far."""
        leaks = (
            Leak(arm=self._names[arm], different=count, decision_ids=tuple(self._decision_ids[arm][:SHOWN_IDS]))
            for arm, count in sorted(self._differences.items())
        )
        return LeakCheck(events=self._events, leaks=tuple(leaks))
