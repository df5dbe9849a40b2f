"""Task: replay some partitions of a source in one process.

The work is divided by partitions, since state and watermark belong to a partition: the output of a partition does not
depend on the process.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from clickscore.schemas.outcomes import encode_outcome
from clickscore.schemas.sessions import ClosedSession, OpenSession, decode_session, encode_session
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.kafka.log_reader import open_reader
from clickscore.stream.kafka.topics import list_topics
from clickscore.stream.pipeline import PendingBatch, Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.output import PartitionOutputs
from clickscore.stream.replay.reference_log import start_pipeline
from clickscore.stream.replay.replay_checkpoint import ReplayCheckpoint, ReplayPlan, ReplayTally, load_reference
from clickscore.stream.replay.session_ids import make_content_id
from clickscore.stream.replay.source import BATCH_RECORDS, Batches, Position, Source, handover_batches
from clickscore.stream.replay.verify import DecisionDiff, DiffSummary
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.scoring.stored_bundles import StoredBundles
from clickscore.stream.settings import Settings
from clickscore.stream.stored_policies import StoredPolicies

UNSCORED_BATCH_RECORDS = 512
"""Records in a batch without a model. The outputs of 512 records stay in the processor's cache: a fifth less time than
with 4,096 records."""

SWITCH_S = 0.0001
"""Interpreter switch interval, in seconds: the longest wait of ONNX Runtime's thread between two calls of some 10 ms.
With Python's default of 5 ms a replay is up to a tenth slower."""

CHECKPOINT_SHARE = 0.05
"""Limit of the share of time for checkpoints: a large state is written less often."""


@dataclass(frozen=True, kw_only=True)
class ReplayTask:
    """Work of one process of a replay."""

    settings: Settings
    plan: ReplayPlan
    policy_file: PolicyFile
    folder: Path
    """Folder of the replay, for outputs and checkpoints."""
    worker: int
    """Number of the process, from 0."""
    writes: bool
    """Whether the replay has an output."""
    compressed: bool
    """Whether the output is compressed."""
    checkpoint_s: float
    """Minimum time between two checkpoints, in seconds; 0 writes no checkpoints."""
    check: str | None
    """Topic of decisions to compare with, without the prefix; None for no comparison."""

    @property
    def partitions(self) -> list[int]:
        """Partitions of this process."""
        return list(range(self.worker, self.plan.source.partitions, self.plan.workers))


class ReplayProgress(msgspec.Struct, frozen=True):
    """Progress of a process."""

    completed: int
    """Amount read, in the unit of the source."""
    total: int
    """Amount to read; 0 if the amount is not known."""
    records: int
    """Number of records since the start of the process."""


class TaskResult(msgspec.Struct, frozen=True):
    """Result of a process."""

    tally: ReplayTally
    diff: DiffSummary | None
    """Comparison with published decisions; None without a comparison."""


OnTaskProgress = Callable[[ReplayProgress], None]


def run_task(task: ReplayTask, on_progress: OnTaskProgress) -> TaskResult:
    """Replay the partitions of a task, from the last checkpoint on.

    Raises:
        ClickscoreError: The source cannot be read to the end, or an output cannot be written.
    """
    tune_gc()
    with PartitionOutputs(task.folder, task.worker, task.partitions, compressed=task.compressed) as outputs:
        topic = task.plan.source.topic_name(task.settings.kafka)
        checkpoint, states = outputs.load(task.settings.sessions, topic)
        if checkpoint and checkpoint.done:
            return TaskResult(checkpoint.tally, None)
        pipeline = _make_pipeline(task, topic)
        start_pipeline(pipeline, load_reference(task.folder), task.partitions, states)
        return _TaskRun(task, pipeline, outputs, checkpoint).run(on_progress)


def _make_pipeline(task: ReplayTask, topic: str) -> Pipeline:
    settings, scorer = task.settings, None
    bundles: Mapping[str, Scorer] = {}
    policies: Mapping[str, PolicyFile] = {}
    if task.plan.decides and (settings.scoring.bundle_store or not task.plan.bundle):
        policies = StoredPolicies(settings.scoring.bundle_store)
        bundles = StoredBundles(settings.scoring, reasons=task.policy_file.max_reasons(settings.policy) > 0)
    if task.plan.bundle:
        sys.setswitchinterval(SWITCH_S)
        scoring = settings.scoring
        bundle = load_bundle(Path(scoring.bundle), scoring.score_threads, scoring.min_overlap)
        scorer = Scorer(bundle, scoring.score_batch, reasons=task.policy_file.max_reasons(settings.policy) > 0)
    pipeline = Pipeline(
        settings.sessions,
        settings.policy,
        topic,
        Catalogue(),
        scorer,
        bundles=bundles,
        policies=policies,
        policy_file=task.policy_file,
    )
    pipeline.applies_budgets = not isinstance(task.plan.source, FileSpec)
    return pipeline


class _TaskRun:
    """State of a running task."""

    def __init__(
        self, task: ReplayTask, pipeline: Pipeline, outputs: PartitionOutputs, checkpoint: ReplayCheckpoint | None
    ) -> None:
        self._task = task
        self._pipeline = pipeline
        self._outputs = outputs
        self._position: Position | None = checkpoint.position if checkpoint else None
        self._tally = checkpoint.tally if checkpoint else ReplayTally()
        self._earlier_unreadable = self._tally.unreadable
        self._outcomes = Counter(self._tally.outcomes)
        self._items = Counter(self._tally.items)
        self._diff: DecisionDiff | None = None
        self._in_flight: tuple[Batches, PendingBatch] | None = None
        self._saved_at = time.monotonic()
        self._checkpoint_s = task.checkpoint_s

    def run(self, on_progress: OnTaskProgress) -> TaskResult:
        """Replay to the end of the source."""
        task, record_count = self._task, 0
        if task.check:
            self._diff = self._read_published(task.check)
        with task.plan.source.open(task.settings, task.partitions, self._position) as source:
            for batches in source.batches(BATCH_RECORDS if self._pipeline.has_model else UNSCORED_BATCH_RECORDS):
                outputs = self._process(batches)
                handovers = handover_batches(source.slot, [m for output in outputs for m in output.handovers])
                self._take(handovers, self._pipeline.advance_all(handovers))  # without waiting for the model
                record_count += sum(len(records) for _, records in batches)
                on_progress(ReplayProgress(source.completed, source.total, record_count))
                is_due = task.checkpoint_s and time.monotonic() - self._saved_at >= self._checkpoint_s
                if is_due and source.is_resumable:
                    self._finish_in_flight()  # the states are ahead of the output until then
                    self._save(source)
            self._finish_in_flight()
            self._write_open_sessions()
            self._write_open_decisions()
            self._save(source, done=True)
        return TaskResult(self._tally, asyncio.run(self._diff.summarise()) if self._diff else None)

    def _read_published(self, check_topic: str) -> DecisionDiff:
        """Return a comparison with the decisions of a topic, with the published decisions read."""
        task, source, kafka = self._task, self._task.plan.source, self._task.settings.kafka
        ranges = source.offset_ranges(task.partitions)  # refuses a file before the broker is asked
        diff = DecisionDiff(kafka, check_topic, source.topic_name(kafka), task.folder, partial(open_reader, kafka))
        asyncio.run(diff.read_published(ranges, asyncio.run(list_topics(kafka))))
        return diff

    def _process(self, batches: Batches) -> list[Output]:
        """Put batches through the pipeline, and return the outputs; decisions may still wait for the model.

        With a model, a batch is finished once the next batch has begun.
        """
        warm_up, replayed = self._task.plan.source.split_warm_up(batches)
        if warm_up:
            if self._task.plan.decides:
                self._pipeline.process_all(warm_up)  # reactions and budgets need the decisions of the warm-up
            else:
                self._pipeline.advance_all(warm_up)
            self._tally.warm_up += sum(len(records) for _, records in warm_up)
        decides = self._task.plan.decides
        if decides and self._pipeline.has_model:
            pending = self._pipeline.begin(replayed)
            self._finish_in_flight()
            self._in_flight = (replayed, pending)
            if pending.hands_over:
                self._finish_in_flight()  # the hand-overs come next
            return pending.outputs
        outputs = self._pipeline.process_all(replayed) if decides else self._pipeline.advance_all(replayed)
        self._take(replayed, outputs)
        return outputs

    def _finish_in_flight(self) -> None:
        """Finish the batch that waits for the model, if any."""
        if self._in_flight:
            batches, pending = self._in_flight
            self._in_flight = None
            self._take(batches, self._pipeline.finish(pending))

    def _take(self, batches: Batches, outputs: list[Output]) -> None:
        """Count, compare and write the outputs of batches."""
        for (partition, _), output in zip(batches, outputs, strict=True):
            self._outcomes += output.outcomes
            for (variant, reason), count in output.items.items():
                if variant == MODEL:
                    self._items[reason] += count
            if self._diff:
                self._diff.compare(partition, output)
            if self._task.writes:
                self._write(partition, self._output_lines(output))

    def _output_lines(self, output: Output) -> list[bytes]:
        if self._task.plan.output == "outcomes":
            return [message.value or b"" for message in output.decision_outcomes]
        if self._task.plan.output != "decisions":
            return [self._session_line(decode_session(message.value or b"")) for message in output.closed_sessions]
        if not output.ads:
            return [message.value or b"" for message in output.recommendations]
        # Campaigns may begin or end within the batch, so an event has an ad decision or has none.
        by_event = sorted((*output.recommendations, *output.ads), key=lambda message: message.event_offset or 0)
        return [message.value or b"" for message in by_event]

    def _session_line(self, session: ClosedSession) -> bytes:
        """Return a session as a line, with an id of its content if it comes from a file."""
        if isinstance(self._task.plan.source, FileSpec):
            session = msgspec.structs.replace(session, id=make_content_id(session))
        return encode_session(session)

    def _write(self, partition: int, lines: list[bytes]) -> None:
        self._outputs.write(partition, lines)
        self._tally.written += len(lines)

    def _write_open_sessions(self) -> None:
        """Write the sessions that are open at the end of the log, if the plan wants open sessions."""
        if self._task.plan.output != "sessions, open ones too":
            return
        for partition, state in sorted(self._pipeline.partitions.items()):
            sessions = (OpenSession(**msgspec.structs.asdict(session)) for session in state.close_all())
            self._write(partition, [self._session_line(session) for session in sessions])

    def _write_open_decisions(self) -> None:
        """Write the outcomes of the decisions that are open at the end of the log, if the plan wants outcomes."""
        if self._task.plan.output == "outcomes":
            for partition, state in sorted(self._pipeline.partitions.items()):
                state.ledger.close_all()
                self._write(partition, [encode_outcome(outcome) for outcome in state.ledger.take_results().outcomes])

    def _save(self, source: Source, *, done: bool = False) -> None:
        self._tally.outcomes = dict(self._outcomes)
        self._tally.items = dict(self._items)
        self._tally.unreadable = self._earlier_unreadable + source.unreadable
        started_at = time.monotonic()
        states = {} if done else self._pipeline.partitions
        self._outputs.save(source.position, self._tally, states, done=done)
        self._saved_at = time.monotonic()
        self._checkpoint_s = max(self._task.checkpoint_s, (self._saved_at - started_at) / CHECKPOINT_SHARE)
