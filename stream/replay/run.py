"""Replay: recorded events through the very pipeline that runs live, with no worker in between.

The work is split by partitions, since a state and a watermark are a partition's: each process takes some of them, and
what a partition comes to is the same whoever takes it.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clickscore.schemas.sessions import OpenSession, encode_session
from clickscore.stream.gc_tuning import tune_gc
from clickscore.stream.pipeline import Output, PendingBatch, Pipeline
from clickscore.stream.reference.records import catalogue_of
from clickscore.stream.replay.checkpoint import Checkpoint, Plan, Tally, read_reference_of
from clickscore.stream.replay.file_source import FileOrigin
from clickscore.stream.replay.origins import parted, topic_name
from clickscore.stream.replay.output import Parts
from clickscore.stream.replay.source import BATCH, Batches, Mark, Source
from clickscore.stream.replay.verify import Check, Findings
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings

UNSCORED_BATCH = 512
"""Records that are processed at once where no model wants many: what they come to stays in the processor's cache, which
takes a fifth less time than 4,096."""

SWITCH_S = 0.0001
"""How long ONNX Runtime's thread waits for the interpreter between two calls, at most: a call takes some 10 ms, and at
Python's 5 ms a replay is up to a tenth slower."""

CHECKPOINT_SHARE = 0.05
"""Of the time, that checkpoints may take: a large state is written less often."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process of a run does."""

    settings: Settings
    plan: Plan
    folder: Path
    """Of the parts."""
    worker: int
    """Its number, from 0."""
    writes: bool
    """Whether there is an output."""
    packed: bool
    checkpoint_s: float
    """Least seconds between two checkpoints; none is written where it is 0."""
    check: str | None
    """Topic of decisions to compare with, without the prefix."""

    @property
    def partitions(self) -> list[int]:
        """Those that are its own."""
        return list(range(self.worker, self.plan.origin.partitions, self.plan.workers))


class Progress(msgspec.Struct, frozen=True):
    """How far a process has come."""

    position: int
    size: int
    """What `position` will be at the end, 0 where nobody knows."""
    records: int
    """Records that it has taken since it started."""


class Result(msgspec.Struct, frozen=True):
    """What a process came to."""

    tally: Tally
    findings: Findings | None


Report = Callable[[Progress], None]


def work(task: Task, report: Report) -> Result:
    """Replay the task's partitions: write what they come to as parts, and compare it with what was published.

    Raises:
        ClickscoreError: The source cannot be read on, or the parts cannot be written.
    """
    tune_gc()
    with Parts(task.folder, task.worker, task.partitions, packed=task.packed) as parts:
        topic = topic_name(task.plan.origin, task.settings.kafka)
        checkpoint, states = parts.load(task.settings.sessions, topic)
        if checkpoint and checkpoint.done:
            return Result(checkpoint.tally, None)
        pipeline = _pipeline(task, topic)
        pipeline.load(states)
        return _Run(task, pipeline, parts, checkpoint).run(report)


def _pipeline(task: Task, topic: str) -> Pipeline:
    settings, scorer = task.settings, None
    if task.plan.bundle:
        sys.setswitchinterval(SWITCH_S)
        bundle = load_bundle(
            Path(settings.scoring.bundle), settings.scoring.score_threads, settings.scoring.min_overlap
        )
        scorer = Scorer(bundle, settings.scoring.score_batch, reasons=settings.policy.reasons > 0)
    return Pipeline(settings.sessions, settings.policy, topic, catalogue_of(read_reference_of(task.folder)), scorer)


class _Run:
    """A task at work."""

    def __init__(self, task: Task, pipeline: Pipeline, parts: Parts, checkpoint: Checkpoint | None) -> None:
        self._task = task
        self._pipeline = pipeline
        self._parts = parts
        self._mark: Mark | None = checkpoint.mark if checkpoint else None
        self._tally = checkpoint.tally if checkpoint else Tally()
        self._unreadable_before = self._tally.unreadable
        self._outcomes = Counter(self._tally.outcomes)
        self._check: Check | None = None
        self._ahead: tuple[Batches, PendingBatch] | None = None
        self._saved_at = time.monotonic()
        self._pause = task.checkpoint_s

    def run(self, report: Report) -> Result:
        """Replay to the end."""
        task, records = self._task, 0
        self._begin_check()
        with task.plan.origin.open(task.settings.kafka, task.partitions, self._mark) as source:
            for batches in source.batches(BATCH if self._pipeline.has_model else UNSCORED_BATCH):
                self._take(batches)
                records += sum(len(found) for _, found in batches)
                report(Progress(source.position, source.size, records))
                if task.checkpoint_s and time.monotonic() - self._saved_at >= self._pause:
                    self._finish()  # the states are ahead of what is written
                    self._save(source)
            self._finish()
            self._close_open()
            self._save(source, done=True)
        return Result(self._tally, asyncio.run(self._check.findings()) if self._check else None)

    def _begin_check(self) -> None:
        task, origin = self._task, self._task.plan.origin
        if task.check and not isinstance(origin, FileOrigin):
            self._check = Check(task.settings.kafka, task.check, origin.topic, task.folder)
            asyncio.run(self._check.read({partition: origin.ranges[partition] for partition in task.partitions}))

    def _take(self, batches: Batches) -> None:
        """Put batches through the pipeline; those that ask the model are finished once the next ones have begun."""
        warming, due = parted(self._task.plan.origin, batches)
        if warming:
            self._pipeline.advance_all(warming)
            self._tally.warm += sum(len(records) for _, records in warming)
        if self._task.plan.what != "decisions":
            self._put(due, self._pipeline.advance_all(due))
        elif not self._pipeline.has_model:
            self._put(due, self._pipeline.process_all(due))
        else:
            begun = self._pipeline.begin(due)
            self._finish()
            self._ahead = (due, begun)

    def _finish(self) -> None:
        """Finish the batches that have begun, if any."""
        if self._ahead:
            due, begun = self._ahead
            self._ahead = None
            self._put(due, self._pipeline.finish(begun))

    def _put(self, batches: Batches, outputs: list[Output]) -> None:
        """Put what batches come to where it belongs."""
        for (partition, _), output in zip(batches, outputs, strict=True):
            self._outcomes += output.outcomes
            if self._check:
                self._check.compare(partition, output)
            if self._task.writes:
                self._write(partition, self._lines(output))

    def _lines(self, output: Output) -> list[bytes]:
        if self._task.plan.what != "decisions":
            return [message.value or b"" for message in output.closed_sessions]
        if not output.ads:
            return [message.value or b"" for message in output.recommendations]
        pairs = zip(output.recommendations, output.ads, strict=True)  # where there are campaigns, each event has both
        return [message.value or b"" for pair in pairs for message in pair]

    def _write(self, partition: int, lines: list[bytes]) -> None:
        self._parts.write(partition, lines)
        self._tally.written += len(lines)

    def _close_open(self) -> None:
        """Write the sessions that are still open where the log ends, if they are wanted."""
        if self._task.plan.what != "sessions, open ones too":
            return
        for partition, state in sorted(self._pipeline.partitions.items()):
            fields = (msgspec.structs.asdict(session) for session in state.close_all())
            self._write(partition, [encode_session(OpenSession(**of_session)) for of_session in fields])

    def _save(self, source: Source, *, done: bool = False) -> None:
        self._tally.outcomes = dict(self._outcomes)
        self._tally.unreadable = self._unreadable_before + source.unreadable
        began = time.monotonic()
        states = {} if done else self._pipeline.partitions
        self._parts.save(source.mark, self._tally, states, done=done)
        self._saved_at = time.monotonic()
        self._pause = max(self._task.checkpoint_s, (self._saved_at - began) / CHECKPOINT_SHARE)


def merged(results: Iterable[Result]) -> Result:
    """Return what all processes came to. Each has read all lines, so what is unreadable counts once."""
    tally, outcomes, findings = Tally(), Counter[str](), None
    for result in results:
        outcomes += Counter(result.tally.outcomes)
        tally.unreadable = result.tally.unreadable
        tally.warm += result.tally.warm
        tally.written += result.tally.written
        if result.findings:
            findings = result.findings if findings is None else findings + result.findings
    tally.outcomes = dict(outcomes)
    return Result(tally, findings)
