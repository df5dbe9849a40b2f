"""Backtest run: one pass over recorded events with all arms, through the worker's own pipeline."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clickscore.backtest.arms import Arm
from clickscore.backtest.evaluation_columns import EvaluationColumns
from clickscore.backtest.label_join import PRIVACY, REPEATED, TICK, UNREADABLE, LabelJoin
from clickscore.backtest.lookahead import LeakCheck, OneByOneRerun
from clickscore.backtest.recommenders import Recommender, load_scorer, make_recommender
from clickscore.backtest.shared_pipelines import MakeRecommender, SharedPipelines
from clickscore.schemas.handover import PREFIX as HANDOVER_PREFIX
from clickscore.stream.deciders import make_policy
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.replay.reference_files import NO_FILES, read_reference_files
from clickscore.stream.replay.reference_log import ReferenceLog, build_history
from clickscore.stream.replay.source import Batches, HandoverSlot, SourceSpec
from clickscore.stream.replay.task import ReplayProgress
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

LEAK_SAMPLE = 1_000
"""Events in the lookahead check: the rerun calls ONNX Runtime once per event, so the sample stays small."""


@dataclass(frozen=True, kw_only=True)
class BacktestPlan:
    """Log, arms and settings of a backtest."""

    settings: Settings
    """Common settings; labels come from their sessions."""
    arms: Sequence[Arm]
    source: SourceSpec
    reference: ReferenceLog
    """Catalogue and campaigns of all arms without files of their own."""
    judge_from: int = 0
    """Event time of the first judged events, ms; earlier events warm up."""
    leak_sample: int = LEAK_SAMPLE
    """Number of events in the lookahead check."""

    @property
    def cutoff(self) -> int:
        """Length of the compared rankings: the shortest list of an arm."""
        return min(arm.k for arm in self.arms)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Labelled events and counts of a pass over the log."""

    columns: EvaluationColumns
    join: LabelJoin
    """Counts of left-out records and of events on each item."""
    records: int
    """Number of lines or records read."""
    leak_check: LeakCheck
    scorers: dict[str, Scorer]
    """Scorer of each bundle, by folder."""


def run_backtest(
    plan: BacktestPlan,
    report_progress: Callable[[ReplayProgress], None],
    make_arm_recommender: MakeRecommender | None = None,
) -> Evidence:
    """Replay a log with all arms and label their predictions.

    Args:
        plan: Log, arms and settings.
        report_progress: Receives the progress after each batch.
        make_arm_recommender: Makes an arm's recommender, in place of the arm's bundle or baseline.

    Raises:
        ClickscoreError: The source cannot be read, or a bundle cannot be served.
    """
    tune_gc()
    return _BacktestPass(plan, make_arm_recommender).run(report_progress)


class _BacktestPass:
    """State of one pass over the log."""

    def __init__(self, plan: BacktestPlan, make_arm_recommender: MakeRecommender | None) -> None:
        self._plan = plan
        self._scorers: dict[str, Scorer] = {}
        self._make_recommender: MakeRecommender = make_arm_recommender or self._make_declared_recommender
        files = {arm.reference for arm in plan.arms if any(arm.reference)}
        self._references = {NO_FILES: plan.reference} | {pair: read_reference_files(*pair) for pair in files}
        self._pipelines = self._make_pipelines()
        names = [arm.name for arm in plan.arms]
        self._rerun = OneByOneRerun(self._make_pipelines(), names, plan.leak_sample) if plan.leak_sample else None
        self._leak_check = LeakCheck(events=0, leaks=())
        category_of = build_history(plan.reference, ()).newest.category_of
        self._join = LabelJoin([arm.baseline is None for arm in plan.arms], category_of)
        self._columns = EvaluationColumns(len(plan.arms), plan.cutoff)

    def _make_pipelines(self) -> SharedPipelines:
        plan = self._plan
        topic = plan.source.topic_name(plan.settings.kafka)
        return SharedPipelines(
            plan.settings,
            plan.arms,
            topic,
            self._references,
            plan.source.partitions,
            make_recommender=self._make_recommender,
            make_policy=self._make_policy,
        )

    def _make_declared_recommender(self, arm: Arm) -> Recommender:
        return make_recommender(arm, self._scorers)

    def _make_policy(self, arm: Arm, policy_file: PolicyFile) -> Policy:
        scorer = None if arm.baseline else load_scorer(arm, self._scorers)
        return make_policy(policy_file, scorer, arm.settings.policy)

    def run(self, report_progress: Callable[[ReplayProgress], None]) -> Evidence:
        plan, records = self._plan, 0
        spec = plan.source
        with spec.open(plan.settings, range(spec.partitions), None) as source:
            for batches in source.batches():
                warm_up, replayed = spec.split_warm_up(batches)
                for part in _cut_at_handovers(warm_up) if warm_up else ():
                    self._process(part, None)
                for part in _cut_at_handovers(replayed):
                    self._process(part, plan.judge_from)
                self._deliver(source.slot)
                records += sum(len(partition_records) for _, partition_records in batches)
                report_progress(ReplayProgress(source.completed, source.total, records))
            unreadable = source.unreadable
        self._join.finish()
        self._join.left_out[UNREADABLE] += unreadable
        return Evidence(
            columns=self._columns,
            join=self._join,
            records=records + unreadable,
            leak_check=self._rerun.result() if self._rerun else self._leak_check,
            scorers=self._scorers,
        )

    def _process(self, batches: Batches, judge_from: int | None) -> None:
        """Decide on a batch, and add the labelled events of the sessions ended by the batch.

        Args:
            batches: Next records of each partition.
            judge_from: Event time of the first judged events, ms; None where all records only warm up.
        """
        outputs, decisions = self._pipelines.decide(batches, judge_from)
        if self._rerun:
            self._rerun.compare(batches, judge_from, decisions)
            if self._rerun.is_complete:  # drop the second set of pipelines
                self._leak_check, self._rerun = self._rerun.result(), None
        left_out = self._join.left_out
        for output in outputs:
            left_out[UNREADABLE] += output.outcomes["dead"]
            left_out[TICK] += output.outcomes["tick"]
            left_out[REPEATED] += output.outcomes["repeated"]
            left_out[PRIVACY] += sum(output.outcomes[name] for name in ("consent", "erase", "identify", "handover"))
        self._columns.add(self._join.add(outputs, decisions))

    def _deliver(self, slot: HandoverSlot | None) -> None:
        """Process the hand-over that the last record of a file's batch causes, if any."""
        if self._rerun:
            self._rerun.deliver(slot)
        self._columns.add(self._join.add(self._pipelines.deliver(slot), []))


def _cut_at_handovers(batches: Batches) -> Iterator[Batches]:
    """Yield batches whose decisions come before all hand-overs: each hand-over begins a batch of its own."""
    pending: Batches = []
    for partition, records in batches:
        start = 0
        for row, record in enumerate(records):
            if record.value is not None and record.value.startswith(HANDOVER_PREFIX):
                yield [*pending, (partition, records[start:row])]
                yield [(partition, [record])]
                pending, start = [], row + 1
        pending.append((partition, records[start:]))
    yield pending
