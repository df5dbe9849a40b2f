"""Run: one pass over recorded events with all arms, by the pipeline that runs live."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clickscore.backtest import label_join as reasons
from clickscore.backtest.arms import Arm
from clickscore.backtest.evaluation_columns import EvaluationColumns
from clickscore.backtest.label_join import LabelJoin
from clickscore.backtest.lookahead import LeakCheck, OneByOneRerun
from clickscore.backtest.recommenders import Recommender, recommender_of, scorer_of
from clickscore.backtest.shared_pipelines import Recommenders, SharedPipelines
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.records import ReferenceRecords, build_catalogue
from clickscore.stream.replay.source import Batches, SourceSpec
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

LEAK_SAMPLE = 1_000
"""Events that are decided a second time to look for leaks."""


@dataclass(frozen=True, kw_only=True)
class BacktestPlan:
    """What a backtest does."""

    settings: Settings
    """What arms share where they say nothing else; its sessions are those that answers come from."""
    arms: Sequence[Arm]
    origin: SourceSpec
    reference: ReferenceRecords
    """Catalogue and campaigns."""
    judge_from: int = 0
    """Event time before which events only warm up, ms."""
    leak_sample: int = LEAK_SAMPLE

    @property
    def cutoff(self) -> int:
        """Length of the rankings that are compared: of the shortest that an arm shows."""
        return min(arm.settings.policy.k for arm in self.arms)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a pass over the log came to."""

    columns: EvaluationColumns
    book: LabelJoin
    """What was left out, and how often each item occurred."""
    records: int
    """Lines or records read."""
    leak_check: LeakCheck
    scorers: dict[str, Scorer]
    """Of each bundle's folder."""


def run_backtest(
    plan: BacktestPlan, report: Callable[[ReplayProgress], None], recommenders: Recommenders | None = None
) -> Evidence:
    """Replay a log with all arms and judge what they show.

    Args:
        plan: What to do.
        report: Is told how far it has come.
        recommenders: Makes an arm's recommender; else it is what the arm says.

    Raises:
        ClickscoreError: The source cannot be read on, or a bundle cannot be served.
    """
    tune_gc()
    return _BacktestPass(plan, recommenders).run(report)


class _BacktestPass:
    def __init__(self, plan: BacktestPlan, recommenders: Recommenders | None) -> None:
        self._plan = plan
        self._scorers: dict[str, Scorer] = {}
        self._recommenders: Recommenders = recommenders or self._recommender
        self._catalogue = build_catalogue(plan.reference)
        self._groups = self._new_groups()
        names = [arm.name for arm in plan.arms]
        self._twins = OneByOneRerun(self._new_groups(), names, plan.leak_sample) if plan.leak_sample else None
        self._leak_check = LeakCheck(events=0, leaks=())
        self._book = LabelJoin([arm.baseline is None for arm in plan.arms], self._catalogue.category_of)
        self._rows = EvaluationColumns(len(plan.arms), plan.cutoff)

    def _new_groups(self) -> SharedPipelines:
        plan = self._plan
        topic = plan.origin.topic_name(plan.settings.kafka)
        return SharedPipelines(
            plan.settings,
            plan.arms,
            topic,
            self._catalogue,
            recommenders=self._recommenders,
            policies=self._policy,
        )

    def _recommender(self, arm: Arm) -> Recommender:
        return recommender_of(arm, self._scorers)

    def _policy(self, arm: Arm, catalogue: Catalogue) -> Policy:
        if arm.baseline:
            return Policy(arm.settings.policy, catalogue, None, ())
        scorer = scorer_of(arm, self._scorers)
        return Policy(arm.settings.policy, catalogue, scorer.version, scorer.popular)

    def run(self, report: Callable[[ReplayProgress], None]) -> Evidence:
        plan, records = self._plan, 0
        origin = plan.origin
        with origin.open(plan.settings.kafka, range(origin.partitions), None) as source:
            for batches in source.batches():
                warm_up, due = origin.split_warm_up(batches)
                if warm_up:
                    self._take(warm_up, None)
                self._take(due, plan.judge_from)
                records += sum(len(found) for _, found in batches)
                report(ReplayProgress(source.completed, source.total, records))
            unreadable = source.unreadable
        self._book.finish()
        self._book.left_out[reasons.UNREADABLE] += unreadable
        return Evidence(
            columns=self._rows,
            book=self._book,
            records=records + unreadable,
            leak_check=self._twins.findings() if self._twins else self._leak_check,
            scorers=self._scorers,
        )

    def _take(self, batches: Batches, due_from: int | None) -> None:
        outputs, decided = self._groups.take(batches, due_from)
        if self._twins:
            self._twins.compare(batches, due_from, decided)
            if self._twins.done:
                self._leak_check, self._twins = self._twins.findings(), None
        left_out = self._book.left_out
        for output in outputs:
            left_out[reasons.UNREADABLE] += output.outcomes["dead"]
            left_out[reasons.TICK] += output.outcomes["tick"]
            left_out[reasons.REPEATED] += output.outcomes["repeated"]
        self._rows.add(self._book.take(outputs, decided))
